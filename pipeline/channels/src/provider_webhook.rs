//! The provider webhook: one URL of the operator's that takes every channel as JSON.
//!
//! Protocol: `POST {"to", "channel", "content", "idempotency_key", "traceparent", …}` with the
//! headers `X-Correlation-Id`, `X-Idempotency-Key` (its name can be set) and `traceparent`. Any
//! 2xx is sent, and `messageId` of its JSON body is the provider's id of the message. What stands
//! beyond those fields is Herald's addition.

use async_trait::async_trait;
use herald_schemas::{
    ids::NotificationId,
    words::{Channel, Priority},
};
use reqwest::{Client, Url, header::HeaderName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Call, Provider, Reply,
    http::{self, Deadlines},
};

/// How to reach a provider webhook.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the log of calls, such as `primary`.
    pub name: String,
    /// Where to post.
    pub url: Url,
    /// The name of the header that carries the idempotency key.
    pub idempotency_header: HeaderName,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// A provider webhook.
pub struct ProviderWebhook {
    settings: Settings,
    client: Client,
}

impl ProviderWebhook {
    /// A provider at a URL that the operator set: it may be anywhere.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let client = http::client(settings.deadlines)?;
        Ok(Self { settings, client })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    to: &'a str,
    channel: Channel,
    content: &'a str,
    idempotency_key: &'a str,
    traceparent: Option<&'a str>,
    id: NotificationId,
    subject: Option<&'a str>,
    html: Option<&'a str>,
    priority: Priority,
    attempt: i32,
    correlation_id: Option<&'a str>,
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(rename = "messageId")]
    message_id: Option<MessageId>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MessageId {
    Text(String),
    Number(i64),
}

#[async_trait]
impl Provider for ProviderWebhook {
    fn name(&self) -> &str {
        &self.settings.name
    }

    async fn send(&self, call: &Call) -> Reply {
        let identity = &call.delivery.identity;
        let message = &call.delivery.message;
        let key = call.idempotency_key();
        // Whoever accepted the metadata checked it; were it no JSON, it would be left out.
        let metadata = message
            .metadata
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok());
        let body = Body {
            to: &identity.recipient,
            channel: identity.channel,
            content: &message.content,
            idempotency_key: &key,
            traceparent: identity.traceparent.as_deref(),
            id: identity.id,
            subject: message.subject.as_deref(),
            html: message.html.as_deref(),
            priority: identity.priority,
            attempt: call.attempt,
            correlation_id: identity.correlation_id.as_deref(),
            metadata,
        };
        let request = self.client.post(self.settings.url.clone());
        let request = http::with_context(request, call, &self.settings.idempotency_header);
        match http::ask_json(request, &body).await {
            Ok(answer) if answer.status.is_success() => accepted(&answer),
            Ok(answer) => Reply::refused(http::status_failure(answer.status), &answer),
            Err(failure) => Reply::unanswered(failure),
        }
    }
}

fn accepted(answer: &http::Answer) -> Reply {
    let body: Option<Accepted> = answer.json();
    let id = body.and_then(|body| body.message_id).map(|id| match id {
        MessageId::Text(text) => text,
        MessageId::Number(number) => number.to_string(),
    });
    Reply::accepted(id.as_deref(), answer)
}
