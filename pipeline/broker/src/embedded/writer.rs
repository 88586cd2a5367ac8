//! The one thread that writes: whatever waits when it is free becomes one transaction.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use herald_telemetry::Operation;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{debug, error, warn};

use super::{Log, Shared, file, lock};
use crate::{BrokerError, Outgoing, Position, Record, TopicSpec};

/// How many records a transaction holds at the most, so that its first ones are not acked late.
const TRANSACTION_RECORDS: usize = 4_000;
/// How long offsets may stay unsaved, and how long after a failure it is tried again.
const OFFSETS_EVERY: Duration = Duration::from_millis(20);
const OFFSETS_AGAIN: Duration = Duration::from_millis(500);
/// How often old records are looked for, and how many of a partition go at once.
const CLEAN_EVERY: Duration = Duration::from_secs(10);
const CLEAN_RECORDS: usize = 10_000;
/// How soon the next piece goes where there is more.
const CLEAN_AGAIN: Duration = Duration::from_millis(500);
const CLEAN_PAGES: u32 = 4_000;

type Answer = Result<Vec<Position>, BrokerError>;

/// Whom to tell that a batch is written, and since when that is waited for.
pub(super) struct Acked {
    tell: oneshot::Sender<Answer>,
    since: Instant,
    acks: Operation,
}

impl Acked {
    pub(super) fn new(acks: &Operation) -> (Self, oneshot::Receiver<Answer>) {
        let (tell, answer) = oneshot::channel();
        let acked = Self {
            tell,
            since: Instant::now(),
            acks: acks.clone(),
        };
        (acked, answer)
    }

    fn send(self, answer: Answer) {
        self.acks.took(self.since, answer.is_ok());
        // Nobody waiting for it is no concern of the writer's.
        let _ = self.tell.send(answer);
    }
}

/// A batch to append: its records, whom to tell, and its place in the queue.
type Batch = (Vec<(Arc<Log>, Outgoing)>, Acked, OwnedSemaphorePermit);

/// What the writer is asked to do.
pub(super) enum Job {
    Append {
        records: Vec<(Arc<Log>, Outgoing)>,
        acked: Acked,
        _room: OwnedSemaphorePermit,
    },
    Setup {
        topics: Vec<TopicSpec>,
        done: oneshot::Sender<Result<(), BrokerError>>,
    },
    /// Looks for old records now.
    Clean {
        done: oneshot::Sender<Result<(), BrokerError>>,
    },
    Ping {
        done: oneshot::Sender<()>,
    },
    Stop,
}

pub(super) fn start(
    connection: Connection,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
) -> Result<JoinHandle<()>, BrokerError> {
    let writer = Writer {
        connection,
        shared,
        clean_at: Instant::now() + CLEAN_EVERY,
    };
    thread::Builder::new()
        .name("embedded-log".to_owned())
        .spawn(move || writer.run(&jobs))
        .map_err(|error| BrokerError::Fatal(format!("cannot start the log's thread: {error}")))
}

struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    /// When old records are looked for next.
    clean_at: Instant,
}

