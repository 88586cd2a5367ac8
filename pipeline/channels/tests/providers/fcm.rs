//! Firebase Cloud Messaging, with Google's tokens.

use std::{
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use herald_channels::{
    Call, Provider, Secret,
    push::{
        fcm::{Fcm, Settings},
        service_account::ServiceAccount,
    },
};
use herald_schemas::words::{Channel, Priority};
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Verifier,
};
use serde_json::{Value, json};

use crate::{
    Answer, Case, Request, Server, accepted, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

const NAME: &str = "projects/herald-test/messages/0:1500415314455276%31bd1c9631bd1c96";

fn key() -> &'static PKey<Private> {
    static KEY: OnceLock<PKey<Private>> = OnceLock::new();
    KEY.get_or_init(|| PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap())
}

fn account(server: &Server) -> Secret {
    let pem = String::from_utf8(key().private_key_to_pem_pkcs8().unwrap()).unwrap();
    let json = json!({
        "type": "service_account", "project_id": "herald-test", "private_key_id": "key-1",
        "private_key": pem, "client_email": "herald@herald-test.iam.gserviceaccount.com",
        "client_id": "1", "token_uri": format!("{}/token", server.url()),
    });
    Secret::new(json.to_string())
}

fn fcm(server: &Server) -> Fcm {
    Fcm::new(Settings {
        url: server.url().parse().unwrap(),
        account: ServiceAccount::from_json(&account(server)).unwrap(),
        deadlines: deadlines(),
    })
    .unwrap()
}

fn message() -> Call {
    call(delivery(
        Channel::Push,
        "dXyz:APA91b-token",
        "Your order is here",
    ))
}

fn is_for_token(request: &Request) -> bool {
    request.line.starts_with("POST /token ")
}

fn granted(number: usize, expires_in: u32) -> Answer {
    let body = json!({
        "access_token": format!("token-{number}"), "expires_in": expires_in,
        "token_type": "Bearer",
    });
    Answer::new(200, &body.to_string())
}

fn taken() -> Answer {
    Answer::new(200, &json!({ "name": NAME }).to_string())
}

/// Grants numbered tokens, and answers messages by the number of the token that they come with.
async fn google(
    expires_in: u32,
    mut of_message: impl FnMut(usize) -> Answer + Send + 'static,
) -> Server {
    let mut tokens = 0;
    Server::scripted(move |request| {
        if is_for_token(request) {
            tokens += 1;
            return granted(tokens, expires_in);
        }
        let token = request.header("authorization").unwrap();
        of_message(
            token
                .strip_prefix("Bearer token-")
                .unwrap()
                .parse()
                .unwrap(),
        )
    })
    .await
}

fn token_requests(server: &Server) -> usize {
    server
        .requests()
        .iter()
        .filter(|it| is_for_token(it))
        .count()
}

fn unauthenticated() -> Answer {
    let body = json!({ "error": {
        "code": 401, "message": "Request had invalid authentication credentials.",
        "status": "UNAUTHENTICATED",
    }});
    Answer::new(401, &body.to_string())
}

