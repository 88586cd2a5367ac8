//! What is accepted, what of it is answered and written, and what is open to anybody.

use std::time::Duration;

use herald_broker::Outgoing;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    NOTIFICATIONS,
    engines::Watched,
    notification,
    served::{Served, request},
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A header of a record, as text.
fn header<'a>(record: &'a Outgoing, name: &str) -> &'a str {
    let found = record.headers.iter().find(|header| &*header.name == name);
    std::str::from_utf8(&found.unwrap().value).unwrap()
}

#[tokio::test]
async fn a_request_carries_its_trace_on() {
    let api = Served::start().await;
    api.source("order_created").await;
    let notifications = json!({ "batch": { "metadata": { "source": "api" } },
        "notifications": [notification(), notification()] });
    let event = json!({ "event": "order_created", "payload": { "id": 7 } });
    let headers = format!("x-correlation-id: demo-123\r\ntraceparent: {TRACE}\r\n");
    let mut answers = Vec::new();
    for (path, body, status) in [
        (NOTIFICATIONS, notifications, 201),
        ("/api/events", event.clone(), 202),
        ("/api/v1/events", event.clone(), 202),
    ] {
        let answer = api.ask("POST", path, &headers, &body.to_string()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.head.contains("x-correlation-id: demo-123"));
        assert!(answer.head.contains(&format!("traceparent: {TRACE}")));
        answers.push(answer);
    }
    for record in api.engines.producer.batches().iter().flatten() {
        assert_eq!(header(record, "traceparent"), TRACE);
        assert_eq!(header(record, "correlation-id"), "demo-123");
    }

    let batch = &answers[0].body;
    assert_eq!(batch["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(batch["metadata"]["source"], "api");
    assert_eq!(batch["metadata"]["span_id"], "00f067aa0ba902b7");
    assert_eq!(batch["created"], 2);
    let made = &batch["notifications"][0];
    assert_eq!(
        (&made["status"], &made["content"]),
        (&json!("pending"), &json!("Hello"))
    );

    let one = json!({ "notifications": [notification()] });
    let answer = api.send("POST", NOTIFICATIONS, &one).await;
    for field in ["batch_id", "trace_id", "span_id", "metadata"] {
        assert!(answer.body[field].is_null(), "{field}");
    }
    let new = api.send("POST", "/api/events", &event).await;
    assert!(new.head.contains("x-correlation-id: "));
    assert!(new.head.contains("traceparent: 00-"));
}

/// A client that goes away takes the request's future with it, and so does the server's stop here.
#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_half_done() {
    let api = Served::start().await;
    let producer = &api.engines.producer;
    let held_up = producer.open.write().await;
    let body = json!({ "notifications": [notification()] }).to_string();
    let mut client = TcpStream::connect(&api.address).await.unwrap();
    let request = request("POST", NOTIFICATIONS, "", &body);
    client.write_all(request.as_bytes()).await.unwrap();
    written(producer, 1).await;
    drop(client);
    api.stop.send(()).unwrap();
    let ended = timeout(Duration::from_secs(10), api.server).await;
    ended.unwrap().unwrap().unwrap();

    drop(held_up);
    let batches = written(producer, 2).await;
    assert_eq!(&*batches[0][0].topic, "herald.notifications.normal");
    assert_eq!(&*batches[1][0].topic, "herald.status");
}

/// What was handed over once it is so many batches.
async fn written(producer: &Watched, batches: usize) -> Vec<Vec<Outgoing>> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = producer.batches();
        if seen.len() >= batches {
            return seen;
        }
        assert!(
            Instant::now() < until,
            "{} of {batches} batches",
            seen.len()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn probes_and_the_document_need_no_key() {
    let api = Served::start().await;
    for path in ["/healthz", "/readyz", "/openapi.json", "/swagger"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = api.raw(request.as_bytes()).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

/// What Swagger's "Try it" asks for: the server's URL, and then the path.
#[tokio::test]
async fn what_the_document_names_is_served() {
    let api = Served::start().await;
    let document = api.get("/openapi.json").await.body;
    let server = document["servers"][0]["url"].as_str().unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = format!("{server}{}", path.replace("{id}", "none"));
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let answer = api.ask(&method, &path, "", "").await;
            let message = answer.body["message"].as_str().unwrap_or_default();
            let served = answer.status != 405 && !message.contains("route");
            assert!(served, "{method} {path}: {message}");
        }
    }
}

#[tokio::test]
async fn it_stops_though_a_client_keeps_its_connection() {
    let api = Served::start().await;
    let mut idle = TcpStream::connect(&api.address).await.unwrap();
    let ping = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";
    idle.write_all(ping).await.unwrap();
    assert!(idle.read(&mut [0; 1_024]).await.unwrap() > 0);
    api.stop.send(()).unwrap();
    let ended = timeout(Duration::from_secs(4), api.server).await;
    ended.unwrap().unwrap().unwrap();
}

/// What Swagger's "Try it" sends before anybody has changed it.
#[tokio::test]
async fn the_documents_own_example_is_accepted() {
    let api = Served::start().await;
    let document: serde_json::Value = serde_json::from_str(&herald_api::openapi()).unwrap();
    let example = &document["components"]["schemas"]["NewNotifications"]["example"];
    assert!(example["notifications"].is_array(), "{example}");
    let answer = api.send("POST", NOTIFICATIONS, example).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}