/// Appends that are written and wait for their transaction.
#[derive(Default)]
struct Pending {
    batches: Vec<(Vec<Position>, Acked, OwnedSemaphorePermit)>,
    /// What consumers will see, by the partition's number in the file.
    records: HashMap<i64, (Arc<Log>, Vec<Record>)>,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut wait = OFFSETS_EVERY;
        loop {
            match jobs.recv_timeout(wait) {
                Ok(Job::Append {
                    records,
                    acked,
                    _room,
                }) => {
                    let mut waiting = vec![(records, acked, _room)];
                    let other = gather(jobs, &mut waiting);
                    self.append(waiting);
                    match other {
                        Some(Job::Stop) => break,
                        Some(job) => self.other(job),
                        None => {}
                    }
                }
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(job) => self.other(job),
                Err(RecvTimeoutError::Timeout) => wait = self.save_offsets(),
            }
            if Instant::now() >= self.clean_at
                && let Err(error) = self.clean()
            {
                warn!(%error, "old records not deleted");
            }
        }
        self.save_offsets();
    }

    fn other(&mut self, job: Job) {
        match job {
            Job::Setup { topics, done } => {
                let _ = done.send(self.setup(&topics));
            }
            Job::Clean { done } => {
                let _ = done.send(self.clean().map_err(BrokerError::from));
            }
            Job::Ping { done } => {
                let _ = done.send(());
            }
            Job::Append { .. } | Job::Stop => {}
        }
    }

    /// Writes batches in one transaction; acks them, or fails them all.
    fn append(&mut self, waiting: Vec<Batch>) {
        let mut pending = Pending::default();
        match self.write(waiting, &mut pending) {
            Ok(()) => {
                for (log, records) in pending.records.into_values() {
                    lock(&log.state).append(records.into_iter());
                }
                self.shared.appended.send_modify(|count| *count += 1);
                for (positions, acked, _room) in pending.batches {
                    acked.send(Ok(positions));
                }
            }
            Err(error) => {
                error!(%error, "records not written");
                for (_, acked, _room) in pending.batches {
                    acked.send(Err(BrokerError::Unavailable(format!(
                        "embedded log: {error}"
                    ))));
                }
            }
        }
    }

    fn write(&mut self, waiting: Vec<Batch>, pending: &mut Pending) -> rusqlite::Result<()> {
        let written_ms = now_ms();
        let transaction = self.connection.transaction();
        let mut failure = None;
        for (records, acked, room) in waiting {
            let mut positions = Vec::with_capacity(records.len());
            for (log, outgoing) in records {
                let offset = pending.offset(&log);
                positions.push(Position {
                    partition: log.partition.index,
                    offset,
                });
                if let (Ok(transaction), None) = (&transaction, &failure) {
                    let written = file::append(transaction, log.id, offset, written_ms, &outgoing);
                    failure = written.err();
                }
                pending.push(log, outgoing, offset, written_ms);
            }
            // Kept although something failed: it has to be told.
            pending.batches.push((positions, acked, room));
        }
        let transaction = transaction?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let saved = save_unsaved(&transaction, &self.shared)?;
        transaction.commit()?;
        saved.done(&self.shared);
        Ok(())
    }

    /// Answers when to do so again.
    fn save_offsets(&mut self) -> Duration {
        if lock(&self.shared.committed).unsaved.is_empty() {
            return OFFSETS_EVERY;
        }
        match self.write(Vec::new(), &mut Pending::default()) {
            Ok(()) => OFFSETS_EVERY,
            Err(error) => {
                warn!(%error, "offsets not saved; trying again");
                OFFSETS_AGAIN
            }
        }
    }

    fn setup(&mut self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        let transaction = self.connection.transaction()?;
        for spec in topics {
            file::setup_topic(&transaction, spec)?;
        }
        transaction.commit()?;
        let mut known = lock(&self.shared.topics);
        for (name, mut topic) in file::load_topics(&self.connection)? {
            // Those in use stay the ones in use: others hold on to them.
            if let Some(known) = known.get(&name) {
                let fresh = topic.partitions.split_off(known.partitions.len());
                topic.partitions = known.partitions.iter().cloned().chain(fresh).collect();
            }
            known.insert(name, topic);
        }
        Ok(())
    }

    /// Deletes what is older than its topic keeps, a bounded piece at a time.
    fn clean(&mut self) -> rusqlite::Result<()> {
        let topics: Vec<_> = lock(&self.shared.topics).values().cloned().collect();
        let now = now_ms();
        let mut deleted = false;
        self.clean_at = Instant::now() + CLEAN_EVERY;
        for topic in topics {
            for log in &topic.partitions {
                let Some(retention) = topic.retention else {
                    file::compact(&self.connection, log)?;
                    continue;
                };
                let before = now - retention.as_millis() as i64;
                if let Some(start) = file::delete_old(&self.connection, log, before, CLEAN_RECORDS)?
                {
                    deleted = true;
                    let mut state = lock(&log.state);
                    if start - state.start >= CLEAN_RECORDS as i64 {
                        self.clean_at = Instant::now() + CLEAN_AGAIN;
                    }
                    state.start = start;
                    while state
                        .tail
                        .front()
                        .is_some_and(|record| record.offset < start)
                    {
                        if let Some(oldest) = state.tail.pop_front() {
                            state.tail_bytes -= super::size(&oldest);
                        }
                    }
                    debug!(partition = %log.partition, start, "old records deleted");
                }
            }
        }
        if deleted {
            file::shrink(&self.connection, CLEAN_PAGES)?;
        }
        Ok(())
    }
}

impl Pending {
    fn offset(&self, log: &Arc<Log>) -> i64 {
        match self
            .records
            .get(&log.id)
            .and_then(|(_, records)| records.last())
        {
            Some(last) => last.offset + 1,
            None => lock(&log.state).end,
        }
    }

    fn push(&mut self, log: Arc<Log>, outgoing: Outgoing, offset: i64, timestamp: i64) {
        let record = Record {
            partition: log.partition.clone(),
            offset,
            key: outgoing.key,
            value: outgoing.value,
            headers: outgoing.headers,
            timestamp,
        };
        let (_, records) = self
            .records
            .entry(log.id)
            .or_insert_with(|| (log, Vec::new()));
        records.push(record);
    }
}

/// Takes what else waits, up to a transaction's worth, and the first job that is no append.
fn gather(jobs: &Receiver<Job>, waiting: &mut Vec<Batch>) -> Option<Job> {
    let mut records: usize = waiting.iter().map(|(records, ..)| records.len()).sum();
    while records < TRANSACTION_RECORDS {
        match jobs.try_recv() {
            Ok(Job::Append {
                records: more,
                acked,
                _room,
            }) => {
                records += more.len();
                waiting.push((more, acked, _room));
            }
            Ok(other) => return Some(other),
            Err(_) => break,
        }
    }
    None
}

/// Offsets that are in a transaction.
struct Saved(Vec<((String, crate::Partition), i64)>);

impl Saved {
    /// The transaction is committed: what did not change meanwhile is saved.
    fn done(self, shared: &Shared) {
        let mut committed = lock(&shared.committed);
        for (key, offset) in self.0 {
            if committed.offsets.get(&key) == Some(&offset) {
                committed.unsaved.remove(&key);
            }
        }
    }
}

fn save_unsaved(connection: &Connection, shared: &Shared) -> rusqlite::Result<Saved> {
    let unsaved: Vec<_> = {
        let committed = lock(&shared.committed);
        let offset =
            |key: &(String, crate::Partition)| Some((key.clone(), *committed.offsets.get(key)?));
        committed.unsaved.iter().filter_map(offset).collect()
    };
    for ((group, partition), offset) in &unsaved {
        if let Ok(log) = shared.log(partition) {
            file::save_offset(connection, group, log.id, *offset)?;
        }
    }
    Ok(Saved(unsaved))
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
