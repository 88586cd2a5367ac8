//! The stage deliver, but for the call itself: whether to send, and what follows from how it went.

use std::time::Duration;

use herald_schemas::{
    ids::UnixMs,
    records::{Attempt, DeliveryReady, Failure, Identity, StatusChanged},
    words::Status,
};
use serde::{Deserialize, Serialize};

use crate::{Context, Output, Settings, Source, poison::given_up, retry::due_at};

/// This stage's name.
const STAGE: &str = "deliver";
/// The kind of a failure that may pass.
pub const TRANSIENT: &str = "transient";

/// What to do with a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Make this attempt.
    Send {
        /// From 1.
        attempt: i32,
    },
    /// Nothing is sent; this follows.
    Settle(Vec<Output>),
}

/// How an attempt went, with all that what follows depends on: kept with the claim, so that a
/// record that comes again is settled again in the same words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// From 1.
    pub attempt: i32,
    /// When it ended.
    pub at: UnixMs,
    /// What chance was taken from.
    pub seed: u64,
    /// The calls, in order.
    pub calls: Vec<Attempt>,
    /// The provider's own id of the message.
    pub provider_message_id: Option<String>,
    /// Whether a provider has it.
    pub accepted: bool,
    /// How long the provider asked us to wait.
    pub retry_after_ms: Option<i64>,
}

impl Settled {
    /// As the store keeps it.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers, texts and lists of them always encode.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As the store kept it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    fn retry_after(&self) -> Option<Duration> {
        let wait = self.retry_after_ms?;
        Some(Duration::from_millis(wait.max(0) as u64))
    }

    /// Why it failed: what the last provider said, but passing if any of them may recover.
    fn failure(&self) -> Failure {
        let errors = || {
            self.calls
                .iter()
                .rev()
                .filter_map(|call| call.error.as_ref())
        };
        let failure = errors()
            .find(|error| error.kind == TRANSIENT)
            .or_else(|| errors().next());
        failure.cloned().unwrap_or_else(|| Failure {
            kind: TRANSIENT.to_owned(),
            code: "no_answer".to_owned(),
            message: "no provider was asked".to_owned(),
        })
    }
}

/// Until when a notification is worth sending.
pub(crate) fn deadline(identity: &Identity, settings: &Settings) -> UnixMs {
    identity.expires_at.unwrap_or_else(|| {
        let from = identity.send_at.unwrap_or(0).max(identity.created_at);
        from.saturating_add(settings.time_to_live_ms)
    })
}

pub(crate) fn expired() -> Failure {
    Failure {
        kind: "expired".to_owned(),
        code: "expired".to_owned(),
        message: "not delivered within its time".to_owned(),
    }
}

/// Whether to send.
pub fn plan(delivery: &DeliveryReady, source: &Source<'_>, context: &Context<'_>) -> Plan {
    if deadline(&delivery.identity, context.settings) < context.now {
        let status = status(delivery, Status::Failed, delivery.attempts, context.now);
        return Plan::Settle(given_up(STAGE, source, &expired(), context.now, status));
    }
    Plan::Send {
        attempt: next_attempt(delivery),
    }
}

/// The number of the attempt that a delivery waits for, from 1.
pub fn next_attempt(delivery: &DeliveryReady) -> i32 {
    delivery.attempts.saturating_add(1)
}

/// What follows from an attempt. The same arguments give the same answer.
pub fn settle(
    delivery: &DeliveryReady,
    settled: &Settled,
    source: &Source<'_>,
    settings: &Settings,
) -> Vec<Output> {
    let status = |word| StatusChanged {
        calls: settled.calls.clone(),
        ..status(delivery, word, settled.attempt, settled.at)
    };
    if settled.accepted {
        let provider_message_id = settled.provider_message_id.clone();
        return vec![Output::Status(StatusChanged {
            provider_message_id,
            ..status(Status::Sent)
        })];
    }
    let error = settled.failure();
    let next = settings
        .retry
        .next(settled.attempt, settled.retry_after(), settled.seed);
    let Some((tier, rung)) = next.filter(|_| error.kind == TRANSIENT) else {
        return given_up(STAGE, source, &error, settled.at, status(Status::Failed));
    };
    let again = DeliveryReady {
        message_known: true,
        attempts: settled.attempt,
        due_at: Some(due_at(settled.at, rung)),
        last_error: Some(error.clone()),
        ..delivery.clone()
    };
    let retrying = StatusChanged {
        error: Some(error),
        ..status(Status::Retrying)
    };
    vec![
        Output::Retry {
            tier,
            delivery: again,
        },
        Output::Status(retrying),
    ]
}

/// What follows when a notification was withdrawn before this attempt.
pub fn withdrawn(delivery: &DeliveryReady, at: UnixMs) -> Vec<Output> {
    let status = status(delivery, Status::Cancelled, delivery.attempts, at);
    vec![Output::Status(status)]
}

/// Where a notification is after an attempt that ended so.
pub fn status_after(settled: &Settled, settings: &Settings) -> Status {
    if settled.accepted {
        return Status::Sent;
    }
    let again = settings
        .retry
        .next(settled.attempt, settled.retry_after(), settled.seed)
        .is_some();
    match settled.failure().kind == TRANSIENT && again {
        true => Status::Retrying,
        false => Status::Failed,
    }
}

/// A status that says the message too when nobody did before.
fn status(delivery: &DeliveryReady, word: Status, attempts: i32, at: UnixMs) -> StatusChanged {
    StatusChanged {
        identity: delivery.identity.clone(),
        status: word,
        attempts,
        at,
        message: (!delivery.message_known).then(|| delivery.message.clone()),
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    }
}
