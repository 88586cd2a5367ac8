//! Providers: the only code that talks to those who carry a message on.
//!
//! A provider makes one call and says how it went; when to
//! call, whom else to ask and what follows is decided by `herald_stages::deliver`.

pub mod http;
mod log;
pub mod provider_webhook;
mod secret;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use herald_schemas::records::{DeliveryReady, Failure};

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
