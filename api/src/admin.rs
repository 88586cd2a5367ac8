//! What operators and orchestrators ask a process, on a port of its own and without a key: figures
//! for Prometheus, whether it is alive, whether it is ready. Every process has it, the worker too.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use herald_runtime::metrics::Metrics;
use poem::{EndpointExt, IntoResponse, Response, Route, get, handler, web::Data};
use tokio::net::TcpListener;

use crate::{
    ANSWER_WITHIN, Answered, STOP_WITHIN, answer_on,
    fault::Fault,
    health::{self, Readiness},
};

/// A process as its admin port shows it.
#[derive(Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    readiness: Arc<OnceLock<Readiness>>,
}

impl Admin {
    /// A process that is starting: alive, not ready yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            readiness: Arc::default(),
        }
    }

    /// The process has started; from now on it is ready when this says so.
    pub fn started(&self, readiness: Readiness) {
        // Nobody starts twice.
        let _ = self.readiness.set(readiness);
    }
}

/// Serves until `shutdown` resolves.
pub async fn serve_admin(
    admin: Admin,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let app = Route::new()
        .at("/metrics", get(figures))
        .at("/healthz", get(health::alive))
        .at("/readyz", get(ready))
        .data(admin);
    let answered = Answered::new(app, ANSWER_WITHIN);
    answer_on(listener, answered, shutdown, STOP_WITHIN).await
}

#[handler]
fn figures(admin: Data<&Admin>) -> Response {
    match admin.metrics.text() {
        Ok(text) => Response::builder()
            .content_type(prometheus::TEXT_FORMAT)
            .body(text),
        Err(error) => {
            tracing::error!(%error, "figures cannot be shown");
            Fault::unavailable("The figures cannot be shown.").into_response()
        }
    }
}

#[handler]
async fn ready(admin: Data<&Admin>) -> Response {
    match admin.readiness.get() {
        Some(readiness) => readiness.answer().await,
        None => health::waiting(),
    }
}
