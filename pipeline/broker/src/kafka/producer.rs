//! Writing records: batches in, one answer for each when all its records are acked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use async_trait::async_trait;
use herald_telemetry::Operation;
use rdkafka::{
    ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header as KafkaHeader, Message, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use tracing::warn;

use super::{
    cluster::Cluster,
    errors::{self, failed, failed_for},
    lock,
    settings::ACKED_WITHIN,
};
use crate::{Acks, BrokerError, Outgoing, Position, Producer};

/// How much may wait for acks. A record counts with what librdkafka keeps beside it, so that many
/// small ones are bounded as well.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
const RECORD_BYTES: usize = 256;

type Native = ThreadedProducer<Deliveries>;
type Answer = Result<Vec<Position>, BrokerError>;

pub(super) struct KafkaProducer {
    cluster: Arc<Cluster>,
    native: Mutex<Native>,
    room: Arc<Semaphore>,
}

impl KafkaProducer {
    pub(super) fn new(cluster: Arc<Cluster>) -> Result<Self, BrokerError> {
        Ok(Self {
            native: Mutex::new(make(&cluster)?),
            cluster,
            room: Arc::new(Semaphore::new(ROOM_BYTES)),
        })
    }

    /// The client; a new one when the last can never send again (a rare end of an idempotent
    /// producer, after the brokers have lost its state).
    fn native(&self) -> Result<Native, BrokerError> {
        let mut native = lock(&self.native);
        if native.context().broken.load(Ordering::Relaxed) {
            *native = make(&self.cluster)?;
        }
        Ok(native.clone())
    }

    /// Refuses a batch with a record that its topic does not take, or for a topic that is not
    /// there, before anything of it is sent. Returns the room that it needs.
    async fn check(&self, batch: &[Outgoing]) -> Result<usize, BrokerError> {
        let mut last: Option<(&Arc<str>, usize)> = None;
        let mut total = 0;
        for outgoing in batch {
            let largest = match last {
                Some((topic, largest)) if *topic == outgoing.topic => largest,
                _ => self.cluster.largest(&outgoing.topic).await?,
            };
            last = Some((&outgoing.topic, largest));
            let bytes = outgoing.bytes();
            if bytes > largest {
                // It may take more by the time this is tried again.
                self.cluster.forget(&outgoing.topic);
                let topic = outgoing.topic.to_string();
                return Err(BrokerError::TooLarge { topic, bytes });
            }
            let headers = outgoing.headers.iter();
            let headers: usize = headers.map(|h| h.name.len() + h.value.len()).sum();
            total += bytes + headers + RECORD_BYTES;
        }
        Ok(total)
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BrokerError> {
        // A batch that is larger than all the room waits until it is alone.
        let bytes = bytes.min(ROOM_BYTES) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        match timeout(ACKED_WITHIN, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(BrokerError::Unavailable(
                "too much waits to be written".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn enqueue(&self, batch: Vec<Outgoing>) -> Result<Acks, BrokerError> {
        if batch.is_empty() {
            return Ok(Box::pin(async { Ok(Vec::new()) }));
        }
        let room = self.room(self.check(&batch).await?).await?;
        let native = self.native()?;
        let (first, answer) = native.context().expect(batch.len(), room);
        // With no await in between, batches cannot mix.
        let mut refused = None;
        for (id, outgoing) in (first..).zip(&batch) {
            if refused.is_none() {
                refused = hand_over(&native, id, outgoing).err();
            }
            if let Some(error) = &refused {
                let error = failed_for(&outgoing.topic, error);
                native.context().settle(id, Err(error));
            }
        }
        Ok(Box::pin(async move {
            let closed = || BrokerError::Unavailable("the producer was closed".to_owned());
            answer.await.map_err(|_| closed())?
        }))
    }
}

impl Drop for KafkaProducer {
    /// What was handed over is still sent, by a thread of its own: waiting here would hold up a
    /// thread that others need.
    fn drop(&mut self) {
        let native = lock(&self.native).clone();
        let flush = move || {
            if let Err(error) = native.flush(ACKED_WITHIN) {
                warn!(%error, "not everything was written");
            }
        };
        let thread = thread::Builder::new().name("kafka-flush".to_owned());
        if let Err(error) = thread.spawn(flush) {
            warn!(%error, "not everything was written");
        }
    }
}

fn make(cluster: &Cluster) -> Result<Native, BrokerError> {
    let deliveries = Deliveries::new(cluster.trips.produce.clone());
    Native::from_config_and_context(&cluster.settings.producer(), deliveries)
        .map_err(|error| failed("cannot make a producer", &error))
}

fn hand_over(native: &Native, id: usize, outgoing: &Outgoing) -> Result<(), KafkaError> {
    let mut record: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(&outgoing.topic, id).payload(&outgoing.value);
    record.key = outgoing.key.as_deref();
    if !outgoing.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(outgoing.headers.len());
        let headers = outgoing.headers.iter().fold(empty, |headers, header| {
            headers.insert(KafkaHeader {
                key: &header.name,
                value: Some(&header.value[..]),
            })
        });
        record = record.headers(headers);
    }
    native.send(record).map_err(|(error, _)| error)
}

/// Where delivery reports are gathered. Records are numbered; those of a batch in a row.
struct Deliveries {
    waiting: Mutex<Waiting>,
    broken: AtomicBool,
    acks: Operation,
}

#[derive(Default)]
struct Waiting {
    next: usize,
    /// By the number of their first record.
    batches: BTreeMap<usize, Batch>,
}

struct Batch {
    positions: Vec<Position>,
    left: usize,
    failure: Option<BrokerError>,
    since: Instant,
    acked: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

impl Deliveries {
    fn new(acks: Operation) -> Self {
        Self {
            waiting: Mutex::default(),
            broken: AtomicBool::new(false),
            acks,
        }
    }

    /// Numbers for the records of a batch, from the first on, and what resolves when all are
    /// settled.
    fn expect(
        &self,
        count: usize,
        room: OwnedSemaphorePermit,
    ) -> (usize, oneshot::Receiver<Answer>) {
        let (acked, answer) = oneshot::channel();
        let unknown = Position {
            partition: -1,
            offset: -1,
        };
        let batch = Batch {
            positions: vec![unknown; count],
            left: count,
            failure: None,
            since: Instant::now(),
            acked,
            _room: room,
        };
        let mut waiting = lock(&self.waiting);
        let first = waiting.next;
        waiting.next += count;
        waiting.batches.insert(first, batch);
        (first, answer)
    }

    fn settle(&self, id: usize, delivered: Result<Position, BrokerError>) {
        let mut waiting = lock(&self.waiting);
        let Some((&first, batch)) = waiting.batches.range_mut(..=id).next_back() else {
            return;
        };
        match delivered {
            Ok(position) => batch.positions[id - first] = position,
            // The first failure is the cause, the rest follows from it.
            Err(error) => _ = batch.failure.get_or_insert(error),
        }
        batch.left -= 1;
        if batch.left > 0 {
            return;
        }
        if let Some(batch) = waiting.batches.remove(&first) {
            drop(waiting);
            self.acks.took(batch.since, batch.failure.is_none());
            let answer = batch.failure.map_or(Ok(batch.positions), Err);
            let _ = batch.acked.send(answer);
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        errors::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        errors::reported("producer", &error, reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.broken.store(true, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        let delivered = match result {
            Ok(message) => Ok(Position {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, message)) => Err(self.refused(error, message)),
        };
        self.settle(id, delivered);
    }
}

impl Deliveries {
    fn refused(&self, error: &KafkaError, message: &impl Message) -> BrokerError {
        let topic = message.topic();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => BrokerError::TooLarge {
                topic: topic.to_owned(),
                bytes: message.key().map_or(0, <[u8]>::len)
                    + message.payload().map_or(0, <[u8]>::len),
            },
            Some(RDKafkaErrorCode::Fatal) => {
                self.broken.store(true, Ordering::Relaxed);
                failed(topic, error)
            }
            _ => failed_for(topic, error),
        }
    }
}
