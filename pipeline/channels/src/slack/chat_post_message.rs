//! Slack's method `chat.postMessage`, with a bot's token.
//!
//! The recipient is a channel's or a user's id, or a channel's name. Slack answers 200 even to what
//! it refuses, and says so by `ok`.

use async_trait::async_trait;
use herald_schemas::records::Failure;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::{
    Call, Provider, Reply, Secret,
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    not_for_it, permanent,
    slack::failure,
};

/// How to reach Slack's Web API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://slack.com/api`, or what stands for it.
    pub url: Url,
    /// The bot's token.
    pub token: Secret,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// `chat.postMessage`.
pub struct ChatPostMessage {
    token: Secret,
    method: Url,
    client: Client,
}

impl ChatPostMessage {
    /// Slack, at a URL that the operator set.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        Ok(Self {
            method: http::below(&settings.url, &["chat.postMessage"]),
            client: http::client(settings.deadlines)?,
            token: settings.token,
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let channel = &call.delivery.identity.recipient;
        if channel.contains("://") {
            let message = "the recipient is a URL, and no channel or user of Slack's";
            return Err(not_for_it(message));
        }
        let body = Body {
            channel,
            text: &call.delivery.message.content,
        };
        let request = self
            .client
            .post(self.method.clone())
            .bearer_auth(self.token.reveal());
        let request = http::with_context(request, call, &IDEMPOTENCY_KEY);
        http::ask_json(request, &body).await
    }
}

#[derive(Serialize)]
struct Body<'a> {
    channel: &'a str,
    text: &'a str,
}

#[derive(Deserialize)]
struct Said {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
}

#[async_trait]
impl Provider for ChatPostMessage {
    fn name(&self) -> &str {
        "slack_bot"
    }

    async fn send(&self, call: &Call) -> Reply {
        let answer = match self.ask(call).await {
            Ok(answer) => answer,
            Err(failure) => return Reply::unanswered(failure),
        };
        match answer.json::<Said>() {
            // A message is known by its time within its channel.
            Some(said) if said.ok && answer.status.is_success() => {
                let id = said.channel.zip(said.ts);
                let id = id.map(|(channel, ts)| format!("{channel}/{ts}"));
                Reply::accepted(id.as_deref(), &answer)
            }
            said => Reply::refused(refusal(said, answer.status), &answer),
        }
    }
}

fn refusal(said: Option<Said>, status: StatusCode) -> Failure {
    let word = said.and_then(|said| said.error);
    if let Some(failure) = word.and_then(|word| failure(&word, status)) {
        return failure;
    }
    match status.is_success() {
        // Somebody else, then: a proxy before Slack, say.
        true => permanent("unreadable_answer", "the answer is none of Slack's"),
        false => http::status_failure(status),
    }
}
