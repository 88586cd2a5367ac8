//! Whether the process is alive, and whether it and what it needs can serve.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use herald_broker::Broker;
use herald_runtime::{
    metrics::{Metrics, State},
    stage::Stage,
};
use herald_store::Store;
use poem::{
    IntoResponse, Request, Response, handler,
    http::StatusCode,
    web::{Data, Json},
};
use poem_openapi::{ApiResponse, Object, OpenApi, payload};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::{Api, Parts, Tag, fault::Fault, keys::Caller, trace::Trace};

/// How long a server may take to answer before it is said to be down.
const WITHIN: Duration = Duration::from_secs(2);

/// What the process needs, and whether it answers.
#[derive(Object)]
struct Health {
    /// `ok`, or `error` when one is down.
    status: String,
    /// `ok` or `error`, by name: database, broker, and schema_registry where there is one.
    dependencies: BTreeMap<String, String>,
}

#[derive(ApiResponse)]
enum Healthy {
    /// Everything answers.
    #[oai(status = 200)]
    Ok(
        payload::Json<Health>,
        /// The request's, or a new one.
        #[oai(header = "traceparent")]
        String,
    ),
    /// Something does not.
    #[oai(status = 503)]
    Down(
        payload::Json<Health>,
        /// The request's, or a new one.
        #[oai(header = "traceparent")]
        String,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u64,
    ),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Operations")]
impl Routes {
    /// Shows whether the servers behind the API answer.
    #[oai(path = "/health", method = "get")]
    async fn health(
        &self,
        _caller: Caller,
        request: &Request,
        api: Parts<'_>,
    ) -> Result<Healthy, Fault> {
        let (store, broker, registry) = tokio::join!(
            timeout(WITHIN, api.store.ping()),
            timeout(WITHIN, api.broker.ping()),
            timeout(WITHIN, api.inbox.has_registry()),
        );
        let word = |is_up: bool| if is_up { "ok" } else { "error" }.to_owned();
        let mut dependencies = BTreeMap::from([
            ("database".to_owned(), word(matches!(store, Ok(Ok(()))))),
            ("broker".to_owned(), word(matches!(broker, Ok(Ok(()))))),
        ]);
        if let Some(is_up) = registry.unwrap_or(Some(false)) {
            dependencies.insert("schema_registry".to_owned(), word(is_up));
        }
        let is_up = dependencies.values().all(|word| word == "ok");
        let health = payload::Json(Health {
            status: word(is_up),
            dependencies,
        });
        let traceparent = Trace::of(request).traceparent;
        Ok(match is_up {
            true => Healthy::Ok(health, traceparent),
            false => Healthy::Down(health, traceparent, 1),
        })
    }
}

#[handler]
pub(crate) fn alive() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// What a process that is still starting says of being ready.
pub(crate) fn waiting() -> Response {
    Fault::unavailable("Waiting for other servers.").into_response()
}

/// What has to be so that a process is ready.
#[derive(Clone)]
pub struct Readiness {
    servers: Option<(Arc<dyn Broker>, Arc<dyn Store>)>,
    stages: Vec<Stage>,
    metrics: Arc<Metrics>,
}

impl Readiness {
    /// Each of these stages is running, or was stopped by an operator; those are the stages that `metrics` tells of.
    pub fn of_stages(stages: Vec<Stage>, metrics: Arc<Metrics>) -> Self {
        Self {
            servers: None,
            stages,
            metrics,
        }
    }

    /// And the servers that an API needs answer as well.
    pub fn and_api(self, api: &Api) -> Self {
        let servers = Some((Arc::clone(&api.broker), Arc::clone(&api.store)));
        Self { servers, ..self }
    }

    /// Says it part by part: 200, or 503.
    pub(crate) async fn answer(&self) -> Response {
        let mut is_ready = true;
        let mut word = |is_so: bool| {
            is_ready &= is_so;
            if is_so { "ok" } else { "down" }
        };
        let mut body = Map::new();
        if let Some((broker, store)) = &self.servers {
            let (broker, store) = tokio::join!(broker.ping(), store.ping());
            body.insert("broker".to_owned(), word(broker.is_ok()).into());
            body.insert("database".to_owned(), word(store.is_ok()).into());
        }
        if !self.stages.is_empty() {
            let mut word = |stage: &Stage| match self.metrics.state(*stage) {
                // As it is to be.
                State::Stopped => "stopped",
                state => word(state == State::Running),
            };
            let of = |stage: &Stage| (stage.to_string(), word(stage).into());
            let stages: Map<String, Value> = self.stages.iter().map(of).collect();
            body.insert("stages".to_owned(), stages.into());
        }
        let status = if is_ready { "ok" } else { "down" };
        body.insert("status".to_owned(), status.into());
        let status = match is_ready {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        Json(body).with_status(status).into_response()
    }
}

#[handler]
pub(crate) async fn ready(readiness: Data<&Readiness>) -> Response {
    readiness.answer().await
}
