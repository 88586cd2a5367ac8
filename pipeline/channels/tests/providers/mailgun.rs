//! Mailgun.

use herald_channels::{
    Call, Provider, Secret,
    email::{
        mailgun::{Mailgun, Settings},
        message::Sender,
    },
};
use herald_schemas::words::Channel;
use serde_json::json;

use crate::{
    Answer, Case, Request, Server, accepted, basic, call, deadlines, delivery, each_is_told,
    refusal, says_whose_it_is,
};

fn mailgun(server: &Server) -> Mailgun {
    Mailgun::new(Settings {
        url: server.url().parse().unwrap(),
        domain: "mg.example.com".to_owned(),
        api_key: Secret::new("key-hunter2"),
        sender: Sender::new("Herald <herald@example.com>", "").unwrap(),
        deadlines: deadlines(),
    })
    .unwrap()
}

fn message() -> Call {
    call(delivery(Channel::Email, "ada@example.net", "Hello, Ada!"))
}

fn queued() -> Answer {
    let id = "<20260101.1@mg.example.com>";
    Answer::new(
        200,
        &json!({ "id": id, "message": "Queued. Thank you." }).to_string(),
    )
}

/// The fields of a form in parts: each with its head and its content.
fn parts(request: &Request) -> Vec<(&str, &str)> {
    let form_type = request.header("content-type").unwrap();
    let boundary = form_type
        .strip_prefix("multipart/form-data; boundary=")
        .unwrap();
    let text = request.text();
    let text = text.strip_prefix(&format!("--{boundary}\r\n")).unwrap();
    let text = text.strip_suffix(&format!("\r\n--{boundary}--\r\n"));
    text.unwrap()
        .split(&format!("\r\n--{boundary}\r\n"))
        .map(|part| part.split_once("\r\n\r\n").unwrap())
        .collect()
}

#[tokio::test]
async fn a_message_is_a_form_with_the_message_as_a_file() {
    let server = Server::answering(queued()).await;
    let reply = mailgun(&server).send(&message()).await;
    // As callbacks have it.
    assert_eq!(reply.outcome, accepted(Some("20260101.1@mg.example.com")));

    let request = server.request();
    assert_eq!(
        request.line,
        "POST /v3/mg.example.com/messages.mime HTTP/1.1"
    );
    let login = basic("api", "key-hunter2");
    assert_eq!(request.header("authorization"), Some(login.as_str()));
    says_whose_it_is(&request);
    let parts = parts(&request);
    let [to, (head, mail)] = parts.as_slice() else {
        panic!("{parts:?}");
    };
    let expected = (
        "Content-Disposition: form-data; name=\"to\"",
        "ada@example.net",
    );
    assert_eq!(*to, expected);
    assert!(head.contains("name=\"message\"; filename="), "{head}");
    let id = message().delivery.identity.id;
    for line in [
        "From: Herald <herald@example.com>",
        "To: ada@example.net",
        "Subject: Hi",
        &format!("Message-ID: <{id}@example.com>"),
        "Hello, Ada!",
    ] {
        assert!(mail.lines().any(|it| it == line), "{line} not in {mail}");
    }
}

#[tokio::test]
async fn each_error_is_told_and_may_pass_or_not() {
    let server = Server::answering(queued()).await;
    let said =
        |status, message: &str| Answer::new(status, &json!({ "message": message }).to_string());
    let permanent = "permanent";
    let cases: [Case; 9] = [
        (
            said(400, "to parameter is not a valid address"),
            permanent,
            "http_400",
            None,
        ),
        (Answer::new(401, "Forbidden"), permanent, "http_401", None),
        (said(402, "Request failed"), permanent, "http_402", None),
        (
            said(403, "Domain is not allowed to send"),
            permanent,
            "http_403",
            None,
        ),
        (
            said(404, "Domain not found: mg.example.com"),
            permanent,
            "http_404",
            None,
        ),
        (said(413, "Too large"), permanent, "http_413", None),
        (
            said(429, "Too many requests").header("Retry-After", "12"),
            "transient",
            "http_429",
            Some(12),
        ),
        (
            said(500, "Internal Server Error"),
            "transient",
            "http_500",
            None,
        ),
        (Answer::new(503, "<html>"), "transient", "http_503", None),
    ];
    each_is_told(&server, &mailgun(&server), &message(), cases).await;
}

#[tokio::test]
async fn no_key_is_in_any_error_and_what_is_no_mail_is_not_sent() {
    let server = Server::answering(queued()).await;
    let provider = mailgun(&server);
    let no_address = call(delivery(Channel::Email, "ada", "Hello"));
    let expected = ("permanent".to_owned(), "invalid_recipient".to_owned(), None);
    assert_eq!(refusal(&provider.send(&no_address).await), expected);
    assert!(server.requests().is_empty());
    drop(server);
    let reply = provider.send(&message()).await;
    assert_eq!(refusal(&reply).1, "connection_error");
    assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");
}
