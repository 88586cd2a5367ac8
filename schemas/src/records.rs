//! The records on the topics, as Rust sees them.
//!
//! Each has its Avro schema in `schemas/<name>.avsc`, the source of truth; a test holds the two
//! together. A field that was added later has a default here (`serde(default)`) equal to the one
//! in the schema, which is how a record of an older writer is read.
//!
//! Times are Unix milliseconds. JSON inside a record is text and stays unparsed until someone
//! needs to look inside.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{BatchId, DeadLetterId, EventId, NotificationId, RuleId, TemplateId, UnixMs},
    words::{Channel, Priority, Status},
};

/// Something happened in a producer's system. Topic `events`, keyed by the producer's key, else by
/// the event's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The producer's own id. A UUIDv7 is the event's id; any other text is hashed with
    /// `occurred_at`; without one, topic, partition and offset are. Sending an event again under
    /// the same id and time makes no second notification.
    #[serde(default)]
    pub id: Option<String>,
    /// The name of its event source, such as `order_created`.
    pub event: String,
    /// A JSON object.
    pub payload: String,
    /// When it happened.
    pub occurred_at: UnixMs,
    /// The catalog version its rules must at least come from; 0: whichever is at hand.
    #[serde(default)]
    pub catalog_version: i64,
    /// Ties together what belongs to one request.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// W3C trace context, where the header could not carry it.
    #[serde(default)]
    pub traceparent: Option<String>,
}

impl Event {
    /// The event's id: the producer's own, else one of where its record lies.
    pub fn event_id(&self, topic: &str, partition: i32, offset: i64, timestamp: UnixMs) -> EventId {
        match &self.id {
            Some(own) => EventId::from_producer(own, self.occurred_at),
            None => EventId::of_record(topic, partition, offset, timestamp),
        }
    }
}

/// Somebody is to be notified. Topics `notifications.{lane}` and `scheduled`, keyed by recipient.
///
/// Also written by producers outside Herald, so it is flat and most of it may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRequested {
    /// As [`Event::id`], with `created_at` as its time.
    #[serde(default)]
    pub id: Option<String>,
    /// A phone number, an address, a token or a URL, by channel.
    pub recipient: String,
    /// One of [`Channel`]'s words; checked by render, so that a wrong one becomes a dead letter
    /// that can be read.
    pub channel: String,
    /// One of [`Priority`]'s words.
    #[serde(default = "normal")]
    pub priority: String,
    /// The text to send. Without it `template_id` is needed.
    #[serde(default)]
    pub content: Option<String>,
    /// The subject of a mail, the title of a push message.
    #[serde(default)]
    pub subject: Option<String>,
    /// The HTML part of a mail.
    #[serde(default)]
    pub html: Option<String>,
    /// The template that makes the content.
    #[serde(default)]
    pub template_id: Option<TemplateId>,
    /// Its version; without one, the newest that render knows.
    #[serde(default)]
    pub template_version: Option<i32>,
    /// A JSON object: the template's variables.
    #[serde(default)]
    pub variables: Option<String>,
    /// A JSON object, passed on to the provider.
    #[serde(default)]
    pub metadata: Option<String>,
    /// The client's key, passed on to the provider.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Ties together what belongs to one request.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// W3C trace context, where the header could not carry it.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// The batch it belongs to.
    #[serde(default)]
    pub batch_id: Option<BatchId>,
    /// The event it was made of.
    #[serde(default)]
    pub event_id: Option<EventId>,
    /// The rule that made it.
    #[serde(default)]
    pub rule_id: Option<RuleId>,
    /// The notification it repeats.
    #[serde(default)]
    pub requeued_from: Option<NotificationId>,
    /// When it was accepted.
    pub created_at: UnixMs,
    /// Not before this time.
    #[serde(default)]
    pub send_at: Option<UnixMs>,
    /// Not after this time.
    #[serde(default)]
    pub expires_at: Option<UnixMs>,
    /// The catalog version its template must at least come from; 0: whichever is at hand.
    #[serde(default)]
    pub catalog_version: i64,
    /// Which part of Herald accepted it and wrote its first status: `api`, `match`, `requeue`.
    /// Left out by producers outside; then render writes the first status.
    #[serde(default)]
    pub accepted_by: Option<String>,
}