#[tokio::test]
async fn a_message_is_json_under_the_project_with_a_token() {
    let server = google(3_600, |_| taken()).await;
    let reply = fcm(&server).send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some(NAME)));

    let request = server.requests().pop().unwrap();
    let line = "POST /v1/projects/herald-test/messages:send HTTP/1.1";
    assert_eq!(request.line, line);
    assert_eq!(request.header("authorization"), Some("Bearer token-1"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    says_whose_it_is(&request);
    let json = request.json();
    let tag = json["message"]["android"]["notification"]["tag"].clone();
    assert_eq!(tag.as_str().map(str::len), Some(32));
    let expected = json!({ "message": {
        "token": "dXyz:APA91b-token",
        "notification": { "title": "Hi", "body": "Your order is here" },
        // `from` is a name of FCM's own.
        "data": { "id": message().delivery.identity.id, "order": "17", "link": "app://orders/17" },
        "android": { "notification": { "tag": tag } },
        "apns": { "headers": { "apns-collapse-id": tag } },
        "webpush": { "headers": { "Topic": tag } },
    }});
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_message_that_is_of_low_priority_and_expires_says_so() {
    let server = google(3_600, |_| taken()).await;
    let mut delivery = delivery(Channel::Push, "token", "x");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    delivery.identity.priority = Priority::Low;
    delivery.identity.expires_at = Some((now + Duration::from_secs(600)).as_millis() as i64);
    fcm(&server).send(&call(delivery)).await;
    let message = server.requests().pop().unwrap().json()["message"].clone();
    assert_eq!(message["android"]["priority"], "NORMAL");
    let ttl = message["android"]["ttl"].as_str().unwrap();
    let ttl: u64 = ttl.strip_suffix('s').unwrap().parse().unwrap();
    assert!((590..=600).contains(&ttl), "{ttl}");
    let apns = &message["apns"]["headers"];
    assert_eq!(apns["apns-priority"], "5");
    let until: u64 = apns["apns-expiration"].as_str().unwrap().parse().unwrap();
    assert!(until.abs_diff(now.as_secs() + 600) <= 10, "{until}");
    assert_eq!(message["webpush"]["headers"]["Urgency"], "low");
}

#[tokio::test]
async fn a_token_is_asked_for_with_an_assertion_that_the_accounts_key_has_signed() {
    let server = google(3_600, |_| taken()).await;
    fcm(&server).send(&message()).await;
    let request = server.requests().remove(0);
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(request.header("content-type"), form);
    let assertion = request
        .text()
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = PKey::public_key_from_pem(&key().public_key_to_pem().unwrap()).unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
    assert!(
        verifier
            .verify_oneshot(&signature, signed.as_bytes())
            .unwrap()
    );

    let part = |text: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let (header, claims) = signed.split_once('.').unwrap();
    let expected = json!({ "alg": "RS256", "typ": "JWT", "kid": "key-1" });
    assert_eq!(part(header), expected);
    let claims = part(claims);
    let issued = claims["iat"].as_u64().unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now.abs_diff(issued) <= 10);
    let expected = json!({
        "iss": "herald@herald-test.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": format!("{}/token", server.url()), "iat": issued, "exp": issued + 3_600,
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn one_token_serves_all_who_want_one_at_once_and_later() {
    let server = google(3_600, |_| taken()).await;
    let fcm = Arc::new(fcm(&server));
    let sends: Vec<_> = (0..20)
        .map(|_| {
            let fcm = Arc::clone(&fcm);
            tokio::spawn(async move { fcm.send(&message()).await.outcome })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.unwrap(), accepted(Some(NAME)));
    }
    fcm.send(&message()).await;
    assert_eq!(token_requests(&server), 1);
    assert_eq!(server.requests().len(), 22);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_while_the_old_one_is_used() {
    let newest = Arc::new(AtomicUsize::new(0));
    let used = Arc::clone(&newest);
    let server = google(2, move |token| {
        used.fetch_max(token, Ordering::Relaxed);
        taken()
    })
    .await;
    let fcm = fcm(&server);
    let deadline = Instant::now() + Duration::from_secs(20);
    while newest.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < deadline, "no new token came");
        assert_eq!(fcm.send(&message()).await.outcome, accepted(Some(NAME)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The next may be under way.
    assert!((3..=4).contains(&token_requests(&server)));
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_and_the_message_sent() {
    let server = google(3_600, |token| match token {
        1 => unauthenticated(),
        _ => taken(),
    })
    .await;
    let fcm = fcm(&server);
    assert_eq!(fcm.send(&message()).await.outcome, accepted(Some(NAME)));
    assert_eq!(fcm.send(&message()).await.outcome, accepted(Some(NAME)));
    assert_eq!(token_requests(&server), 2);
}

#[tokio::test]
async fn where_every_token_is_refused_no_more_of_them_are_asked_for() {
    let server = google(3_600, |_| unauthenticated()).await;
    let fcm = fcm(&server);
    for _ in 0..5 {
        let code = "fcm_unauthenticated".to_owned();
        let expected = ("permanent".to_owned(), code, None);
        assert_eq!(refusal(&fcm.send(&message()).await), expected);
    }
    assert_eq!(token_requests(&server), 2);
    // Two messages of the first call, one of each that followed.
    assert_eq!(server.requests().len(), 2 + 6);
}

#[tokio::test]
async fn a_call_that_gives_up_does_not_take_the_request_for_a_token_along() {
    let server = Server::scripted(|request| match is_for_token(request) {
        true => granted(1, 3_600).after(Duration::from_millis(300)),
        false => taken(),
    })
    .await;
    let fcm = fcm(&server);
    let message = message();
    {
        let mut send = fcm.send(&message);
        // Polled once, it has asked for a token; then it is dropped.
        poll_fn(|context| {
            assert!(send.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    assert_eq!(fcm.send(&message).await.outcome, accepted(Some(NAME)));
    assert_eq!(token_requests(&server), 1);
}

#[tokio::test]
async fn where_no_token_is_to_be_had_that_is_told_and_may_pass_or_not() {
    let denied = |status, error: &str| {
        let body = json!({ "error": error, "error_description": "Invalid JWT Signature." });
        Answer::new(status, &body.to_string())
    };
    let server = Server::answering(Answer::new(500, "")).await;
    let fcm = fcm(&server);
    let cases: [Case; 4] = [
        (
            denied(400, "invalid_grant"),
            "permanent",
            "fcm_token_invalid_grant",
            None,
        ),
        (
            denied(401, "invalid_client"),
            "permanent",
            "fcm_token_invalid_client",
            None,
        ),
        (
            Answer::new(503, "busy").header("Retry-After", "5"),
            "transient",
            "http_503",
            Some(5),
        ),
        (Answer::new(404, ""), "permanent", "http_404", None),
    ];
    each_is_told(&server, &fcm, &message(), cases).await;

    server.answers(Answer::new(200, r#"{"access_token":"hunter2"}"#));
    let reply = fcm.send(&message()).await;
    let code = "fcm_token_unreadable".to_owned();
    assert_eq!(refusal(&reply), ("transient".to_owned(), code, None));
    assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");
}

/// FCM's own code in the details, or none.
fn fault(status: u16, word: &str, code: Option<&str>) -> Answer {
    let details: Vec<Value> = code
        .map(|code| {
            json!({
                "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code,
            })
        })
        .into_iter()
        .collect();
    let violation = json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": "message.token", "description": "Invalid" }],
    });
    let details = [vec![violation], details].concat();
    let error =
        json!({ "code": status, "message": "About it", "status": word, "details": details });
    Answer::new(status, &json!({ "error": error }).to_string())
}

#[tokio::test]
async fn each_error_is_told_and_may_pass_or_not() {
    let server = google(3_600, |_| taken()).await;
    let fcm = fcm(&server);
    fcm.send(&message()).await;
    let permanent = "permanent";
    let invalid = "INVALID_ARGUMENT";
    let quota = || fault(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"));
    let cases: [Case; 12] = [
        (
            fault(404, "NOT_FOUND", Some("UNREGISTERED")),
            permanent,
            "fcm_unregistered",
            None,
        ),
        (
            fault(400, invalid, Some(invalid)),
            permanent,
            "fcm_invalid_argument",
            None,
        ),
        (
            fault(400, invalid, None),
            permanent,
            "fcm_invalid_argument",
            None,
        ),
        (
            fault(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH")),
            permanent,
            "fcm_sender_id_mismatch",
            None,
        ),
        (
            fault(401, "UNAUTHENTICATED", Some("THIRD_PARTY_AUTH_ERROR")),
            permanent,
            "fcm_third_party_auth_error",
            None,
        ),
        (quota(), "transient", "fcm_quota_exceeded", Some(60)),
        (
            quota().header("Retry-After", "90"),
            "transient",
            "fcm_quota_exceeded",
            Some(90),
        ),
        (
            fault(503, "UNAVAILABLE", Some("UNAVAILABLE")).header("Retry-After", "12"),
            "transient",
            "fcm_unavailable",
            Some(12),
        ),
        (
            fault(503, "UNAVAILABLE", None),
            "transient",
            "fcm_unavailable",
            None,
        ),
        (
            fault(500, "INTERNAL", Some("INTERNAL")),
            "transient",
            "fcm_internal",
            None,
        ),
        (
            Answer::new(502, "<!DOCTYPE html>"),
            "transient",
            "http_502",
            None,
        ),
        (Answer::new(403, ""), permanent, "http_403", None),
    ];
    each_is_told(&server, &fcm, &message(), cases).await;
    assert_eq!(token_requests(&server), 1);
}

#[tokio::test]
async fn a_web_push_subscription_is_refused_without_a_call() {
    let server = google(3_600, |_| taken()).await;
    let subscription = r#"{"endpoint":"https://x/","keys":{"p256dh":"x","auth":"y"}}"#;
    let call = call(delivery(Channel::Push, subscription, "x"));
    let code = "recipient_not_supported".to_owned();
    let expected = ("permanent".to_owned(), code, None);
    assert_eq!(refusal(&fcm(&server).send(&call).await), expected);
    assert!(server.requests().is_empty());
}

#[test]
fn an_account_that_is_none_is_told_without_a_word_of_it() {
    for json in [
        "hunter2",
        r#"{"project_id":"hunter2"}"#,
        r#"{"project_id":"p","client_email":"e","private_key":"hunter2","token_uri":"https://x/"}"#,
    ] {
        let wrong = ServiceAccount::from_json(&Secret::new(json)).err().unwrap();
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }
}
