//! Vonage.

use herald_channels::{
    Call, Provider, Secret,
    sms::vonage::{Settings, Vonage},
};
use herald_schemas::words::Channel;
use serde_json::json;

use crate::{
    Answer, Case, KEY, Server, accepted, basic, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

const UUID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab";

fn vonage(server: &Server) -> Vonage {
    Vonage::new(Settings {
        url: server.url().parse().unwrap(),
        api_key: "abcd1234".to_owned(),
        api_secret: Secret::new("hunter2"),
        from: "+447700900001".to_owned(),
        deadlines: deadlines(),
    })
    .unwrap()
}

fn message(content: &str) -> Call {
    call(delivery(Channel::Sms, "+905551234567", content))
}

fn taken() -> Answer {
    Answer::new(202, &json!({ "message_uuid": UUID }).to_string())
}

#[tokio::test]
async fn a_message_is_json_with_basic_auth() {
    let server = Server::answering(taken()).await;
    let reply = vonage(&server).send(&message("Çay?")).await;
    assert_eq!(reply.outcome, accepted(Some(UUID)));

    let request = server.request();
    assert_eq!(request.line, "POST /v1/messages HTTP/1.1");
    let login = basic("abcd1234", "hunter2");
    assert_eq!(request.header("authorization"), Some(login.as_str()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let expected = json!({
        "channel": "sms", "message_type": "text", "to": "905551234567", "from": "447700900001",
        "text": "Çay?", "client_ref": KEY,
    });
    assert_eq!(request.json(), expected);
    says_whose_it_is(&request);
}

#[tokio::test]
async fn a_key_that_is_longer_than_a_reference_is_cut() {
    let server = Server::answering(taken()).await;
    let mut delivery = delivery(Channel::Sms, "+905551234567", "Hello");
    delivery.identity.idempotency_key = Some("k".repeat(128));
    vonage(&server).send(&call(delivery)).await;
    let request = server.request();
    assert_eq!(request.json()["client_ref"], "k".repeat(100));
    assert_eq!(request.header("idempotency-key").map(str::len), Some(128));
}

fn problem(status: u16, r#type: &str) -> Answer {
    let body = json!({
        "type": format!("https://developer.vonage.com/api-errors{type}"), "title": "A title",
        "detail": "A detail", "instance": "bf0ca0bf927b3b52e3cb03217e1a1ddf",
    });
    Answer::new(status, &body.to_string())
}

#[tokio::test]
async fn each_error_is_told_and_may_pass_or_not() {
    let server = Server::answering(taken()).await;
    let permanent = "permanent";
    let cases: [Case; 13] = [
        (
            problem(401, "#unauthorized"),
            permanent,
            "vonage_unauthorized",
            None,
        ),
        (
            problem(402, "#low-balance"),
            permanent,
            "vonage_low_balance",
            None,
        ),
        (
            problem(403, "#forbidden"),
            permanent,
            "vonage_forbidden",
            None,
        ),
        (
            problem(422, "/messages#1020"),
            permanent,
            "vonage_1020",
            None,
        ),
        (
            problem(422, "/messages#1120"),
            permanent,
            "vonage_1120",
            None,
        ),
        (
            problem(422, "/messages#1430"),
            permanent,
            "vonage_1430",
            None,
        ),
        (
            problem(429, "#throttled").header("Retry-After", "1"),
            "transient",
            "vonage_throttled",
            Some(1),
        ),
        (
            problem(422, "/messages#1000"),
            "transient",
            "vonage_1000",
            None,
        ),
        (
            problem(422, "/messages#1030"),
            "transient",
            "vonage_1030",
            None,
        ),
        (
            problem(422, "/messages#1100"),
            "transient",
            "vonage_1100",
            None,
        ),
        (
            problem(500, "#internal-error"),
            "transient",
            "vonage_internal_error",
            None,
        ),
        // A type that ends in no code.
        (problem(422, ""), permanent, "http_422", None),
        (
            Answer::new(502, "bad gateway"),
            "transient",
            "http_502",
            None,
        ),
    ];
    each_is_told(&server, &vonage(&server), &message("Hello"), cases).await;
}

#[tokio::test]
async fn what_is_longer_than_vonage_takes_is_not_sent() {
    let server = Server::answering(taken()).await;
    let reply = vonage(&server).send(&message(&"x".repeat(1_001))).await;
    let expected = ("permanent".to_owned(), "content_too_long".to_owned(), None);
    assert_eq!(refusal(&reply), expected);
    let fits = vonage(&server).send(&message(&"x".repeat(1_000))).await;
    assert_eq!(fits.outcome, accepted(Some(UUID)));
    assert_eq!(server.requests().len(), 1);
}
