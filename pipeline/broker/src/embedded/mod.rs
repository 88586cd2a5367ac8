//! The embedded broker: an append-only log and its consumer groups in one SQLite file, for one
//! process.
//!
//! One thread writes ([`writer`]): whatever waits when it is free goes into one transaction, so
//! that a sync of the disk is shared by many. Consumers ([`consumer`]) read what was appended
//! lately from memory and the rest from the file.
//!
//! A group has one member at a time, and all partitions are its own.

mod consumer;
mod file;
mod writer;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use herald_telemetry::{Operation, RoundTrips};
use prometheus::core::Collector;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};

use self::{
    consumer::EmbeddedConsumer,
    writer::{Acked, Job},
};
use crate::{
    Acks, Broker, BrokerError, Consumer, Header, Offsets, Outgoing, Partition, Producer, Record,
    Subscription, TopicSpec, round_trips,
};

/// How much may wait for the writer.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// How much of the newest records of a partition is kept in memory.
const TAIL_BYTES: usize = 1024 * 1024;
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// The log in a directory.
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the broker, its producers and its consumers have in common.
struct Shared {
    file: PathBuf,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
    /// Groups that have a member.
    members: Mutex<HashSet<String>>,
    committed: Mutex<Committed>,
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    trips: Trips,
    /// Counts appends, to wake those who wait for one.
    appended: watch::Sender<u64>,
    /// Keeps other processes out for as long as anybody uses the log.
    _lock: File,
}

/// What is timed: where a disk is waited for.
struct Trips {
    all: RoundTrips,
    produce: Operation,
    /// What is not in memory any more.
    read: Operation,
    ping: Operation,
}

impl Trips {
    fn new() -> Result<Self, BrokerError> {
        let all = round_trips()?;
        Ok(Self {
            produce: all.operation("produce"),
            read: all.operation("read"),
            ping: all.operation("metadata"),
            all,
        })
    }
}

#[derive(Clone)]
struct Topic {
    partitions: Vec<Arc<Log>>,
    retention: Option<Duration>,
    max_record_bytes: usize,
}

/// The offsets of groups: in memory at once, in the file with the writer's next transaction.
#[derive(Default)]
struct Committed {
    offsets: HashMap<(String, Partition), i64>,
    unsaved: HashSet<(String, Partition)>,
}

/// A partition.
struct Log {
    /// Its number in the file.
    id: i64,
    partition: Partition,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    /// The oldest offset there is.
    start: i64,
    /// The offset of the next record.
    end: i64,
    /// The newest records; the last one is at `end - 1`.
    tail: VecDeque<Record>,
    tail_bytes: usize,
}

impl LogState {
    fn append(&mut self, records: impl Iterator<Item = Record>) {
        for record in records {
            self.end = record.offset + 1;
            self.tail_bytes += size(&record);
            self.tail.push_back(record);
        }
        while self.tail_bytes > TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= size(&oldest);
        }
    }
}

fn size(record: &Record) -> usize {
    in_memory(record.key.as_ref(), &record.value, &record.headers)
}

fn in_memory(key: Option<&Bytes>, value: &Bytes, headers: &[Header]) -> usize {
    let headers: usize = headers
        .iter()
        .map(|h| h.name.len() + h.value.len() + 64)
        .sum();
    value.len() + key.map_or(0, Bytes::len) + headers + 128
}

/// What is behind a lock here is whole after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedBroker {
    /// Opens the log in `directory`, making it when it is not there. One process at a time.
    pub fn open(directory: &Path) -> Result<Arc<Self>, BrokerError> {
        let failed = |what: &str, error: std::io::Error| {
            BrokerError::Fatal(format!("{what} {}: {error}", directory.display()))
        };
        fs::create_dir_all(directory).map_err(|error| failed("cannot create", error))?;
        let lock = File::create(directory.join("lock"))
            .map_err(|error| failed("cannot write to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BrokerError::Held(format!(
                    "{} is in use by another herald process: stop it, or choose another directory",
                    directory.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock", error)),
        }
        let file = directory.join("log.db");
        let connection = file::open(&file)?;
        let topics = file::load_topics(&connection)?;
        let offsets = file::load_offsets(&connection)?;
        let (jobs, waiting) = mpsc::channel();
        let shared = Arc::new(Shared {
            file,
            topics: Mutex::new(topics),
            members: Mutex::default(),
            committed: Mutex::new(Committed {
                offsets,
                unsaved: HashSet::new(),
            }),
            jobs,
            room: Arc::new(Semaphore::new(ROOM_BYTES)),
            trips: Trips::new()?,
            appended: watch::Sender::new(0),
            _lock: lock,
        });
        let writer = writer::start(connection, waiting, Arc::clone(&shared))?;
        Ok(Arc::new(Self {
            shared,
            writer: Mutex::new(Some(writer)),
        }))
    }
}