impl NotificationRequested {
    /// The notification's id: the producer's own, else one of where its record lies.
    pub fn notification_id(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        timestamp: UnixMs,
    ) -> NotificationId {
        match &self.id {
            Some(own) => NotificationId::from_producer(own, self.created_at),
            None => NotificationId::of_record(topic, partition, offset, timestamp),
        }
    }

    /// Who is notified, once the words and the id are known to be good; accepted by the API: no
    /// record is its source.
    pub fn identity(&self, id: NotificationId, channel: Channel, priority: Priority) -> Identity {
        Identity {
            id,
            recipient: self.recipient.clone(),
            channel,
            priority,
            batch_id: self.batch_id,
            event_id: self.event_id,
            rule_id: self.rule_id,
            requeued_from: self.requeued_from,
            template_id: self.template_id,
            template_version: self.template_version,
            idempotency_key: self.idempotency_key.clone(),
            correlation_id: self.correlation_id.clone(),
            traceparent: self.traceparent.clone(),
            created_at: self.created_at,
            send_at: self.send_at,
            expires_at: self.expires_at,
            catalog_version: self.catalog_version,
            source: None,
        }
    }
}

fn normal() -> String {
    Priority::Normal.as_str().to_owned()
}

/// Who a notification is for and where it came from: what every record about it repeats, so that
/// a row can be made from any of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The notification.
    pub id: NotificationId,
    /// A phone number, an address, a token or a URL, by channel.
    pub recipient: String,
    /// How it is sent.
    pub channel: Channel,
    /// Its lane.
    pub priority: Priority,
    /// The batch it belongs to.
    #[serde(default)]
    pub batch_id: Option<BatchId>,
    /// The event it was made of.
    #[serde(default)]
    pub event_id: Option<EventId>,
    /// The rule that made it.
    #[serde(default)]
    pub rule_id: Option<RuleId>,
    /// The notification it repeats.
    #[serde(default)]
    pub requeued_from: Option<NotificationId>,
    /// The template that made its content.
    #[serde(default)]
    pub template_id: Option<TemplateId>,
    /// The template's version.
    #[serde(default)]
    pub template_version: Option<i32>,
    /// The client's key.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Ties together what belongs to one request.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// W3C trace context of the request that made it.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub created_at: UnixMs,
    /// Not before this time.
    #[serde(default)]
    pub send_at: Option<UnixMs>,
    /// Not after this time.
    #[serde(default)]
    pub expires_at: Option<UnixMs>,
    /// The version of the catalog snapshot that decided about it; 0: none was asked.
    #[serde(default)]
    pub catalog_version: i64,
    /// The record it came from, as `topic/partition/offset`; none for what the API accepted.
    #[serde(default)]
    pub source: Option<String>,
}

/// What is said to the recipient.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Message {
    /// The text.
    pub content: String,
    /// The subject of a mail, the title of a push message.
    #[serde(default)]
    pub subject: Option<String>,
    /// The HTML part of a mail.
    #[serde(default)]
    pub html: Option<String>,
    /// A JSON object, passed on to the provider.
    #[serde(default)]
    pub metadata: Option<String>,
}

/// Why an attempt, or a record, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `transient`, `permanent`, `expired`, or for a poison record the stage's word.
    pub kind: String,
    /// Such as `http_503`, `connection_error`, `missing_variable`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A notification ready to be sent. Topics `deliveries.{channel}.{lane}` and `retries.{tier}`,
/// keyed by recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReady {
    /// Who and whence.
    pub identity: Identity,
    /// What.
    pub message: Message,
    /// Whether the materialized row already has the message.
    #[serde(default)]
    pub message_known: bool,
    /// How many attempts were made.
    pub attempts: i32,
    /// Not before this time; only in a retry tier.
    #[serde(default)]
    pub due_at: Option<UnixMs>,
    /// Why the last attempt failed.
    #[serde(default)]
    pub last_error: Option<Failure>,
}

