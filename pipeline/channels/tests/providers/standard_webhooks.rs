//! Webhooks of users, verified by the specification's own library.

use herald_channels::{
    Call, Provider, Secret,
    guard::Guard,
    webhook::standard_webhooks::{Secrets, Settings, StandardWebhooks},
};
use herald_schemas::{records::DeliveryReady, words::Channel};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::{
    Answer, Case, Request, Server, accepted, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn webhooks(secrets: &[&str], allowed: &[&str]) -> StandardWebhooks {
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    let allowed: Vec<String> = allowed.iter().map(|text| text.to_string()).collect();
    StandardWebhooks::new(Settings {
        secrets: Secrets::new(&secrets).unwrap(),
        guard: Guard::new(&allowed).unwrap(),
        deadlines: deadlines(),
    })
    .unwrap()
}

/// Those that may call the tests' server.
fn here(secrets: &[&str]) -> StandardWebhooks {
    webhooks(secrets, &["127.0.0.1"])
}

fn to(server: &Server, content: &str) -> DeliveryReady {
    let url = format!("{}/hooks/1?a=b", server.url());
    delivery(Channel::Webhook, &url, content)
}

async fn ok() -> Server {
    Server::answering(Answer::new(204, "")).await
}

/// Whether a receiver with this secret takes the request, with this body in its place.
fn verifies(request: &Request, secret: &str, body: &[u8]) -> bool {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: HeaderMap = names
        .into_iter()
        .map(|name| {
            let value = HeaderValue::from_str(request.header(name).unwrap());
            (HeaderName::from_static(name), value.unwrap())
        })
        .collect();
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(body, &headers).is_ok()
}

#[tokio::test]
async fn a_request_says_what_and_when_and_is_signed() {
    let server = ok().await;
    let call = call(to(&server, "Hello, \"Ada\"!"));
    let reply = here(&[NEW]).send(&call).await;
    assert_eq!(reply.outcome, accepted(None));

    let request = server.request();
    assert_eq!(request.line, "POST /hooks/1?a=b HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    says_whose_it_is(&request);
    let id = call.delivery.identity.id;
    assert_eq!(request.header("webhook-id"), Some(id.to_string().as_str()));
    assert!(verifies(&request, NEW, &request.body));
    assert!(!verifies(&request, OLD, &request.body));
    assert!(!verifies(&request, NEW, b"{}"));
    let expected = json!({
        "type": "notification", "timestamp": "2023-11-14T22:13:20.000Z", "id": id,
        "data": { "subject": "Hi", "content": "Hello, \"Ada\"!" },
        "metadata": { "order": 17, "link": "app://orders/17", "from": "x" },
    });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn content_that_is_an_object_is_the_data_and_the_metadata_may_name_the_type() {
    let server = ok().await;
    let provider = here(&[NEW]);
    let object = r#"{ "order": 17, "total": 1.10, "items": ["ü"] }"#;
    let as_text = |content: &str| json!({ "subject": "Hi", "content": content });
    for (content, data) in [
        (object, serde_json::from_str(object).unwrap()),
        ("17", as_text("17")),
        ("[1]", as_text("[1]")),
        ("{\"order\"", as_text("{\"order\"")),
    ] {
        provider.send(&call(to(&server, content))).await;
        let body = server.requests().pop().unwrap().json();
        assert_eq!(body["data"], data, "{content}");
    }
    for (metadata, kind) in [
        (Some(json!({ "type": "order.created" })), "order.created"),
        (Some(json!({ "type": "order created" })), "notification"),
        (Some(json!({ "type": 17 })), "notification"),
        (Some(json!({ "type": "" })), "notification"),
        (None, "notification"),
    ] {
        let mut delivery = to(&server, object);
        delivery.message.metadata = metadata.as_ref().map(Value::to_string);
        provider.send(&call(delivery)).await;
        let request = server.requests().pop().unwrap();
        // Not a space of it is another.
        assert!(request.text().contains(object), "{}", request.text());
        let body = request.json();
        assert_eq!(body["type"], kind);
        assert_eq!(body.get("metadata"), metadata.as_ref());
        assert!(verifies(&request, NEW, &request.body));
    }
}

#[tokio::test]
async fn while_a_secret_is_exchanged_both_verify_and_every_attempt_has_the_same_id() {
    let server = ok().await;
    let provider = here(&[NEW, OLD]);
    let first = call(to(&server, "Hello"));
    let second = Call {
        attempt: 2,
        ..first.clone()
    };
    for call in [first, second] {
        provider.send(&call).await;
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        let signatures = request.header("webhook-signature").unwrap();
        assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
        assert!(verifies(request, NEW, &request.body));
        assert!(verifies(request, OLD, &request.body));
    }
    let id = |request: &Request| request.header("webhook-id").unwrap().to_owned();
    assert_eq!(id(&requests[0]), id(&requests[1]));
}

#[tokio::test]
async fn each_answer_is_told_and_may_pass_or_not() {
    let server = ok().await;
    let answer = Answer::new;
    let cases: [Case; 8] = [
        (answer(400, "no"), "permanent", "http_400", None),
        (answer(404, ""), "permanent", "http_404", None),
        (answer(410, "gone"), "permanent", "http_410", None),
        (
            answer(302, "").header("Location", server.url()),
            "permanent",
            "http_302",
            None,
        ),
        (
            answer(429, "").header("Retry-After", "60"),
            "transient",
            "http_429",
            Some(60),
        ),
        (answer(500, "oh"), "transient", "http_500", None),
        (answer(502, ""), "transient", "http_502", None),
        (answer(504, ""), "transient", "http_504", None),
    ];
    let count = cases.len();
    let call = call(to(&server, "Hello"));
    each_is_told(&server, &here(&[NEW]), &call, cases).await;
    assert_eq!(server.requests().len(), count, "no redirect is followed");
}

#[tokio::test]
async fn what_only_this_machine_reaches_is_not_called_and_not_described() {
    let server = ok().await;
    let provider = webhooks(&[NEW], &[]);
    let port = server.url().rsplit(':').next().unwrap();
    for (url, code) in [
        (server.url().to_owned(), "blocked_address"),
        (format!("http://localhost:{port}/"), "blocked_address"),
        (format!("http://2130706433:{port}/"), "blocked_address"),
        (format!("http://0x7f.1:{port}/"), "blocked_address"),
        (
            format!("http://[::ffff:127.0.0.1]:{port}/"),
            "blocked_address",
        ),
        (format!("http://0.0.0.0:{port}/"), "blocked_address"),
        (
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "blocked_address",
        ),
        (
            format!("http://me:pw@127.0.0.1:{port}/"),
            "recipient_not_allowed",
        ),
        ("ftp://example.com/".to_owned(), "recipient_not_allowed"),
        ("http://".to_owned(), "recipient_not_allowed"),
    ] {
        let call = call(delivery(Channel::Webhook, &url, "Hello"));
        let reply = provider.send(&call).await;
        let expected = ("permanent".to_owned(), code.to_owned(), None);
        assert_eq!(refusal(&reply), expected, "{url}");
        let told = format!("{reply:?}");
        assert!(!told.contains("127") && !told.contains(port), "{told}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_users_url_is_in_no_error() {
    let server = ok().await;
    let mut delivery = to(&server, "Hello");
    delivery.identity.recipient += "&token=hunter2";
    drop(server);
    let reply = here(&[NEW]).send(&call(delivery)).await;
    assert_eq!(refusal(&reply).1, "connection_error");
    assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");
}

#[test]
fn what_is_no_secret_is_refused_and_not_shown() {
    for secret in [
        "hunter2",
        "whsec_",
        "whsec_hunter2!",
        "whsec_aHVudGVyMg==",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ] {
        let secrets = [Secret::new(NEW), Secret::new(secret)];
        let error = Secrets::new(&secrets).err().unwrap();
        assert!(error.contains("24 to 64 bytes"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert!(Secrets::new(&[]).is_err());
}
