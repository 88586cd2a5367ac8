//! Slack, by its two ways.

use std::sync::Arc;

use herald_channels::{
    Call, Provider, Secret,
    allowed::Allowed,
    by_recipient::ByRecipient,
    http,
    slack::{
        chat_post_message::{self, ChatPostMessage},
        incoming_webhook::{self, IncomingWebhook},
    },
};
use herald_schemas::words::Channel;
use serde_json::json;

use crate::{
    Answer, Case, Server, accepted, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

fn message(recipient: &str) -> Call {
    call(delivery(
        Channel::Slack,
        recipient,
        "Build *17* <failed> \"again\"",
    ))
}

/// Webhooks that a recipient may be below `allowed`, and the default one.
fn webhook(allowed: &[&str], default: Option<&str>) -> IncomingWebhook {
    let allowed: Vec<String> = allowed.iter().map(|base| base.to_string()).collect();
    let settings = incoming_webhook::Settings {
        default: default.map(|url| url.parse().unwrap()),
        allowed: Allowed::new(&allowed).unwrap(),
        deadlines: deadlines(),
    };
    IncomingWebhook::new(settings, http::client(deadlines()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_webhook_that_a_user_gave_is_posted_to_where_it_is_allowed() {
    let server = Server::answering(Answer::new(200, "ok")).await;
    let provider = webhook(&[server.url()], None);
    let url = format!("{}/services/T0/B0/xyz", server.url());
    let reply = provider.send(&message(&url)).await;
    assert_eq!(reply.outcome, accepted(None));
    assert_eq!(reply.response.as_deref(), Some("ok"));

    let request = server.request();
    assert_eq!(request.line, "POST /services/T0/B0/xyz HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let expected = r#"{"text":"Build *17* <failed> \"again\""}"#;
    assert_eq!(request.text(), expected);
    says_whose_it_is(&request);
}

#[tokio::test]
async fn what_is_no_url_goes_to_the_default_webhook() {
    let server = Server::answering(Answer::new(200, "ok")).await;
    let default = format!("{}/default", server.url());
    let provider = webhook(&["https://hooks.slack.com"], Some(&default));
    assert_eq!(
        provider.send(&message("#general")).await.outcome,
        accepted(None)
    );
    assert_eq!(server.request().line, "POST /default HTTP/1.1");
}

#[tokio::test]
async fn a_url_of_anybody_elses_is_refused_without_a_call() {
    let server = Server::answering(Answer::new(200, "ok")).await;
    let provider = webhook(
        &["https://hooks.slack.com", "https://hooks.slack-gov.com"],
        None,
    );
    for (recipient, code) in [
        (server.url(), "recipient_not_allowed"),
        ("http://hooks.slack.com/services/x", "recipient_not_allowed"),
        (
            "https://hooks.slack.com.evil.example/x",
            "recipient_not_allowed",
        ),
        ("#general", "recipient_not_supported"),
    ] {
        let expected = ("permanent".to_owned(), code.to_owned(), None);
        assert_eq!(refusal(&provider.send(&message(recipient)).await), expected);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn each_error_of_a_webhook_is_told_and_may_pass_or_not() {
    let server = Server::answering(Answer::new(200, "ok")).await;
    let provider = webhook(&[], Some(server.url()));
    let answer = Answer::new;
    let permanent = "permanent";
    let cases: [Case; 9] = [
        (
            answer(400, "invalid_payload"),
            permanent,
            "slack_invalid_payload",
            None,
        ),
        (
            answer(403, "action_prohibited"),
            permanent,
            "slack_action_prohibited",
            None,
        ),
        (
            answer(403, "invalid_token"),
            permanent,
            "slack_invalid_token",
            None,
        ),
        (
            answer(404, "channel_not_found"),
            permanent,
            "slack_channel_not_found",
            None,
        ),
        (
            answer(404, "no_service"),
            permanent,
            "slack_no_service",
            None,
        ),
        (
            answer(410, "channel_is_archived"),
            permanent,
            "slack_channel_is_archived",
            None,
        ),
        (
            answer(429, "rate_limited").header("Retry-After", "30"),
            "transient",
            "slack_rate_limited",
            Some(30),
        ),
        (
            answer(500, "rollup_error"),
            "transient",
            "slack_rollup_error",
            None,
        ),
        (answer(503, "<html>"), "transient", "http_503", None),
    ];
    each_is_told(&server, &provider, &message("#general"), cases).await;
}

#[tokio::test]
async fn a_webhooks_url_is_in_no_error() {
    let server = Server::answering(Answer::new(200, "ok")).await;
    let default = format!("{}/services/T0/B0/hunter2", server.url());
    let provider = webhook(&[], Some(&default));
    drop(server);
    let reply = provider.send(&message("#general")).await;
    assert_eq!(refusal(&reply).1, "connection_error");
    assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");
}

fn bot(server: &Server) -> ChatPostMessage {
    ChatPostMessage::new(chat_post_message::Settings {
        url: format!("{}/api", server.url()).parse().unwrap(),
        token: Secret::new("xoxb-hunter2"),
        deadlines: deadlines(),
    })
    .unwrap()
}

fn posted() -> Answer {
    let body =
        json!({ "ok": true, "channel": "C123456", "ts": "1503435956.000247", "message": {} });
    Answer::new(200, &body.to_string())
}

#[tokio::test]
async fn a_bot_posts_json_with_its_token() {
    let server = Server::answering(posted()).await;
    let reply = bot(&server).send(&message("C123456")).await;
    assert_eq!(reply.outcome, accepted(Some("C123456/1503435956.000247")));

    let request = server.request();
    assert_eq!(request.line, "POST /api/chat.postMessage HTTP/1.1");
    let token = Some("Bearer xoxb-hunter2");
    assert_eq!(request.header("authorization"), token);
    assert_eq!(request.header("content-type"), Some("application/json"));
    let expected = json!({ "channel": "C123456", "text": "Build *17* <failed> \"again\"" });
    assert_eq!(request.json(), expected);
    says_whose_it_is(&request);
}

#[tokio::test]
async fn each_error_of_a_bots_is_told_and_may_pass_or_not() {
    let server = Server::answering(posted()).await;
    let said = |status, error: &str| {
        Answer::new(status, &json!({ "ok": false, "error": error }).to_string())
    };
    let permanent = "permanent";
    let cases: [Case; 13] = [
        (
            said(200, "channel_not_found"),
            permanent,
            "slack_channel_not_found",
            None,
        ),
        (
            said(200, "not_in_channel"),
            permanent,
            "slack_not_in_channel",
            None,
        ),
        (
            said(200, "is_archived"),
            permanent,
            "slack_is_archived",
            None,
        ),
        (
            said(200, "msg_too_long"),
            permanent,
            "slack_msg_too_long",
            None,
        ),
        (
            said(200, "invalid_auth"),
            permanent,
            "slack_invalid_auth",
            None,
        ),
        (
            said(200, "token_revoked"),
            permanent,
            "slack_token_revoked",
            None,
        ),
        (
            said(200, "missing_scope"),
            permanent,
            "slack_missing_scope",
            None,
        ),
        (
            said(429, "ratelimited").header("Retry-After", "30"),
            "transient",
            "slack_ratelimited",
            Some(30),
        ),
        (
            said(200, "ratelimited"),
            "transient",
            "slack_ratelimited",
            None,
        ),
        (
            said(200, "internal_error"),
            "transient",
            "slack_internal_error",
            None,
        ),
        (
            said(200, "service_unavailable"),
            "transient",
            "slack_service_unavailable",
            None,
        ),
        (Answer::new(503, ""), "transient", "http_503", None),
        (
            Answer::new(200, "<html>"),
            permanent,
            "unreadable_answer",
            None,
        ),
    ];
    each_is_told(&server, &bot(&server), &message("C123456"), cases).await;
}

#[tokio::test]
async fn of_a_bot_and_a_webhook_the_one_is_asked_that_the_recipient_is_for() {
    let (web, hooks) = (
        Server::answering(posted()).await,
        Server::answering(Answer::new(404, "no_service")).await,
    );
    let both = ByRecipient::new(
        Arc::new(bot(&web)),
        vec![Arc::new(webhook(&[hooks.url()], None))],
    );
    assert_eq!(both.name(), "slack_bot+slack_webhook");
    let reply = both.send(&message("C123456")).await;
    assert_eq!(reply.outcome, accepted(Some("C123456/1503435956.000247")));
    let reply = both
        .send(&message(&format!("{}/services/x", hooks.url())))
        .await;
    let code = "slack_no_service".to_owned();
    assert_eq!(refusal(&reply), ("permanent".to_owned(), code, None));
    assert_eq!((web.requests().len(), hooks.requests().len()), (1, 1));

    // A refusal by the one that it is for is the last word.
    web.answers(Answer::new(200, r#"{"ok":false,"error":"is_archived"}"#));
    let reply = both.send(&message("C123456")).await;
    assert_eq!(refusal(&reply).1, "slack_is_archived");
    assert_eq!(hooks.requests().len(), 1);
}

#[tokio::test]
async fn a_bot_refuses_a_webhooks_url_without_a_call() {
    let server = Server::answering(posted()).await;
    let url = "https://hooks.slack.com/services/T0/B0/x";
    let reply = bot(&server).send(&message(url)).await;
    let code = "recipient_not_supported".to_owned();
    assert_eq!(refusal(&reply), ("permanent".to_owned(), code, None));
    assert!(server.requests().is_empty());
}
