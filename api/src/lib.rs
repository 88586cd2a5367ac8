//! The REST API: the door for clients that do not write to the log themselves.
//!
//! A request that changes something is checked whole, written to the log, and answered once the
//! broker has acked it. A request that asks is answered from the store, after what was written
//! before it has got there.

mod admin;
mod api_keys;
mod batches;
mod body;
mod catalog;
mod controls;
mod dead_letters;
mod events;
mod example;
mod fault;
mod health;
mod keys;
mod methods;
mod metrics;
mod notifications;
mod pages;
mod params;
mod requests;
mod rules;
mod seed;
mod sources;
mod templates;
mod time;
mod trace;
mod words;
mod workers;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use herald_broker::Broker;
use herald_runtime::{
    catalogs::Catalogs, inbox::Inbox, metrics::Metrics, outbox::Outbox, peers::Peers,
    progress::Progress,
};
use herald_schemas::topics::Topics;
use herald_stages::{Settings, snapshot::Snapshot};
use herald_store::Store;
use poem::{
    Endpoint, EndpointExt, IntoResponse, Request, Response, Route, Server,
    endpoint::make_sync,
    get,
    http::{Method, StatusCode, header},
    listener::TcpAcceptor,
    web::{Data, Json},
};
use poem_openapi::{OpenApiService, ServerObject, Tags};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};

pub use admin::{Admin, serve_admin};
pub use health::Readiness;
pub use keys::Keys;

use crate::{
    body::MaxBody,
    fault::Fault,
    methods::Methods,
    requests::{Requests, route_of},
};

/// How old the catalog that a request is checked against may be.
const CATALOG_AGE: Duration = Duration::from_millis(50);
/// How long a request may take, its body included.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may be silent; more than a request may take.
const SILENT_FOR: Duration = Duration::from_secs(75);
/// How long requests that are being served may take when the process stops.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// What the API works with.
#[derive(Clone)]
pub struct Api {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Encodes and produces.
    pub outbox: Arc<Outbox>,
    /// Decodes.
    pub inbox: Inbox,
    /// Compiled rules and templates.
    pub catalogs: Arc<Catalogs>,
    /// How far materialize has come.
    pub progress: Progress,
    /// The workers.
    pub peers: Arc<Peers>,
    /// What the operator has set.
    pub settings: Arc<Settings>,
    /// Who may come in.
    pub keys: Keys,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The names of the topics.
    pub topics: Topics,
    /// How long an idempotency key is kept.
    pub keys_kept: Duration,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
}

impl Api {
    /// What `check` makes of a request. What it refuses is checked again when another process has
    /// changed the catalog a moment ago.
    async fn checked<T>(&self, check: impl Fn(&Snapshot) -> Result<T, Fault>) -> Result<T, Fault> {
        let catalog = self.catalogs.fresh(CATALOG_AGE).await?;
        let fault = match check(&catalog) {
            Ok(checked) => return Ok(checked),
            Err(fault) => fault,
        };
        let newest = self.newest_catalog().await?;
        if newest.version() == catalog.version() {
            return Err(fault);
        }
        check(&newest)
    }

    /// What changes of the catalog are checked against: it knows what any process has changed.
    async fn newest_catalog(&self) -> Result<Arc<Snapshot>, Fault> {
        Ok(self.catalogs.fresh(Duration::ZERO).await?)
    }
}

/// Does work that must not stop half way, even if the client goes away or its answer takes too
/// long: either would drop the request's own future.
async fn to_the_end<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    E: Into<Fault> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => {
            tracing::error!(%error, "request not carried out to its end");
            Err(Fault::unavailable(
                "The request may not have been carried out.",
            ))
        }
    }
}

#[derive(Tags)]
enum Tag {
    /// Messages to one recipient each.
    Notifications,
    /// What happened in producers' systems.
    Events,
    /// Which events, templates and rules there are.
    Catalog,
    /// The paths and field names of event-driven-notification-platform, on the same objects.
    FirstSeed,
    /// What could not be processed or delivered.
    DeadLetters,
    /// How it is going.
    Operations,
}

type Routes = (
    notifications::Routes,
    batches::Routes,
    events::Routes,
    sources::Routes,
    templates::Routes,
    rules::Routes,
    seed::Sources,
    seed::Templates,
    seed::Rules,
    seed::Logs,
    dead_letters::Routes,
    metrics::Routes,
    health::Routes,
    api_keys::Routes,
    controls::Routes,
    workers::Routes,
);

/// What stands before every path of the document.
const PREFIX: &str = "/api";

fn service() -> OpenApiService<Routes, ()> {
    let routes = (
        notifications::Routes,
        batches::Routes,
        events::Routes,
        sources::Routes,
        templates::Routes,
        rules::Routes,
        seed::Sources,
        seed::Templates,
        seed::Rules,
        seed::Logs,
        dead_letters::Routes,
        metrics::Routes,
        health::Routes,
        api_keys::Routes,
        controls::Routes,
        workers::Routes,
    );
    OpenApiService::new(routes, "Herald", env!("CARGO_PKG_VERSION"))
        .description(
            "Turns events into notifications, delivers them, and says what became of each.",
        )
        .server(ServerObject::new(PREFIX))
}

