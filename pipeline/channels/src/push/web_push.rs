//! Web Push: to a browser, by the push service that its subscription names (RFC 8030).
//!
//! The recipient is the subscription as the browser gives it, `{"endpoint", "keys": {"p256dh",
//! "auth"}}`. What the service worker is handed is `{"id", "title", "body", "data"}`: subject,
//! content and the client's metadata. A message that comes twice replaces itself as long as the push
//! service has not handed it on, and can be told by its id by the service worker.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use herald_schemas::{records::Failure, words::Priority};
use reqwest::{
    Client,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    aes128gcm::{self, PLAINTEXT_LIMIT, Receiver},
    metadata, time_left, topic,
    vapid::{BASE64, Vapid},
};
use crate::{
    Call, Provider, Reply,
    allowed::Allowed,
    http::{self, Answer, IDEMPOTENCY_KEY},
    not_allowed, not_for_it, permanent,
};

/// How to send.
pub struct Settings {
    /// Who sends.
    pub vapid: Vapid,
    /// How long a push service keeps what the browser is not there for.
    pub time_to_live: Duration,
    /// The push services that a subscription may name.
    pub allowed: Allowed,
}

/// Web Push.
pub struct WebPush {
    settings: Settings,
    client: Client,
}

impl WebPush {
    /// The client is for URLs that users gave.
    pub fn new(settings: Settings, of_users: Client) -> Self {
        Self {
            settings,
            client: of_users,
        }
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let subscription = Subscription::read(&call.delivery.identity.recipient)?;
        let endpoint = self.settings.allowed.url(&subscription.endpoint);
        let endpoint = endpoint.ok_or_else(|| {
            not_allowed("the subscription's endpoint is none of the push services in the settings")
        })?;
        let now = SystemTime::now();
        let kept = time_left(call, now).unwrap_or(Duration::MAX);
        let kept = kept.min(self.settings.time_to_live);
        let unsigned = |error: openssl::error::ErrorStack| {
            permanent("web_push_unencrypted", error.to_string())
        };
        let authorization = self.settings.vapid.authorization(&endpoint, now);
        let body = body(call, &subscription.receiver()?)?;
        let request = self
            .client
            .post(endpoint)
            .header(AUTHORIZATION, authorization.map_err(unsigned)?)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("ttl", kept.as_secs())
            .header("urgency", urgency(call.delivery.identity.priority))
            .header("topic", topic(call))
            .body(body);
        http::ask(http::with_context(request, call, &IDEMPOTENCY_KEY)).await
    }
}

#[derive(Deserialize)]
struct Subscription {
    endpoint: String,
    keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

impl Subscription {
    fn read(recipient: &str) -> Result<Self, Failure> {
        serde_json::from_str(recipient)
            .map_err(|_| not_for_it("the recipient is no Web Push subscription"))
    }

    fn receiver(&self) -> Result<Receiver, Failure> {
        let public = BASE64.decode(&self.keys.p256dh).unwrap_or_default();
        let secret = BASE64.decode(&self.keys.auth).unwrap_or_default();
        Receiver::new(public, secret).ok_or_else(|| not_for_it("the subscription's keys are none"))
    }
}

fn body(call: &Call, receiver: &Receiver) -> Result<Vec<u8>, Failure> {
    let message = &call.delivery.message;
    let plaintext = json!({
        "id": call.delivery.identity.id,
        "title": message.subject,
        "body": message.content,
        "data": metadata(call),
    })
    .to_string();
    if plaintext.len() > PLAINTEXT_LIMIT {
        let length = plaintext.len();
        return Err(permanent(
            "content_too_long",
            format!(
                "{length} bytes with its title and data, and a push service takes {PLAINTEXT_LIMIT}"
            ),
        ));
    }
    aes128gcm::encrypt(plaintext.as_bytes(), receiver)
        .map_err(|error| permanent("web_push_unencrypted", error.to_string()))
}

/// How much of a battery it is worth.
fn urgency(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

#[async_trait]
impl Provider for WebPush {
    fn name(&self) -> &str {
        "web_push"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            // The message's own address is the push service's id of it.
            Ok(answer) if answer.status.is_success() => {
                Reply::accepted(answer.header(&LOCATION), &answer)
            }
            Ok(answer) => Reply::refused(failure(&answer), &answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

fn failure(answer: &Answer) -> Failure {
    let (code, message) = match answer.status.as_u16() {
        401 | 403 => ("web_push_unauthorized", "the push service refuses our key"),
        404 | 410 => ("web_push_subscription_gone", "the subscription is gone"),
        413 => ("web_push_too_large", "the message is too large"),
        429 => ("web_push_throttled", "too many messages"),
        _ => return http::status_failure(answer.status),
    };
    http::failure_of(
        http::may_pass(answer.status),
        code.to_owned(),
        message.to_owned(),
    )
}
