//! What goes over the Broker seam.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// From 0.
    pub index: i32,
}

impl Partition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<Arc<str>>, index: i32) -> Self {
        Self {
            topic: topic.into(),
            index,
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

/// For each partition the offset of the next record: one past the last that is done.
pub type Offsets = HashMap<Partition, i64>;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition of its topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// A named piece of bytes beside a record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its bytes.
    pub value: Bytes,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub partition: Partition,
    /// See `partition`.
    pub offset: i64,
    /// What its partition was chosen by.
    pub key: Option<Bytes>,
    /// Its bytes. A record without a value reads as an empty one.
    pub value: Bytes,
    /// In the order they were written.
    pub headers: Vec<Header>,
    /// Unix milliseconds: when it was produced.
    pub timestamp: i64,
}

impl Record {
    /// The last header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self
            .headers
            .iter()
            .rev()
            .find(|header| header.name == name)?;
        std::str::from_utf8(&header.value).ok()
    }
}

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: Arc<str>,
    /// Decides the partition, as Kafka's Java client does (murmur2); without one, any.
    pub key: Option<Bytes>,
    /// Its bytes.
    pub value: Bytes,
    /// In order.
    pub headers: Vec<Header>,
}

impl Outgoing {
    /// What [`TopicSpec::max_record_bytes`] is about: the bytes of its value and its key.
    pub fn bytes(&self) -> usize {
        self.value.len() + self.key.as_ref().map_or(0, Bytes::len)
    }
}

/// A topic as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it is made with.
    pub partitions: i32,
    /// Whether an existing topic must have exactly that many.
    pub fixed_partitions: bool,
    /// How long its records are kept; none: only the newest of each key is kept, for ever.
    pub retention: Option<Duration>,
    /// The largest record it takes.
    pub max_record_bytes: usize,
}

/// Where a group that never committed starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// After the newest record.
    Latest,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The group to join. Without one, this consumer reads every partition from `start` and
    /// commits nothing.
    pub group: Option<String>,
    /// The topics.
    pub topics: Vec<String>,
    /// Where to start when nothing was committed.
    pub start: Start,
    /// How many records a [`Turn::Records`] holds at the most.
    pub max_batch: usize,
}

/// What a consumer is told, in the order in which it happened.
#[derive(Debug)]
pub enum Turn {
    /// Records, possibly of several partitions; in order within each. Never empty.
    Records(Vec<Record>),
    /// These partitions are now this member's. Nothing of them is paused.
    Assigned(Vec<Partition>),
    /// These partitions are about to go. Finish what is in hand, commit, and drop it.
    Revoking(Revocation),
    /// Nothing happened within the wait.
    Idle,
}

/// Partitions that are about to go to another member. Dropping it lets them go; after its
/// deadline they go anyway.
#[derive(Debug)]
pub struct Revocation {
    partitions: Vec<Partition>,
    lost: bool,
    deadline: Duration,
    _released: oneshot::Sender<()>,
}

impl Revocation {
    /// A revocation, and what resolves (with an error) when it is dropped.
    pub fn new(
        partitions: Vec<Partition>,
        lost: bool,
        deadline: Duration,
    ) -> (Self, oneshot::Receiver<()>) {
        let (released, dropped) = oneshot::channel();
        (
            Self {
                partitions,
                lost,
                deadline,
                _released: released,
            },
            dropped,
        )
    }

    /// The partitions.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Whether they are already another's, so that nothing can be committed any more.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// How long there is from when it was handed out.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}
