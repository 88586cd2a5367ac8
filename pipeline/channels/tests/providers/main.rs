//! Each provider against a server of the tests' own that speaks its protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod fcm;
mod mail_server;
mod mailgun;
mod server;
mod ses;
mod slack;
mod smtp;
mod standard_webhooks;
mod twilio;
mod vonage;
mod web_push;

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use herald_channels::{Call, CallOutcome, Provider, Reply, http::Deadlines};
use herald_schemas::{
    ids::NotificationId,
    records::{DeliveryReady, Identity, Message},
    words::{Channel, Priority},
};
use server::{Answer, Request, Server};

const KEY: &str = "order-17";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn deadlines() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(2),
        total: Duration::from_secs(5),
    }
}

fn delivery(channel: Channel, recipient: &str, content: &str) -> DeliveryReady {
    DeliveryReady {
        identity: Identity {
            id: NotificationId::derived(1_700_000_000_000, &[b"call"]),
            recipient: recipient.to_owned(),
            channel,
            priority: Priority::Normal,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: Some(KEY.to_owned()),
            correlation_id: Some("demo-123".to_owned()),
            traceparent: Some(TRACEPARENT.to_owned()),
            created_at: 1_700_000_000_000,
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            source: None,
        },
        message: Message {
            content: content.to_owned(),
            subject: Some("Hi".to_owned()),
            html: None,
            metadata: Some(r#"{"order":17,"link":"app://orders/17","from":"x"}"#.to_owned()),
        },
        message_known: true,
        attempts: 0,
        due_at: None,
        last_error: None,
    }
}

fn call(delivery: DeliveryReady) -> Call {
    Call {
        delivery: Arc::new(delivery),
        attempt: 1,
    }
}

/// Kind, code and what was asked to wait.
type Refusal = (String, String, Option<u64>);

fn refusal(reply: &Reply) -> Refusal {
    match &reply.outcome {
        CallOutcome::Refused {
            failure,
            retry_after,
        } => {
            let wait = retry_after.map(|wait| wait.as_secs());
            (failure.kind.clone(), failure.code.clone(), wait)
        }
        accepted => panic!("{accepted:?}"),
    }
}

fn accepted(id: Option<&str>) -> CallOutcome {
    CallOutcome::Accepted {
        provider_message_id: id.map(str::to_owned),
    }
}

/// What a provider answers, and what is to become of it: kind, code and seconds to wait.
type Case = (Answer, &'static str, &'static str, Option<u64>);

/// Has each answer given to a call of its own.
async fn each_is_told(
    server: &Server,
    provider: &dyn Provider,
    call: &Call,
    cases: impl IntoIterator<Item = Case>,
) {
    for (answer, kind, code, wait) in cases {
        server.answers(answer.clone());
        let reply = provider.send(call).await;
        let expected = (kind.to_owned(), code.to_owned(), wait);
        assert_eq!(refusal(&reply), expected, "{answer:?}");
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(reply.response.unwrap_or_default(), text);
    }
}

/// What every request says of its notification.
fn says_whose_it_is(request: &Request) {
    assert_eq!(request.header("idempotency-key"), Some(KEY));
    assert_eq!(request.header("x-correlation-id"), Some("demo-123"));
    assert_eq!(request.header("traceparent"), Some(TRACEPARENT));
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