impl EmbeddedBroker {
    /// How long the log takes to answer, for the registry that shows it.
    pub fn round_trips(&self) -> Box<dyn Collector> {
        self.shared.trips.all.collector()
    }

    /// Deletes a bounded piece of what is older than its topic keeps. The broker does so by
    /// itself every few seconds.
    pub async fn delete_expired(&self) -> Result<(), BrokerError> {
        let (done, wait) = oneshot::channel();
        self.shared
            .jobs
            .send(Job::Clean { done })
            .map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // The writer saves the offsets first; if it is gone already, so is what it would save.
        let _ = self.shared.jobs.send(Job::Stop);
        if let Some(writer) = lock(&self.writer).take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn topic(&self, name: &str) -> Result<Topic, BrokerError> {
        let topics = lock(&self.topics);
        topics
            .get(name)
            .cloned()
            .ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))
    }

    fn log(&self, partition: &Partition) -> Result<Arc<Log>, BrokerError> {
        let topic = self.topic(&partition.topic)?;
        let log = usize::try_from(partition.index)
            .ok()
            .and_then(|i| topic.partitions.get(i));
        log.cloned()
            .ok_or_else(|| BrokerError::UnknownTopic(partition.to_string()))
    }
}

fn stopped() -> BrokerError {
    BrokerError::Unavailable("the embedded broker has stopped".to_owned())
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn setup(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        let (done, wait) = oneshot::channel();
        let job = Job::Setup {
            topics: topics.to_vec(),
            done,
        };
        self.shared.jobs.send(job).map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>, BrokerError> {
        Ok(Arc::new(EmbeddedProducer {
            shared: Arc::clone(&self.shared),
        }))
    }

    async fn subscribe(&self, what: Subscription) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(EmbeddedConsumer::new(
            Arc::clone(&self.shared),
            what,
        )?))
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        Ok(self.shared.topic(topic)?.partitions.len() as i32)
    }

    async fn end_offsets(&self, partitions: &[Partition]) -> Result<Offsets, BrokerError> {
        let end = |partition: &Partition| {
            Ok((
                partition.clone(),
                lock(&self.shared.log(partition)?.state).end,
            ))
        };
        partitions.iter().map(end).collect()
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Offsets, BrokerError> {
        let committed = lock(&self.shared.committed);
        let offset = |partition: &Partition| {
            let key = (group.to_owned(), partition.clone());
            Some((partition.clone(), *committed.offsets.get(&key)?))
        };
        Ok(partitions.iter().filter_map(offset).collect())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let (done, wait) = oneshot::channel();
        self.shared
            .jobs
            .send(Job::Ping { done })
            .map_err(|_| stopped())?;
        let answer = async {
            match timeout(PING_DEADLINE, wait).await {
                Ok(answer) => answer.map_err(|_| stopped()),
                Err(_) => Err(BrokerError::Unavailable("the disk is slow".to_owned())),
            }
        };
        self.shared.trips.ping.time(answer).await
    }
}

struct EmbeddedProducer {
    shared: Arc<Shared>,
}

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn enqueue(&self, batch: Vec<Outgoing>) -> Result<Acks, BrokerError> {
        if batch.is_empty() {
            return Ok(Box::pin(async { Ok(Vec::new()) }));
        }
        let mut placed = Vec::with_capacity(batch.len());
        let mut room = 0;
        for outgoing in batch {
            let topic = self.shared.topic(&outgoing.topic)?;
            let bytes = outgoing.bytes();
            if bytes > topic.max_record_bytes {
                let topic = outgoing.topic.to_string();
                return Err(BrokerError::TooLarge { topic, bytes });
            }
            room += in_memory(outgoing.key.as_ref(), &outgoing.value, &outgoing.headers);
            let count = topic.partitions.len();
            let index = match &outgoing.key {
                Some(key) => herald_schemas::ids::partition_of(key, count as u32) as usize,
                None => placed.len() % count,
            };
            placed.push((Arc::clone(&topic.partitions[index]), outgoing));
        }
        // A batch that is larger than all the room waits until it is alone.
        let room = Arc::clone(&self.shared.room)
            .acquire_many_owned(room.min(ROOM_BYTES) as u32)
            .await
            .map_err(|_| stopped())?;
        let (acked, wait) = Acked::new(&self.shared.trips.produce);
        let job = Job::Append {
            records: placed,
            acked,
            _room: room,
        };
        self.shared.jobs.send(job).map_err(|_| stopped())?;
        Ok(Box::pin(async move { wait.await.map_err(|_| stopped())? }))
    }
}
