//! The names of topics, headers and consumer groups, each written once.

use crate::words::{Channel, Priority};

/// Kafka topic names under one prefix, `herald.` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// The names under `prefix`, which may be empty.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.prefix)
    }

    /// [`crate::records::Event`]
    pub fn events(&self) -> String {
        self.name("events")
    }

    /// [`crate::records::EventMatched`]
    pub fn matches(&self) -> String {
        self.name("matches")
    }

    /// [`crate::records::NotificationRequested`], a topic a lane.
    pub fn notifications(&self, lane: Priority) -> String {
        self.name(&format!("notifications.{lane}"))
    }

    /// [`crate::records::NotificationRequested`] with a `send_at`.
    pub fn scheduled(&self) -> String {
        self.name("scheduled")
    }

    /// [`crate::records::DeliveryReady`], a topic a channel and lane.
    pub fn deliveries(&self, channel: Channel, lane: Priority) -> String {
        self.name(&format!("deliveries.{channel}.{lane}"))
    }

    /// [`crate::records::DeliveryReady`] with a `due_at`, a topic a delay; `tier` such as `5m`.
    pub fn retries(&self, tier: &str) -> String {
        self.name(&format!("retries.{tier}"))
    }

    /// [`crate::records::BatchAccepted`]
    pub fn batches(&self) -> String {
        self.name("batches")
    }

    /// [`crate::records::StatusChanged`]
    pub fn status(&self) -> String {
        self.name("status")
    }

    /// [`crate::records::DeadLetter`]
    pub fn dead_letters(&self) -> String {
        self.name("dead-letters")
    }

    /// [`crate::records::Control`]
    pub fn control(&self) -> String {
        self.name("control")
    }

    /// The consumer group of a stage.
    pub fn group(&self, stage: &str) -> String {
        self.name(stage)
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self::new("herald.")
    }
}

/// W3C Trace Context.
pub const HEADER_TRACEPARENT: &str = "traceparent";
/// Ties together what belongs to one request.
pub const HEADER_CORRELATION_ID: &str = "correlation-id";
