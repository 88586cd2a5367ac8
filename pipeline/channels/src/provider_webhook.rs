//! The provider webhook: one URL of the operator's that takes every channel as JSON.
//!
//! Protocol: `POST {"to", "channel", "content", "idempotency_key", "traceparent", …}` with the
//! headers `X-Correlation-Id`, `X-Idempotency-Key` (its name can be set) and `traceparent`. Any
//! 2xx is sent, and `messageId` of its JSON body is the provider's id of the message. What stands
//! beyond those fields is Herald's addition.

use async_trait::async_trait;
use herald_schemas::{
    ids::NotificationId,
    records::Failure,
    words::{Channel, Priority},
};
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Call, CallOutcome, Provider, Reply,
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
        let own_key = identity.id.to_string();
        let key = identity.idempotency_key.as_deref().unwrap_or(&own_key);
        // Whoever accepted the metadata checked it; were it no JSON, it would be left out.
        let metadata = message
            .metadata
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok());
        let body = Body {
            to: &identity.recipient,
            channel: identity.channel,
            content: &message.content,
            idempotency_key: key,
            traceparent: identity.traceparent.as_deref(),
            id: identity.id,
            subject: message.subject.as_deref(),
            html: message.html.as_deref(),
            priority: identity.priority,
            attempt: call.attempt,
            correlation_id: identity.correlation_id.as_deref(),
            metadata,
        };
        let json = match serde_json::to_vec(&body) {
            Ok(json) => json,
            Err(error) => return refused(permanent("unencodable", error.to_string())),
        };
        let mut request = self
            .client
            .post(self.settings.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(json);
        for (name, value) in [
            (self.settings.idempotency_header.clone(), Some(key)),
            (
                HeaderName::from_static("x-correlation-id"),
                body.correlation_id,
            ),
            (HeaderName::from_static("traceparent"), body.traceparent),
        ] {
            // A value that no header can carry (a line break, say) is in the body all the same.
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                request = request.header(name, value);
            }
        }
        match http::ask(request).await {
            Ok(answer) if answer.status.is_success() => accepted(&answer),
            Ok(answer) => Reply {
                outcome: CallOutcome::Refused {
                    failure: http::status_failure(answer.status),
                    retry_after: answer.retry_after,
                },
                response: answer.text(),
            },
            Err(failure) => refused(failure),
        }
    }
}

fn accepted(answer: &http::Answer) -> Reply {
    let body: Option<Accepted> = serde_json::from_slice(&answer.body).ok();
    let provider_message_id = body.and_then(|body| body.message_id).map(|id| match id {
        MessageId::Text(text) => text.chars().take(255).collect(),
        MessageId::Number(number) => number.to_string(),
    });
    Reply {
        outcome: CallOutcome::Accepted {
            provider_message_id,
        },
        response: answer.text(),
    }
}

fn refused(failure: Failure) -> Reply {
    Reply {
        outcome: CallOutcome::Refused {
            failure,
            retry_after: None,
        },
        response: None,
    }
}

fn permanent(code: &str, message: String) -> Failure {
    Failure {
        kind: "permanent".to_owned(),
        code: code.to_owned(),
        message,
    }
}
