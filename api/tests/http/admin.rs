//! The admin port, and what it shows of the API's requests.

use std::sync::Arc;

use herald_api::{Admin, Readiness, serve_admin};
use herald_runtime::{metrics::Metrics, stage::Stage};
use serde_json::json;
use tokio::net::TcpListener;

use crate::served::{Served, exchange, request};

/// The port of a process, and where it is.
async fn shown(metrics: &Arc<Metrics>) -> (Admin, String) {
    let admin = Admin::new(Arc::clone(metrics));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve_admin(admin.clone(), listener, std::future::pending()));
    (admin, address)
}

#[tokio::test]
async fn a_process_is_alive_before_it_is_ready_and_says_what_is_not() {
    let metrics = Metrics::new().unwrap();
    let (admin, address) = shown(&metrics).await;
    let get = async |path: &str| exchange(&address, request("GET", path, "", "").as_bytes()).await;
    assert_eq!(get("/healthz").await.status, 200);
    let waiting = get("/readyz").await;
    assert_eq!(waiting.status, 503);
    assert!(waiting.head.contains("retry-after: 1"), "{}", waiting.head);

    admin.started(Readiness::of_stages(vec![Stage::Match], metrics));
    let ready = get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.body,
        json!({ "status": "down", "stages": { "match": "down" } })
    );
    assert_eq!(get("/healthz").await.status, 200, "no reason to restart it");

    let unknown = get("/api/v1/notifications").await;
    assert_eq!(unknown.status, 404);
    let message = unknown.body["message"].as_str().unwrap();
    assert!(message.contains("could not be found"), "{message}");
    let answer = exchange(&address, request("POST", "/metrics", "", "").as_bytes()).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn requests_are_counted_by_route_whatever_the_path() {
    let served = Served::start().await;
    let (admin, address) = shown(&served.metrics).await;
    served.source("order").await;
    for id in 0..5 {
        served
            .get(&format!("/api/v1/notifications/nobody-{id}"))
            .await;
        served.get(&format!("/nothing/{id}")).await;
        served.get(&format!("/api/v1/nothing/{id}")).await;
    }
    served.ask("DELETE", "/api/v1/notifications", "", "").await;
    served.ask("BREW", "/healthz", "", "").await;
    admin.started(Readiness::of_stages(
        Vec::new(),
        Arc::clone(&served.metrics),
    ));
    let scraped = exchange(&address, request("GET", "/metrics", "", "").as_bytes()).await;
    assert_eq!(scraped.status, 200);
    let kind = "content-type: text/plain; version=0.0.4";
    assert!(scraped.head.contains(kind), "{}", scraped.head);
    let text = served.metrics.text().unwrap();
    let counted: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("herald_http_requests_total{"))
        .collect();
    let expected = [
        ("DELETE", "/api/v1/notifications", "405", 1),
        ("GET", "/api", "404", 5),
        ("GET", "/api/v1/notifications/:param0", "404", 5),
        ("GET", "none", "404", 5),
        ("POST", "/api/v1/event-sources", "201", 1),
        ("other", "/healthz", "405", 1),
    ]
    .map(|(method, route, status, count)| {
        format!(
            "herald_http_requests_total{{method=\"{method}\",route=\"{route}\",\
             status=\"{status}\"}} {count}"
        )
    });
    assert_eq!(counted, expected);
    assert!(text.contains(
        "herald_http_request_seconds_count{method=\"GET\",route=\"/api/v1/notifications/:param0\"} 5\n"
    ));
}
