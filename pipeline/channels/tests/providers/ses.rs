//! Amazon SES. Its signatures are computed a second time here, from the specification.

use base64::{Engine, engine::general_purpose::STANDARD};
use herald_channels::{
    Call, Provider, Secret,
    email::{
        message::Sender,
        ses::{Ses, Settings},
    },
};
use herald_schemas::words::Channel;
use openssl::{hash::MessageDigest, pkey::PKey, sha::sha256, sign::Signer};
use serde_json::json;

use crate::{
    Answer, Case, Request, Server, accepted, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+hunter2";
const REGION: &str = "eu-central-1";

fn settings(server: &Server) -> Settings {
    Settings {
        url: server.url().parse().unwrap(),
        region: REGION.to_owned(),
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: Secret::new(SECRET),
        session_token: Secret::default(),
        configuration_set: String::new(),
        sender: Sender::new("Herald <herald@example.com>", "").unwrap(),
        deadlines: deadlines(),
    }
}

fn message() -> Call {
    call(delivery(Channel::Email, "ada@example.net", "Hello, Ada!"))
}

fn sent() -> Answer {
    Answer::new(200, r#"{"MessageId":"010701-2b7d-000000"}"#)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    signer.sign_oneshot_to_vec(text.as_bytes()).unwrap()
}

/// The authorization that a request is to have, by the headers that it says it signed.
fn authorization(request: &Request) -> String {
    let given = request.header("authorization").unwrap();
    let signed = given.split("SignedHeaders=").nth(1).unwrap();
    let signed = signed.split(',').next().unwrap();
    let headers: String = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", request.header(name).unwrap()))
        .collect();
    let words: Vec<&str> = request.line.split(' ').collect();
    let [method, path, _] = words.as_slice() else {
        panic!("{words:?}");
    };
    let body = hex(&sha256(&request.body));
    let canonical = format!("{method}\n{path}\n\n{headers}\n{signed}\n{body}");

    let time = request.header("x-amz-date").unwrap();
    let day = &time[..8];
    let scope = format!("{day}/{REGION}/ses/aws4_request");
    let hash = hex(&sha256(canonical.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
    let key = hmac(format!("AWS4{SECRET}").as_bytes(), day);
    let key = hmac(&hmac(&hmac(&key, REGION), "ses"), "aws4_request");
    let signature = hex(&hmac(&key, &to_sign));
    format!(
        "AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={signed}, \
         Signature={signature}"
    )
}

#[tokio::test]
async fn a_message_is_sent_raw_and_signed() {
    let server = Server::answering(sent()).await;
    let reply = Ses::new(settings(&server)).unwrap().send(&message()).await;
    assert_eq!(reply.outcome, accepted(Some("010701-2b7d-000000")));

    let request = server.request();
    assert_eq!(request.line, "POST /v2/email/outbound-emails HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let expected = authorization(&request);
    assert_eq!(request.header("authorization"), Some(expected.as_str()));
    for header in ["host", "content-type", "x-amz-date"] {
        assert!(expected.contains(header), "{header} not in {expected}");
    }
    says_whose_it_is(&request);
    let mut body = request.json();
    let mail = body["Content"]["Raw"]["Data"].take();
    let expected = json!({
        "Destination": { "ToAddresses": ["ada@example.net"] },
        "Content": { "Raw": { "Data": null } },
    });
    assert_eq!(body, expected);
    let mail = STANDARD.decode(mail.as_str().unwrap()).unwrap();
    let mail = String::from_utf8(mail).unwrap();
    for line in [
        "From: Herald <herald@example.com>",
        "To: ada@example.net",
        "Hello, Ada!",
    ] {
        assert!(mail.lines().any(|it| it == line), "{line} not in {mail}");
    }
}

#[tokio::test]
async fn a_key_for_a_time_and_a_configuration_set_are_told() {
    let server = Server::answering(sent()).await;
    let provider = Ses::new(Settings {
        session_token: Secret::new("token-1"),
        configuration_set: "news".to_owned(),
        ..settings(&server)
    });
    provider.unwrap().send(&message()).await;
    let request = server.request();
    assert_eq!(request.header("x-amz-security-token"), Some("token-1"));
    let expected = authorization(&request);
    assert_eq!(request.header("authorization"), Some(expected.as_str()));
    assert!(expected.contains("x-amz-security-token"), "{expected}");
    assert_eq!(request.json()["ConfigurationSetName"], "news");
}

#[tokio::test]
async fn each_error_is_told_and_may_pass_or_not() {
    let server = Server::answering(sent()).await;
    let said = |status, kind: &str| {
        let body = json!({ "message": "It is so." });
        Answer::new(status, &body.to_string()).header("x-amzn-ErrorType", kind)
    };
    let permanent = "permanent";
    let cases: [Case; 14] = [
        (
            said(400, "MessageRejected"),
            permanent,
            "ses_message_rejected",
            None,
        ),
        (
            said(400, "BadRequestException"),
            permanent,
            "ses_bad_request",
            None,
        ),
        (
            said(400, "MailFromDomainNotVerifiedException"),
            permanent,
            "ses_mail_from_domain_not_verified",
            None,
        ),
        (
            said(403, "AccountSuspendedException"),
            permanent,
            "ses_account_suspended",
            None,
        ),
        (
            said(404, "NotFoundException:http://internal.amazon.com/"),
            permanent,
            "ses_not_found",
            None,
        ),
        (
            said(403, "InvalidSignatureException"),
            permanent,
            "ses_invalid_signature",
            None,
        ),
        (
            said(403, "ExpiredTokenException"),
            permanent,
            "ses_expired_token",
            None,
        ),
        (
            said(400, "SendingPausedException"),
            "transient",
            "ses_sending_paused",
            None,
        ),
        (
            said(400, "LimitExceededException"),
            "transient",
            "ses_limit_exceeded",
            None,
        ),
        (
            said(429, "TooManyRequestsException").header("Retry-After", "3"),
            "transient",
            "ses_too_many_requests",
            Some(3),
        ),
        (
            said(400, "ThrottlingException"),
            "transient",
            "ses_throttling",
            None,
        ),
        (
            Answer::new(
                400,
                r#"{"__type":"com.amazon#ThrottlingException","Message":"x"}"#,
            ),
            "transient",
            "ses_throttling",
            None,
        ),
        (
            said(500, "InternalFailure"),
            "transient",
            "ses_internal_failure",
            None,
        ),
        (Answer::new(502, "<html>"), "transient", "http_502", None),
    ];
    let provider = Ses::new(settings(&server)).unwrap();
    each_is_told(&server, &provider, &message(), cases).await;
}

#[tokio::test]
async fn no_secret_is_in_any_error() {
    let server = Server::answering(sent()).await;
    let settings = settings(&server);
    assert!(!format!("{settings:?}").contains("hunter2"));
    let provider = Ses::new(settings).unwrap();
    drop(server);
    let reply = provider.send(&message()).await;
    assert_eq!(refusal(&reply).1, "connection_error");
    assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");
}
