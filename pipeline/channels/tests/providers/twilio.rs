//! Twilio.

use herald_channels::{
    Call, Provider, Secret,
    sms::twilio::{Login, Sender, Settings, Twilio},
};
use herald_schemas::words::Channel;
use serde_json::json;

use crate::{
    Answer, Case, Server, accepted, basic, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

const TO: &str = "+905551234567";
const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

fn settings(server: &Server) -> Settings {
    Settings {
        url: server.url().parse().unwrap(),
        account_sid: ACCOUNT.to_owned(),
        login: Login::AuthToken(Secret::new("hunter2")),
        sender: Sender::From("+15005550006".to_owned()),
        deadlines: deadlines(),
    }
}

fn message(content: &str) -> Call {
    call(delivery(Channel::Sms, TO, content))
}

fn created() -> Answer {
    let body = json!({
        "account_sid": ACCOUNT, "body": "Hello", "direction": "outbound-api", "error_code": null,
        "num_segments": "1", "sid": "SM87105da94bff44b999e4e6eb90d8eb6a", "status": "queued",
    });
    Answer::new(201, &body.to_string())
}

#[tokio::test]
async fn a_message_is_a_form_with_basic_auth() {
    let server = Server::answering(created()).await;
    let twilio = Twilio::new(settings(&server)).unwrap();
    let reply = twilio.send(&message("Çay & +1 = ☕?")).await;
    let sid = "SM87105da94bff44b999e4e6eb90d8eb6a";
    assert_eq!(reply.outcome, accepted(Some(sid)));
    assert!(reply.response.unwrap().contains("num_segments"));

    let request = server.request();
    let line = format!("POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1");
    assert_eq!(request.line, line);
    let login = basic(ACCOUNT, "hunter2");
    assert_eq!(request.header("authorization"), Some(login.as_str()));
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(request.header("content-type"), form);
    assert_eq!(
        request.text(),
        "To=%2B905551234567&From=%2B15005550006&Body=%C3%87ay+%26+%2B1+%3D+%E2%98%95%3F"
    );
    says_whose_it_is(&request);
}

#[tokio::test]
async fn an_api_key_and_a_messaging_service_take_the_place_of_token_and_number() {
    let server = Server::answering(created()).await;
    let twilio = Twilio::new(Settings {
        login: Login::ApiKey {
            key: "SK1".to_owned(),
            secret: Secret::new("s"),
        },
        sender: Sender::MessagingService("MG1".to_owned()),
        ..settings(&server)
    });
    twilio.unwrap().send(&message("Hello")).await;
    let request = server.request();
    let login = basic("SK1", "s");
    assert_eq!(request.header("authorization"), Some(login.as_str()));
    let line = format!("POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1");
    assert_eq!(request.line, line);
    let form = "To=%2B905551234567&MessagingServiceSid=MG1&Body=Hello";
    assert_eq!(request.text(), form);
}

fn fault(status: u16, code: u32) -> Answer {
    let body = json!({
        "code": code, "message": "Something about it", "status": status,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
    });
    Answer::new(status, &body.to_string())
}

#[tokio::test]
async fn each_error_is_told_and_may_pass_or_not() {
    let server = Server::answering(created()).await;
    let twilio = Twilio::new(settings(&server)).unwrap();
    let permanent = "permanent";
    let cases: [Case; 14] = [
        (fault(401, 20003), permanent, "twilio_20003", None),
        (fault(404, 20404), permanent, "twilio_20404", None),
        (fault(400, 21211), permanent, "twilio_21211", None),
        (fault(400, 21408), permanent, "twilio_21408", None),
        (fault(400, 21606), permanent, "twilio_21606", None),
        (fault(400, 21610), permanent, "twilio_21610", None),
        (fault(400, 21614), permanent, "twilio_21614", None),
        (fault(400, 21617), permanent, "twilio_21617", None),
        (fault(429, 20429), "transient", "twilio_20429", None),
        (
            fault(429, 20429).header("Retry-After", "3"),
            "transient",
            "twilio_20429",
            Some(3),
        ),
        // Too full a queue is a mistake of the request's by its status, and passes all the same.
        (fault(400, 21611), "transient", "twilio_21611", None),
        (fault(500, 20500), "transient", "twilio_20500", None),
        (
            Answer::new(503, "<html>upstream"),
            "transient",
            "http_503",
            None,
        ),
        (Answer::new(403, ""), permanent, "http_403", None),
    ];
    each_is_told(&server, &twilio, &message("Hello"), cases).await;
}

#[tokio::test]
async fn what_is_longer_than_twilio_takes_is_not_sent() {
    let server = Server::answering(created()).await;
    let twilio = Twilio::new(settings(&server)).unwrap();
    let fits = twilio.send(&message(&"ü".repeat(1_600))).await;
    assert!(matches!(
        fits.outcome,
        herald_channels::CallOutcome::Accepted { .. }
    ));
    let reply = twilio.send(&message(&"ü".repeat(1_601))).await;
    let expected = ("permanent".to_owned(), "content_too_long".to_owned(), None);
    assert_eq!(refusal(&reply), expected);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_secret_is_in_no_text_of_ours() {
    let server = Server::answering(fault(401, 20003)).await;
    let settings = settings(&server);
    assert!(!format!("{settings:?}").contains("hunter2"));
    let twilio = Twilio::new(settings).unwrap();
    drop(server);
    let reply = twilio.send(&message("Hello")).await;
    assert_eq!(refusal(&reply).1, "connection_error");
    assert!(!format!("{reply:?}").contains("hunter2"));
    assert!(!format!("{reply:?}").contains(ACCOUNT));
}
