//! Firebase Cloud Messaging, by its HTTP v1 API.
//!
//! The recipient is a device's registration token. The subject is the title, the content the body;
//! the client's metadata is handed to the app. There is no idempotency key, but what comes twice
//! under the same tag replaces itself on the device.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use herald_schemas::{records::Failure, words::Priority};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{metadata, service_account::ServiceAccount, time_left, tokens::Tokens, topic};
use crate::{
    Call, CallOutcome, Provider, Reply, Secret, code,
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    not_for_it,
};

/// The longest that FCM keeps a message for a device.
const LONGEST_LIFE: Duration = Duration::from_secs(28 * 24 * 3_600);
/// The least to wait when there was too much, where FCM does not say.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// How to reach FCM.
pub struct Settings {
    /// `https://fcm.googleapis.com`, or what stands for it.
    pub url: Url,
    /// Who sends, and for which project.
    pub account: ServiceAccount,
    /// The deadlines of a call, and of one for a token.
    pub deadlines: Deadlines,
}

/// Firebase Cloud Messaging.
pub struct Fcm {
    messages: Url,
    tokens: Tokens,
    client: Client,
}

impl Fcm {
    /// FCM, at a URL that the operator set.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let client = http::client(settings.deadlines)?;
        let tokens = Tokens::new(settings.account, client.clone());
        let path = ["v1", "projects", tokens.project(), "messages:send"];
        Ok(Self {
            messages: http::below(&settings.url, &path),
            tokens,
            client,
        })
    }

    async fn ask(&self, call: &Call, message: &Value, token: &Secret) -> Result<Answer, Failure> {
        let request = self
            .client
            .post(self.messages.clone())
            .bearer_auth(token.reveal());
        let request = http::with_context(request, call, &IDEMPOTENCY_KEY);
        http::ask_json(request, message).await
    }
}

#[async_trait]
impl Provider for Fcm {
    fn name(&self) -> &str {
        "fcm"
    }

    async fn send(&self, call: &Call) -> Reply {
        if call.delivery.identity.recipient.starts_with('{') {
            return Reply::unanswered(not_for_it("the recipient is no registration token"));
        }
        let message = message(call, SystemTime::now());
        let token = match self.tokens.get().await {
            Ok(token) => token,
            Err(reply) => return reply,
        };
        let answer = match self.ask(call, &message, &token).await {
            Ok(answer) if !is_token_refused(&answer) => return reply(&answer),
            Ok(answer) => answer,
            Err(failure) => return Reply::unanswered(failure),
        };
        let token = match self.tokens.instead_of(&token).await {
            Some(Ok(token)) => token,
            Some(Err(reply)) => return reply,
            None => return reply(&answer),
        };
        match self.ask(call, &message, &token).await {
            Ok(answer) => reply(&answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

fn message(call: &Call, now: SystemTime) -> Value {
    let identity = &call.delivery.identity;
    let key = topic(call);
    let mut android = json!({ "notification": { "tag": &key } });
    let mut apns = json!({ "apns-collapse-id": &key });
    let mut webpush = json!({ "Topic": &key });
    // A message to be shown has high priority unless it says otherwise.
    if identity.priority == Priority::Low {
        android["priority"] = json!("NORMAL");
        apns["apns-priority"] = json!("5");
        webpush["Urgency"] = json!("low");
    }
    if let Some(left) = time_left(call, now) {
        let left = left.min(LONGEST_LIFE).as_secs();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        android["ttl"] = json!(format!("{left}s"));
        apns["apns-expiration"] = json!((now + left).to_string());
        webpush["TTL"] = json!(left.to_string());
    }
    json!({ "message": {
        "token": identity.recipient,
        "notification": {
            "title": call.delivery.message.subject,
            "body": call.delivery.message.content,
        },
        "data": data(call),
        "android": android,
        "apns": { "headers": apns },
        "webpush": { "headers": webpush },
    }})
}

/// The metadata as FCM takes it: texts only, and no names that are its own.
fn data(call: &Call) -> Map<String, Value> {
    let is_free = |name: &str| {
        !matches!(name, "" | "from" | "message_type")
            && !name.starts_with("google")
            && !name.starts_with("gcm")
    };
    let mut data: Map<String, Value> = metadata(call)
        .into_iter()
        .filter(|(name, _)| is_free(name))
        .map(|(name, value)| match value {
            Value::String(_) => (name, value),
            other => (name, Value::String(other.to_string())),
        })
        .collect();
    data.insert("id".to_owned(), json!(call.delivery.identity.id));
    data
}

#[derive(Deserialize)]
struct Taken {
    name: String,
}

#[derive(Deserialize)]
struct Fault {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "errorCode")]
    error_code: Option<String>,
}

impl Error {
    /// FCM's own code, which says more than the general one.
    fn code(&self) -> &str {
        let of_fcm = self.details.iter().find_map(|it| it.error_code.as_deref());
        of_fcm.unwrap_or(&self.status)
    }
}

/// Apple's or a push service's refusal of the project's keys is a 401 as well: no token mends it.
fn is_token_refused(answer: &Answer) -> bool {
    let is_of_others = |fault: Fault| fault.error.code() == "THIRD_PARTY_AUTH_ERROR";
    answer.status == StatusCode::UNAUTHORIZED && !answer.json().is_some_and(is_of_others)
}

fn reply(answer: &Answer) -> Reply {
    if answer.status.is_success() {
        let taken: Option<Taken> = answer.json();
        return Reply::accepted(taken.as_ref().map(|taken| taken.name.as_str()), answer);
    }
    let mut refused = Reply::refused(failure(answer), answer);
    if let CallOutcome::Refused { retry_after, .. } = &mut refused.outcome
        && answer.status == StatusCode::TOO_MANY_REQUESTS
    {
        retry_after.get_or_insert(QUOTA_PAUSE);
    }
    refused
}

fn failure(answer: &Answer) -> Failure {
    let fault = answer.json::<Fault>();
    let told = fault.as_ref().and_then(|fault| {
        let word = fault.error.code();
        Some((&fault.error, word, code("fcm", word)?))
    });
    let Some((error, word, code)) = told else {
        return http::status_failure(answer.status);
    };
    http::failure_of(
        is_passing(word) || http::may_pass(answer.status),
        code,
        format!("FCM: {}", error.message),
    )
}

fn is_passing(word: &str) -> bool {
    matches!(
        word,
        "UNAVAILABLE" | "INTERNAL" | "QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED"
    )
}
