//! Providers: the only code that talks to those who carry a message on.
//!
//! A folder a channel, a file a provider. A provider makes one call and says how it went; when to
//! call, whom else to ask and what follows is decided by `herald_stages::deliver`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use herald_schemas::records::{DeliveryReady, Failure};

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