/// The OpenAPI document, as JSON.
pub fn openapi() -> String {
    service().spec()
}

/// Answers with the document, which is made once.
fn document() -> impl Endpoint<Output = Response> {
    let document = openapi();
    make_sync(move |_| {
        Response::builder()
            .content_type("application/json")
            .body(document.clone())
    })
}

/// Serves until `shutdown` resolves, and then finishes what is being served.
pub async fn serve(
    api: Api,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let service = service();
    let methods = Methods::of(&service.spec(), PREFIX);
    let readiness = Readiness::of_stages(Vec::new(), Arc::clone(&api.metrics)).and_api(&api);
    let requests = Requests::new(api.metrics.registry())?;
    let app = Route::new()
        .at("/healthz", get(health::alive))
        .at("/readyz", get(health::ready))
        .at("/openapi.json", get(document()))
        .nest("/swagger", service.swagger_ui())
        .nest(PREFIX, service)
        .data(readiness)
        .data(MaxBody(api.max_body_bytes))
        .data(api);
    let answered = Answered {
        methods,
        requests: Some(requests),
        ..Answered::new(app, ANSWER_WITHIN)
    };
    answer_on(listener, answered, shutdown, STOP_WITHIN).await
}

/// Answers on a port until `shutdown` resolves; what is being answered then has `stop_within`.
async fn answer_on(
    listener: TcpListener,
    app: impl Endpoint + 'static,
    shutdown: impl Future<Output = ()>,
    stop_within: Duration,
) -> io::Result<()> {
    Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .idle_timeout(SILENT_FOR)
        .run_with_graceful_shutdown(app, shutdown, Some(stop_within))
        .await
}

/// Says that the process is alive and not ready yet, to whoever asks before it can serve; until
/// `ready` resolves.
pub async fn serve_waiting(
    listener: TcpListener,
    ready: impl Future<Output = ()>,
) -> io::Result<()> {
    let waiting = make_sync(|_| health::waiting());
    let app = Route::new()
        .at("/healthz", get(health::alive))
        .at("/*path", waiting);
    answer_on(listener, app, ready, Duration::ZERO).await
}

/// Answers in time, and in JSON what the framework would answer by itself.
struct Answered<E> {
    by: E,
    /// Without any, each path is for reading only.
    methods: Methods,
    within: Duration,
    /// Where they are counted, if they are.
    requests: Option<Requests>,
}

impl<E> Answered<E> {
    fn new(by: E, within: Duration) -> Self {
        Self {
            by,
            methods: Methods::default(),
            within,
            requests: None,
        }
    }
}

impl<E: Endpoint> Endpoint for Answered<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let since = Instant::now();
        let answer = timeout(self.within, self.by.call(request)).await;
        let answer = answer.map(|answer| answer.map(IntoResponse::into_response));
        let route = answer.as_ref().ok().and_then(route_of);
        let mut answer = match answer {
            Ok(answer) => answer.unwrap_or_else(|error| in_json(error, &method, &path)),
            Err(_) => {
                tracing::warn!(%method, path, "request not answered in time");
                let text = "The request took too long; it may have been carried out.";
                Fault::unavailable(text).into_response()
            }
        };
        if answer.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Ok(allowed) = self.methods.allowed(&path).parse()
        {
            answer.headers_mut().insert(header::ALLOW, allowed);
        }
        if let Some(requests) = &self.requests {
            requests.note(&method, route.as_ref(), answer.status(), since.elapsed());
        }
        Ok(answer)
    }
}

/// What the framework, or one of our own answers, says by way of an error.
fn in_json(error: poem::Error, method: &Method, path: &str) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    let status = error.status();
    let message = match status {
        StatusCode::UNAUTHORIZED => "Unauthorized".to_owned(),
        StatusCode::NOT_FOUND => format!("The route {path} could not be found."),
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("The {method} method is not supported for route {path}.")
        }
        status if status.is_client_error() => error.to_string(),
        _ => {
            tracing::error!(%error, %method, path, "request failed");
            "Server Error".to_owned()
        }
    };
    Json(json!({ "message": message }))
        .with_status(status)
        .into_response()
}

/// The parts of the process, as handlers take them.
type Parts<'a> = Data<&'a Api>;

#[cfg(test)]
mod tests {
    use std::future::pending;

    use poem::endpoint::make;

    use super::*;

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_all_the_same() {
        let never = make(|_| pending::<Response>());
        let answered = Answered::new(never, Duration::from_millis(10));
        let answer = answered.get_response(Request::default()).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
        let body = answer.into_body().into_string().await.unwrap();
        assert!(body.contains("took too long"), "{body}");
    }
}
