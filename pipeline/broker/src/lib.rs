//! The Broker seam: what the pipeline asks of its log.
//!
//! Two implementations: [`kafka`], for more than one machine, and [`embedded`], an append-only log
//! and its consumer groups in SQLite, for one process. Nothing above this crate knows which one it
//! runs on, and one contract suite (`tests/contract`) runs against both.
//!
//! What holds for both:
//!
//! * Records of one partition are read in the order of their offsets; offsets only grow, and may
//!   have gaps.
//! * A record whose acks were awaited survives the death of any one process.
//! * A partition belongs to one member of a group at a time. What happens to a member's
//!   assignment reaches it as a [`Turn`], in order with the records.
//! * After a restart, a group goes on at its committed offsets; what was read and not committed
//!   comes again.

pub mod embedded;
pub mod kafka;
mod types;

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use herald_telemetry::RoundTrips;

pub use types::{
    Header, Offsets, Outgoing, Partition, Position, Record, Revocation, Start, Subscription,
    TopicSpec, Turn,
};

/// What can go wrong with the log itself. Never a verdict about a record, but for
/// [`BrokerError::TooLarge`].
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker is away or slow; the same call may go through later.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// A record is larger than its topic takes.
    #[error("record for {topic} of {bytes} bytes is larger than its topic takes")]
    TooLarge {
        /// The topic it was meant for.
        topic: String,
        /// Its size.
        bytes: usize,
    },
    /// There is no such topic; `herald setup` makes them.
    #[error("topic {0} does not exist: run `herald setup`")]
    UnknownTopic(String),
    /// A topic is there, but not as it must be.
    #[error("topic {topic}: {what}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        what: String,
    },
    /// Another process holds the embedded log.
    #[error("{0}")]
    Held(String),
    /// Wrong settings, a broken file: trying again will not help.
    #[error("broker: {0}")]
    Fatal(String),
}

/// How long the broker takes, empty. Both implementations time what they wait for: a batch from
/// when it is handed over until the last of its records is acked, and each question.
fn round_trips() -> Result<RoundTrips, BrokerError> {
    RoundTrips::new(
        "herald_broker_round_trip_seconds",
        "How long the broker took to ack a batch, or to answer a question.",
    )
    .map_err(|error| BrokerError::Fatal(error.to_string()))
}

/// The positions of a batch, in its order, once every record of it is acked.
pub type Acks = Pin<Box<dyn Future<Output = Result<Vec<Position>, BrokerError>> + Send>>;

/// How many records of each assigned partition were not read when it was asked.
pub type Lag = Pin<Box<dyn Future<Output = Result<Vec<(Partition, i64)>, BrokerError>> + Send>>;

/// A log: topics, groups, producers and consumers.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Creates the topics that are missing and checks the others. Safe to run from several places
    /// at once. A topic that exists with another number of partitions than asked for is an error
    /// where [`TopicSpec::fixed_partitions`] says so.
    async fn setup(&self, topics: &[TopicSpec]) -> Result<(), BrokerError>;

    /// A producer; cheap to share, and one a process is enough.
    async fn producer(&self) -> Result<Arc<dyn Producer>, BrokerError>;

    /// Joins a group, or reads a topic whole.
    async fn subscribe(&self, what: Subscription) -> Result<Box<dyn Consumer>, BrokerError>;

    /// How many partitions a topic has.
    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError>;

    /// The offset that the next record of each partition will get, for every one asked for.
    async fn end_offsets(&self, partitions: &[Partition]) -> Result<Offsets, BrokerError>;

    /// Where the group would go on. A partition it never committed is left out.
    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Offsets, BrokerError>;

    /// Whether the broker answers, within 2 s.
    async fn ping(&self) -> Result<(), BrokerError>;
}

/// Writes records.
#[async_trait]
pub trait Producer: Send + Sync + 'static {
    /// Hands a batch over, in order, waiting while the queue is full. Batches enqueued one after
    /// the other reach a partition in that order. What it returns resolves when every record is
    /// acked by the broker; dropping it takes nothing back. On an error some records may have been
    /// written: the caller sends the batch again, or lets its source come again.
    async fn enqueue(&self, batch: Vec<Outgoing>) -> Result<Acks, BrokerError>;

    /// Hands a batch over and waits for its acks.
    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Position>, BrokerError> {
        self.enqueue(batch).await?.await
    }
}

/// Reads records, as the member of a group or alone. One task owns it.
#[async_trait]
pub trait Consumer: Send {
    /// What comes next, waiting `wait` at most. To be called again and again: a member that does
    /// not call it for minutes loses its partitions. Dropping the future before it is ready loses
    /// nothing: what it would have said is said by the next call.
    async fn next(&mut self, wait: Duration) -> Result<Turn, BrokerError>;

    /// Notes that everything before these offsets is done. They reach the broker soon, and at the
    /// latest before their partition is let go or the consumer closed. What is not assigned, or not
    /// further than what was noted, changes nothing.
    fn commit(&mut self, frontier: &Offsets);

    /// No records of these partitions from the next call of [`Consumer::next`] on. An assignment
    /// starts with nothing paused.
    fn pause(&mut self, partitions: &[Partition]);

    /// Records of these partitions again, where the last one read left off.
    fn resume(&mut self, partitions: &[Partition]);

    /// The next record of each partition is the one at this offset.
    async fn seek(&mut self, to: &Offsets) -> Result<(), BrokerError>;

    /// How many records of each assigned partition were not read yet. The answer may take a while,
    /// in which one can read on.
    fn lag(&self) -> Lag;

    /// Commits what was noted and leaves the group, within 5 s.
    async fn close(self: Box<Self>);
}
