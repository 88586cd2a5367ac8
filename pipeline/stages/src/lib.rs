//! The stages' decisions, as pure functions: no I/O, no clock, no chance. What they need of either
//! is handed to them, so that each is tested from a table of records.
//!
//! A transform stage is a total function from a record to a [`Verdict`]: [`matching`], [`render`],
//! [`retry`]. What the first two would make of an event, [`rehearsal`] tells. What is early waits by
//! [`schedule`]. A delivery is planned and settled by [`deliver`]; what the store keeps is decided by
//! [`materialize`]. They work on a [`snapshot`] of the catalog and on [`template`]s.

pub mod deliver;
pub mod matching;
pub mod materialize;
pub mod poison;
pub mod recipient;
pub mod rehearsal;
pub mod render;
pub mod retry;
pub mod schedule;
mod schema;
mod shortened;
pub mod snapshot;
pub mod template;
mod when;

use herald_schemas::{
    ids::UnixMs,
    records::{
        BatchAccepted, DeadLetter, DeliveryReady, EventMatched, NotificationRequested,
        StatusChanged,
    },
    topics::{HEADER_CORRELATION_ID, HEADER_TRACEPARENT},
    words::Channel,
};

pub use schema::{SchemaError, SchemaFault, check_schema};
pub use when::{WhenError, check_when};

/// Where a record came from.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When it was produced.
    pub timestamp: UnixMs,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its bytes.
    pub value: &'a [u8],
    /// Its headers.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

impl Source<'_> {
    fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self
            .headers
            .iter()
            .rev()
            .find(|(header, _)| *header == name)?;
        let text = std::str::from_utf8(value).ok()?;
        (!text.is_empty() && text.len() <= 128 && !text.contains(char::is_control))
            .then(|| text.to_owned())
    }

    /// The trace context in its headers.
    pub fn traceparent(&self) -> Option<String> {
        self.header(HEADER_TRACEPARENT)
    }

    /// The correlation id in its headers.
    pub fn correlation_id(&self) -> Option<String> {
        self.header(HEADER_CORRELATION_ID)
    }

    /// `topic/partition/offset`
    pub fn provenance(&self) -> String {
        format!("{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// What a decision may depend on besides the record.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: UnixMs,
    /// A number to take chance from; the same for the same record.
    pub seed: u64,
    /// Rules and templates.
    pub catalog: &'a snapshot::Snapshot,
    /// What the operator has set.
    pub settings: &'a Settings,
}

/// What the operator has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// When and how often a failed attempt is repeated.
    pub retry: retry::Policy,
    /// How long after its acceptance a notification that names no end is still worth sending.
    pub time_to_live_ms: i64,
    /// How long a content may be.
    pub limits: ContentLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry: retry::Policy::default(),
            time_to_live_ms: 24 * 3_600_000,
            limits: ContentLimits::default(),
        }
    }
}

/// How many characters a content may have, by channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentLimits {
    /// For `sms`.
    pub sms: usize,
    /// For `email`.
    pub email: usize,
    /// For `push`.
    pub push: usize,
    /// For `slack`.
    pub slack: usize,
    /// For `webhook`, and for `log`.
    pub webhook: usize,
}

impl Default for ContentLimits {
    fn default() -> Self {
        Self {
            sms: 1_600,
            email: 262_144,
            push: 4_096,
            slack: 40_000,
            webhook: 262_144,
        }
    }
}

impl ContentLimits {
    /// The limit of a channel.
    pub fn of(&self, channel: Channel) -> usize {
        match channel {
            Channel::Sms => self.sms,
            Channel::Email => self.email,
            Channel::Push => self.push,
            Channel::Slack => self.slack,
            Channel::Webhook | Channel::Log => self.webhook,
        }
    }

    /// Whether a content fits its channel; else what to say.
    pub fn check(&self, channel: Channel, content: &str) -> Result<(), String> {
        let limit = self.of(channel);
        // Counting characters is for those that are near: no text has more of them than bytes.
        if content.len() <= limit || content.chars().count() <= limit {
            return Ok(());
        }
        Err(format!("Content exceeds {limit} characters for {channel}."))
    }
}

/// What a stage writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To `notifications.{its priority}`.
    Request(NotificationRequested),
    /// To `scheduled`.
    Schedule(NotificationRequested),
    /// To `deliveries.{its channel}.{its priority}`.
    Deliver(DeliveryReady),
    /// To the tier of that index.
    Retry {
        /// Counted along the ladder.
        tier: usize,
        /// What is to be tried again.
        delivery: DeliveryReady,
    },
    /// To `status`.
    Status(StatusChanged),
    /// To `batches`.
    Batch(BatchAccepted),
    /// To `matches`.
    Matched(EventMatched),
    /// To `dead-letters`.
    DeadLetter(DeadLetter),
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This follows from it.
    Emit(Vec<Output>),
    /// Nothing follows from it.
    Drop(&'static str),
    /// It cannot be processed: its dead letter, and whatever else says so.
    DeadLetter(Vec<Output>),
    /// Not before this time.
    Defer(UnixMs),
}