/// One call to one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The attempt it belongs to, from 1.
    pub number: i32,
    /// Its place within the attempt, from 0: primary, then fallback.
    pub step: i32,
    /// The provider's name in the configuration.
    pub provider: String,
    /// When the call started.
    pub started_at: UnixMs,
    /// How long it took, in milliseconds.
    pub latency_ms: i32,
    /// Why it failed; none when the provider accepted.
    #[serde(default)]
    pub error: Option<Failure>,
    /// The beginning of what the provider answered, 2 kB at most.
    #[serde(default)]
    pub response: Option<String>,
}

/// A notification's state changed. Topic `status`, keyed by notification id: a public contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// Who and whence.
    pub identity: Identity,
    /// The new status.
    pub status: Status,
    /// How many attempts had been made.
    pub attempts: i32,
    /// When it changed.
    pub at: UnixMs,
    /// What is said, in the first status that knows it.
    #[serde(default)]
    pub message: Option<Message>,
    /// The calls that led here.
    #[serde(default)]
    pub calls: Vec<Attempt>,
    /// The provider's own id of the message.
    #[serde(default)]
    pub provider_message_id: Option<String>,
    /// Why it is retried or was given up.
    #[serde(default)]
    pub error: Option<Failure>,
}

/// What the rules said of an event. Topic `matches`, keyed by event id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMatched {
    /// The event.
    pub event_id: EventId,
    /// The version of the catalog snapshot that decided.
    pub catalog_version: i64,
    /// When.
    pub at: UnixMs,
    /// One entry a rule of that event, the first 1,000 of them.
    pub rules: Vec<RuleOutcome>,
    /// How many more rules there were.
    #[serde(default)]
    pub omitted: i32,
    /// Why no rule was asked at all.
    #[serde(default)]
    pub error: Option<Failure>,
}

/// What one rule said of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOutcome {
    /// The rule.
    pub rule_id: RuleId,
    /// Its name at that time.
    pub rule: String,
    /// The notification it made.
    #[serde(default)]
    pub notification_id: Option<NotificationId>,
    /// Why it made none.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The API took a request with a batch of notifications. Topic `batches`, keyed by batch id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAccepted {
    /// The batch.
    pub id: BatchId,
    /// When it was accepted.
    pub at: UnixMs,
    /// How many notifications it made.
    pub total: i32,
    /// The client's own, a JSON object.
    #[serde(default)]
    pub metadata: Option<String>,
    /// The client's key.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Ties together what belongs to one request.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// W3C trace context of the request.
    #[serde(default)]
    pub traceparent: Option<String>,
}

/// A record that could not be processed, or a notification that was given up. Topic
/// `dead-letters`, keyed by notification id, else by the source's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The dead letter.
    pub id: DeadLetterId,
    /// The stage that gave up, such as `render`.
    pub stage: String,
    /// Why.
    pub error: Failure,
    /// When.
    pub at: UnixMs,
    /// The notification, where the record could be read that far.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// The event, where it was one.
    #[serde(default)]
    pub event_id: Option<EventId>,
    /// How many attempts had been made.
    #[serde(default)]
    pub attempts: i32,
    /// Where the record lay.
    pub source_topic: String,
    /// See `source_topic`.
    pub source_partition: i32,
    /// See `source_topic`.
    pub source_offset: i64,
    /// Its key, as it was.
    #[serde(default, with = "serde_bytes")]
    pub key: Option<Vec<u8>>,
    /// Its bytes, as they were.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    /// Its headers, as they were.
    #[serde(default)]
    pub headers: Vec<RecordHeader>,
}

/// A record header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHeader {
    /// Its name.
    pub name: String,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// What every process is told. Topic `control` (compacted), keyed by `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// `catalog`, `provider`, `pause` or `worker`.
    pub kind: String,
    /// Which one of its kind.
    pub name: String,
    /// A JSON object; its shape goes by kind.
    pub body: String,
    /// When it was said.
    pub at: UnixMs,
}

impl DeadLetter {
    /// The letter without the record's bytes, key and headers: what a list shows.
    pub fn head(&self) -> Self {
        Self {
            id: self.id,
            stage: self.stage.clone(),
            error: self.error.clone(),
            at: self.at,
            identity: self.identity.clone(),
            event_id: self.event_id,
            attempts: self.attempts,
            source_topic: self.source_topic.clone(),
            source_partition: self.source_partition,
            source_offset: self.source_offset,
            key: None,
            value: Vec::new(),
            headers: Vec::new(),
        }
    }
}
