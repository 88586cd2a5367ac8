//! Turns what the stages say into records on topics: which topic, which key, which bytes.

use std::sync::Arc;

use bytes::Bytes;
use herald_broker::{Acks, BrokerError, Header, Outgoing, Position, Producer};
use herald_schemas::{
    codec::{AvroRecord, Codec, EncodeError},
    records::{Control, DeliveryReady, Event, Identity, NotificationRequested},
    topics::{HEADER_CORRELATION_ID, HEADER_TRACEPARENT, Topics},
    words::{Channel, Priority},
};
use herald_stages::{Output, retry::Ladder};

use crate::complaints::Complaints;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The broker did not take it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// It does not fit its schema; a defect.
    #[error("record does not encode: {0}")]
    Encode(#[from] EncodeError),
}

/// The topics by name, each name made once.
struct TopicTable {
    events: Arc<str>,
    batches: Arc<str>,
    matches: Arc<str>,
    notifications: [Arc<str>; 3],
    scheduled: Arc<str>,
    deliveries: Vec<[Arc<str>; 3]>,
    retries: Vec<Arc<str>>,
    status: Arc<str>,
    dead_letters: Arc<str>,
    control: Arc<str>,
}

impl TopicTable {
    fn new(topics: &Topics, ladder: &Ladder) -> Self {
        let lanes = |name: &dyn Fn(Priority) -> String| {
            [Priority::High, Priority::Normal, Priority::Low].map(|lane| Arc::from(name(lane)))
        };
        Self {
            events: topics.events().into(),
            batches: topics.batches().into(),
            matches: topics.matches().into(),
            notifications: lanes(&|lane| topics.notifications(lane)),
            scheduled: topics.scheduled().into(),
            deliveries: Channel::ALL
                .iter()
                .map(|channel| lanes(&|lane| topics.deliveries(*channel, lane)))
                .collect(),
            retries: ladder
                .tiers()
                .iter()
                .map(|tier| topics.retries(&tier.name).into())
                .collect(),
            status: topics.status().into(),
            dead_letters: topics.dead_letters().into(),
            control: topics.control().into(),
        }
    }
}

/// Encodes and produces.
pub struct Outbox {
    codec: Codec,
    topics: TopicTable,
    producer: Arc<dyn Producer>,
    dead_letters: Complaints,
}

impl Outbox {
    /// Writes to `topics` and the tiers of `ladder`.
    pub fn new(
        codec: Codec,
        topics: &Topics,
        ladder: &Ladder,
        producer: Arc<dyn Producer>,
    ) -> Arc<Self> {
        Arc::new(Self {
            codec,
            topics: TopicTable::new(topics, ladder),
            producer,
            dead_letters: Complaints::new("what a stage could not do is a dead letter"),
        })
    }

    /// The codec it writes with.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The records that `outputs` are, in their order.
    pub fn encode(&self, outputs: &[Output]) -> Result<Vec<Outgoing>, OutboxError> {
        outputs
            .iter()
            .map(|output| self.encode_one(output))
            .collect()
    }

    fn encode_one(&self, output: &Output) -> Result<Outgoing, OutboxError> {
        let topics = &self.topics;
        match output {
            Output::Request(request) => {
                // A word that is no lane's travels in the normal one, to where it is refused.
                let lane = request.priority.parse().unwrap_or(Priority::Normal);
                self.request(&topics.notifications[lane.index()], request)
            }
            Output::Schedule(request) => self.request(&topics.scheduled, request),
            Output::Deliver(delivery) => {
                let lanes = &topics.deliveries[delivery.identity.channel as usize];
                self.delivery(&lanes[delivery.identity.priority.index()], delivery)
            }
            Output::Retry { tier, delivery } => {
                let tier = (*tier).min(topics.retries.len().saturating_sub(1));
                self.delivery(&topics.retries[tier], delivery)
            }
            Output::Status(status) => {
                let key = status.identity.id.to_string();
                self.record(
                    &topics.status,
                    key.as_bytes(),
                    status,
                    headers(&status.identity),
                )
            }
            Output::Batch(batch) => {
                let key = batch.id.to_string();
                let headers = trace_headers(&batch.traceparent, &batch.correlation_id);
                self.record(&topics.batches, key.as_bytes(), batch, headers)
            }
            Output::Matched(matched) => {
                let key = matched.event_id.to_string();
                self.record(&topics.matches, key.as_bytes(), matched, Vec::new())
            }
            Output::DeadLetter(letter) => {
                self.dead_letters.note(&letter.stage, &letter.error.message);
                let (key, headers) = match &letter.identity {
                    Some(identity) => (identity.id.to_string(), headers(identity)),
                    None => (
                        format!(
                            "{}/{}/{}",
                            letter.source_topic, letter.source_partition, letter.source_offset
                        ),
                        Vec::new(),
                    ),
                };
                self.record(&topics.dead_letters, key.as_bytes(), letter, headers)
            }
        }
    }

