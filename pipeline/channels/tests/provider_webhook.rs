//! The provider webhook against a server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use herald_channels::{
    Call, CallOutcome, Provider, Reply,
    http::Deadlines,
    provider_webhook::{ProviderWebhook, Settings},
};
use herald_schemas::{
    ids::NotificationId,
    records::{DeliveryReady, Identity, Message},
    words::{Channel, Priority},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// What the server does once it has read a request.
enum Then {
    Answer(String),
    Hang,
    Close,
}

fn answer(status: &str, headers: &str, body: &str) -> Then {
    let length = body.len();
    Then::Answer(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    ))
}

/// Serves one request; resolves to its head, in lower case, and its body.
async fn serve(then: Then) -> (String, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        let (head, body) = loop {
            let mut chunk = [0; 4_096];
            let read = socket.read(&mut chunk).await.unwrap();
            bytes.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(json) = serde_json::from_str(body)
            {
                break (head.to_ascii_lowercase(), json);
            }
        };
        match then {
            Then::Answer(text) => socket.write_all(text.as_bytes()).await.unwrap(),
            Then::Hang => tokio::time::sleep(Duration::from_secs(30)).await,
            Then::Close => drop(socket),
        }
        (head, body)
    });
    (url, served)
}

fn provider(url: &str) -> ProviderWebhook {
    ProviderWebhook::new(Settings {
        name: "primary".to_owned(),
        url: url.parse().unwrap(),
        idempotency_header: "X-Idempotency-Key".parse().unwrap(),
        deadlines: Deadlines {
            connect: Duration::from_secs(1),
            total: Duration::from_millis(500),
        },
    })
    .unwrap()
}

fn call(idempotency_key: Option<&str>) -> Call {
    let delivery = DeliveryReady {
        identity: Identity {
            id: NotificationId::derived(1_700_000_000_000, &[b"call"]),
            recipient: "ada@example.com".to_owned(),
            channel: Channel::Email,
            priority: Priority::High,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: idempotency_key.map(str::to_owned),
            correlation_id: Some("demo-123".to_owned()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            created_at: 1_700_000_000_000,
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            source: None,
        },
        message: Message {
            content: "Hello".to_owned(),
            subject: Some("Hi".to_owned()),
            html: None,
            metadata: Some(r#"{"a":1}"#.to_owned()),
        },
        message_known: true,
        attempts: 1,
        due_at: None,
        last_error: None,
    };
    Call {
        delivery: Arc::new(delivery),
        attempt: 2,
    }
}

async fn reply_to(then: Then) -> Reply {
    let (url, _served) = serve(then).await;
    provider(&url).send(&call(None)).await
}

fn refusal(reply: Reply) -> (String, String, Option<Duration>) {
    match reply.outcome {
        CallOutcome::Refused {
            failure,
            retry_after,
        } => (failure.kind, failure.code, retry_after),
        CallOutcome::Accepted { .. } => panic!("accepted"),
    }
}

#[tokio::test]
async fn the_request_is_as_the_protocol_says() {
    let (url, served) = serve(answer("202 Accepted", "", r#"{"messageId":"m-1"}"#)).await;
    let reply = provider(&url).send(&call(Some("order-17"))).await;
    let accepted = CallOutcome::Accepted {
        provider_message_id: Some("m-1".to_owned()),
    };
    assert_eq!(reply.outcome, accepted);
    assert_eq!(reply.response.as_deref(), Some(r#"{"messageId":"m-1"}"#));

    let (head, body) = served.await.unwrap();
    for line in [
        "post /hook http/1.1",
        "content-type: application/json",
        "x-idempotency-key: order-17",
        "x-correlation-id: demo-123",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert!(
            head.lines().any(|have| have == line),
            "{line} not in {head}"
        );
    }
    let id = NotificationId::derived(1_700_000_000_000, &[b"call"]);
    let expected = json!({
        "to": "ada@example.com", "channel": "email", "content": "Hello",
        "idempotency_key": "order-17",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "id": id, "subject": "Hi", "html": null, "priority": "high", "attempt": 2,
        "correlation_id": "demo-123", "metadata": {"a": 1},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn without_a_key_of_the_clients_the_notifications_id_is_the_key() {
    let (url, served) = serve(answer("200 OK", "", "")).await;
    provider(&url).send(&call(None)).await;
    let (_, body) = served.await.unwrap();
    assert_eq!(body["idempotency_key"], body["id"]);
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_sent_all_the_same() {
    let reply = reply_to(answer("200 OK", "", "thanks")).await;
    assert_eq!(
        reply.outcome,
        CallOutcome::Accepted {
            provider_message_id: None
        }
    );
}

#[tokio::test]
async fn a_numeric_message_id_is_kept_as_text() {
    let reply = reply_to(answer("200 OK", "", r#"{"messageId": 17}"#)).await;
    let accepted = CallOutcome::Accepted {
        provider_message_id: Some("17".to_owned()),
    };
    assert_eq!(reply.outcome, accepted);
}

#[tokio::test]
async fn a_2xx_whose_body_breaks_off_is_sent() {
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"mess".to_owned();
    let reply = reply_to(Then::Answer(broken)).await;
    assert_eq!(
        reply.outcome,
        CallOutcome::Accepted {
            provider_message_id: None
        }
    );
}

#[tokio::test]
async fn refusals_say_whether_they_may_pass_and_when() {
    let reply = reply_to(answer(
        "429 Too Many Requests",
        "retry-after: 7\r\n",
        "slow down",
    ))
    .await;
    assert_eq!(reply.response.as_deref(), Some("slow down"));
    let wait = Some(Duration::from_secs(7));
    assert_eq!(
        refusal(reply),
        ("transient".to_owned(), "http_429".to_owned(), wait)
    );

    let reply = reply_to(answer("404 Not Found", "", "")).await;
    assert_eq!(
        refusal(reply),
        ("permanent".to_owned(), "http_404".to_owned(), None)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let reply = reply_to(answer("302 Found", "location: http://127.0.0.1:1/\r\n", "")).await;
    assert_eq!(
        refusal(reply),
        ("permanent".to_owned(), "http_302".to_owned(), None)
    );
}

#[tokio::test]
async fn silence_a_reset_and_a_closed_port_are_connection_errors() {
    for then in [Then::Hang, Then::Close] {
        let (kind, code, _) = refusal(reply_to(then).await);
        assert_eq!(
            (kind.as_str(), code.as_str()),
            ("transient", "connection_error")
        );
    }
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let (kind, code, _) = refusal(provider(&closed).send(&call(None)).await);
    assert_eq!(
        (kind.as_str(), code.as_str()),
        ("transient", "connection_error")
    );
}

#[tokio::test]
async fn a_huge_answer_is_read_only_as_far_as_it_is_kept() {
    let body = "x".repeat(1_000_000);
    let reply = reply_to(answer("500 Internal Server Error", "", &body)).await;
    assert_eq!(reply.response.map(|text| text.len()), Some(2_048));
}
