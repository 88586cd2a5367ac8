//! Vonage, by its Messages API, version 1.
//!
//! Not by its SMS API, whose callbacks are signed only where the account was set up for it, over a
//! list of parameters: those of the Messages API always carry a JWT by the account's signature
//! secret, with a hash of the body. Its answers have proper statuses, too.

use async_trait::async_trait;
use herald_schemas::records::Failure;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use crate::{
    Call, Provider, Reply, Secret, code,
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    sms::within,
};

/// The longest text, in characters.
const CONTENT_LIMIT: usize = 1_000;
/// The longest `client_ref`, in characters.
const REFERENCE_LIMIT: usize = 100;

/// How to reach Vonage.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://api.nexmo.com`, or what stands for it.
    pub url: Url,
    /// The account's key.
    pub api_key: String,
    /// Its secret.
    pub api_secret: Secret,
    /// A number without a plus, or an alphanumeric sender.
    pub from: String,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// Vonage.
pub struct Vonage {
    settings: Settings,
    messages: Url,
    client: Client,
}

impl Vonage {
    /// Vonage, at a URL that the operator set.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        Ok(Self {
            messages: http::below(&settings.url, &["v1", "messages"]),
            client: http::client(settings.deadlines)?,
            settings,
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let content = &call.delivery.message.content;
        within(CONTENT_LIMIT, content)?;
        let key = call.idempotency_key();
        let body = Body {
            channel: "sms",
            message_type: "text",
            to: without_plus(&call.delivery.identity.recipient),
            from: without_plus(&self.settings.from),
            text: content,
            client_ref: key.chars().take(REFERENCE_LIMIT).collect(),
        };
        let request = self.client.post(self.messages.clone()).basic_auth(
            &self.settings.api_key,
            Some(self.settings.api_secret.reveal()),
        );
        let request = http::with_context(request, call, &IDEMPOTENCY_KEY);
        http::ask_json(request, &body).await
    }
}

/// Vonage wants E.164 without its plus.
fn without_plus(number: &str) -> &str {
    number.strip_prefix('+').unwrap_or(number)
}

#[derive(Serialize)]
struct Body<'a> {
    channel: &'static str,
    message_type: &'static str,
    to: &'a str,
    from: &'a str,
    text: &'a str,
    /// Comes back in every callback.
    client_ref: String,
}

#[derive(Deserialize)]
struct Accepted {
    message_uuid: String,
}

/// RFC 7807, with the code at the end of `type`.
#[derive(Deserialize)]
struct Problem {
    r#type: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

#[async_trait]
impl Provider for Vonage {
    fn name(&self) -> &str {
        "vonage"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            Ok(answer) if answer.status.is_success() => {
                let accepted: Option<Accepted> = answer.json();
                let id = accepted.as_ref().map(|body| body.message_uuid.as_str());
                Reply::accepted(id, &answer)
            }
            Ok(answer) => Reply::refused(failure(&answer), &answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

fn failure(answer: &Answer) -> Failure {
    let problem = answer.json::<Problem>();
    let told = problem.as_ref().and_then(|problem| {
        // The word at the end of https://developer.vonage.com/api-errors/messages#1120.
        let (_, word) = problem.r#type.rsplit_once('#')?;
        Some((problem, word, code("vonage", word)?))
    });
    let Some((problem, word, code)) = told else {
        return http::status_failure(answer.status);
    };
    http::failure_of(
        is_passing(word) || http::may_pass(answer.status),
        code,
        format!("Vonage: {}: {}", problem.title, problem.detail),
    )
}

/// Throttled; an internal error; a message that Vonage could not hand on.
fn is_passing(word: &str) -> bool {
    matches!(word, "1000" | "1030" | "1100" | "throttled")
}