    fn request(
        &self,
        topic: &Arc<str>,
        request: &NotificationRequested,
    ) -> Result<Outgoing, OutboxError> {
        let headers = trace_headers(&request.traceparent, &request.correlation_id);
        self.record(topic, request.recipient.as_bytes(), request, headers)
    }

    fn delivery(
        &self,
        topic: &Arc<str>,
        delivery: &DeliveryReady,
    ) -> Result<Outgoing, OutboxError> {
        let identity = &delivery.identity;
        self.record(
            topic,
            identity.recipient.as_bytes(),
            delivery,
            headers(identity),
        )
    }

    fn record<R: AvroRecord>(
        &self,
        topic: &Arc<str>,
        key: &[u8],
        record: &R,
        headers: Vec<Header>,
    ) -> Result<Outgoing, OutboxError> {
        Ok(Outgoing {
            topic: Arc::clone(topic),
            key: Some(Bytes::copy_from_slice(key)),
            value: self.codec.encode(record)?,
            headers,
        })
    }

    /// Hands records over; what it returns resolves when all are acked.
    pub async fn enqueue(&self, records: Vec<Outgoing>) -> Result<Acks, BrokerError> {
        self.producer.enqueue(records).await
    }

    /// Writes what the stages said and waits for every ack.
    pub async fn send(&self, outputs: &[Output]) -> Result<Vec<Position>, OutboxError> {
        Ok(self.producer.send(self.encode(outputs)?).await?)
    }

    /// Tells every process, and waits until the log has it.
    pub async fn control(&self, control: &Control) -> Result<(), OutboxError> {
        let key = format!("{}/{}", control.kind, control.name);
        let record = self.record(&self.topics.control, key.as_bytes(), control, Vec::new())?;
        self.producer.send(vec![record]).await?;
        Ok(())
    }

    /// The records that events are, in their order. An event without a key of the producer's goes
    /// by its id.
    pub fn encode_events(
        &self,
        events: &[(Option<String>, Event)],
    ) -> Result<Vec<Outgoing>, OutboxError> {
        let encode = |(key, event): &(Option<String>, Event)| {
            let key = key.as_deref().or(event.id.as_deref()).unwrap_or_default();
            let headers = trace_headers(&event.traceparent, &event.correlation_id);
            self.record(&self.topics.events, key.as_bytes(), event, headers)
        };
        events.iter().map(encode).collect()
    }
}

fn headers(identity: &Identity) -> Vec<Header> {
    trace_headers(&identity.traceparent, &identity.correlation_id)
}

fn trace_headers(traceparent: &Option<String>, correlation_id: &Option<String>) -> Vec<Header> {
    let header = |name: &'static str, value: &Option<String>| {
        let value = Bytes::copy_from_slice(value.as_deref()?.as_bytes());
        Some(Header {
            name: name.into(),
            value,
        })
    };
    [
        (HEADER_TRACEPARENT, traceparent),
        (HEADER_CORRELATION_ID, correlation_id),
    ]
    .into_iter()
    .filter_map(|(name, value)| header(name, value))
    .collect()
}
