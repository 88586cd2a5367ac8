//! Whether the process is alive, and whether it and what it needs can serve.

use std::{collections::BTreeMap, time::Duration};

use poem::{
    IntoResponse, Request, Response, handler,
    http::StatusCode,
    web::{Data, Json},
};
use poem_openapi::{ApiResponse, Object, OpenApi, payload};
use serde_json::json;
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

#[handler]
pub(crate) async fn ready(api: Data<&Api>) -> Response {
    let (broker, store) = tokio::join!(api.broker.ping(), api.store.ping());
    let word = |is_up| if is_up { "ok" } else { "down" };
    let (broker, store) = (broker.is_ok(), store.is_ok());
    let is_ready = broker && store;
    let body = json!({
        "status": word(is_ready), "broker": word(broker), "database": word(store),
    });
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Json(body).with_status(status).into_response()
}
