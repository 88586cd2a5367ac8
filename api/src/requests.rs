//! What is counted of requests: by the pattern that a path matched, never by the path, so that there
//! are no more of them than routes.

use std::{io, time::Duration};

use poem::{
    PathPattern, Response,
    http::{Method, StatusCode},
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// The route of what matched none.
const NO_ROUTE: &str = "none";

/// The requests of one API.
#[derive(Clone)]
pub(crate) struct Requests {
    answered: IntCounterVec,
    seconds: HistogramVec,
}

impl Requests {
    /// None yet; shown by `registry`.
    pub(crate) fn new(registry: &Registry) -> io::Result<Self> {
        Self::registered(registry).map_err(io::Error::other)
    }

    fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let answered = IntCounterVec::new(
            Opts::new("herald_http_requests_total", "Requests that were answered."),
            &["method", "route", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "herald_http_request_seconds",
                "How long a request took until its answer began.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
            ]),
            &["method", "route"],
        )?;
        registry.register(Box::new(answered.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { answered, seconds })
    }

    pub(crate) fn note(
        &self,
        method: &Method,
        route: Option<&PathPattern>,
        status: StatusCode,
        took: Duration,
    ) {
        let method = named(method);
        let route = route.map_or(NO_ROUTE, |pattern| &pattern.0);
        self.answered
            .with_label_values(&[method, route, status.as_str()])
            .inc();
        self.seconds
            .with_label_values(&[method, route])
            .observe(took.as_secs_f64());
    }
}

/// The methods that there are; a client may make up others.
fn named(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What an answer, or an error, knows of the route that made it.
pub(crate) fn route_of(answer: &poem::Result<Response>) -> Option<PathPattern> {
    match answer {
        Ok(response) => response.data::<PathPattern>().cloned(),
        Err(error) => error.data::<PathPattern>().cloned(),
    }
}
