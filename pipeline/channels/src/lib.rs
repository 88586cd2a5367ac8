//! Providers: the only code that talks to those who carry a message on.
//!
//! A provider makes one call and says how it went; when to
//! call, whom else to ask and what follows is decided by `herald_stages::deliver`.

pub mod allowed;
pub mod by_recipient;
pub mod email;
pub mod guard;
pub mod http;
mod jwt;
mod log;
pub mod provider_webhook;
pub mod push;
mod secret;
pub mod slack;
pub mod sms;
pub mod webhook;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use herald_schemas::records::{DeliveryReady, Failure};
use http::Answer;

pub use log::LogProvider;
pub use secret::Secret;

/// One call to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// What to send and to whom.
    pub delivery: Arc<DeliveryReady>,
    /// The attempt it belongs to, from 1.
    pub attempt: i32,
}

impl Call {
    /// What the provider is to know a repetition by: the client's key, else the notification's id.
    /// It is the same in every attempt.
    pub fn idempotency_key(&self) -> String {
        let identity = &self.delivery.identity;
        let of_client = identity.idempotency_key.clone();
        of_client.unwrap_or_else(|| identity.id.to_string())
    }
}

/// What a provider said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it came to.
    pub outcome: CallOutcome,
    /// The beginning of the answer, 2 kB at most.
    pub response: Option<String>,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// The provider has the message.
    Accepted {
        /// Its own id of it.
        provider_message_id: Option<String>,
    },
    /// It has not.
    Refused {
        /// Why; `kind` is `transient` or `permanent`.
        failure: Failure,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
}

/// The longest id of a provider's that is kept.
const ID_LIMIT: usize = 512;
/// The longest reason, in characters; the rest is in the response.
const REASON_LIMIT: usize = 300;

impl Reply {
    /// The provider has the message, and calls it so.
    pub(crate) fn accepted(id: Option<&str>, answer: &Answer) -> Self {
        let provider_message_id = id
            .filter(|id| !id.is_empty())
            .map(|id| id.chars().take(ID_LIMIT).collect());
        Self {
            outcome: CallOutcome::Accepted {
                provider_message_id,
            },
            response: answer.text(),
        }
    }

    /// The provider has answered that it does not take it.
    pub(crate) fn refused(failure: Failure, answer: &Answer) -> Self {
        Self {
            outcome: CallOutcome::Refused {
                failure,
                retry_after: answer.retry_after,
            },
            response: answer.text(),
        }
    }

    /// Nobody has answered, or nobody was asked.
    pub(crate) fn unanswered(failure: Failure) -> Self {
        Self {
            outcome: CallOutcome::Refused {
                failure,
                retry_after: None,
            },
            response: None,
        }
    }
}

/// A failure that waiting may mend.
pub(crate) fn transient(code: impl Into<String>, message: impl AsRef<str>) -> Failure {
    failure("transient", code.into(), message.as_ref())
}

/// A failure that waiting does not mend.
pub(crate) fn permanent(code: impl Into<String>, message: impl AsRef<str>) -> Failure {
    failure("permanent", code.into(), message.as_ref())
}

/// The code of a failure without a call: the recipient is of another kind than this provider has.
const NOT_FOR_IT: &str = "recipient_not_supported";

/// A failure of that code.
pub(crate) fn not_for_it(message: &str) -> Failure {
    permanent(NOT_FOR_IT, message)
}

/// A failure without a call: a user's URL that leads where it must not.
pub(crate) fn not_allowed(message: &str) -> Failure {
    permanent("recipient_not_allowed", message)
}

/// The longest word of a provider's that becomes a code.
const WORD_LIMIT: usize = 80;

/// A provider's own word for an error, as a code of its: `low-balance` is `vonage_low_balance`. None
/// where it is no word, since whoever answers may be somebody else.
pub(crate) fn code(provider: &str, word: &str) -> Option<String> {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_word = (1..=WORD_LIMIT).contains(&word.len()) && word.bytes().all(is_of_word);
    is_word.then(|| format!("{provider}_{}", word.to_ascii_lowercase().replace('-', "_")))
}

fn failure(kind: &str, code: String, message: &str) -> Failure {
    Failure {
        kind: kind.to_owned(),
        code,
        message: message.chars().take(REASON_LIMIT).collect(),
    }
}

/// Somebody who carries messages on.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name in the configuration, in metrics and in the log of calls.
    fn name(&self) -> &str;

    /// Makes the call, within the provider's own deadline. Every failure is a [`Reply`].
    async fn send(&self, call: &Call) -> Reply;
}

#[cfg(test)]
pub(crate) mod tests {
    use herald_schemas::{
        ids::NotificationId,
        records::{Identity, Message},
        words::{Channel, Priority},
    };

    use super::*;

    /// A first call to `recipient`.
    pub(crate) fn call(recipient: &str) -> Call {
        let identity = Identity {
            id: NotificationId::derived(1_700_000_000_000, &[b"call"]),
            recipient: recipient.to_owned(),
            channel: Channel::Email,
            priority: Priority::High,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: None,
            correlation_id: Some("demo-123".to_owned()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            created_at: 1_700_000_000_000,
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            source: None,
        };
        let message = Message {
            content: "Hello".to_owned(),
            subject: Some("Hi".to_owned()),
            html: None,
            metadata: Some(r#"{"a":1}"#.to_owned()),
        };
        let delivery = DeliveryReady {
            identity,
            message,
            message_known: true,
            attempts: 0,
            due_at: None,
            last_error: None,
        };
        Call {
            delivery: Arc::new(delivery),
            attempt: 1,
        }
    }
}
