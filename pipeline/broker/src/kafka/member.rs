//! The half of a consumer that speaks for the member of the group: a thread of its own.
//!
//! It polls librdkafka's main queue, so that a rebalance is answered while the program works on
//! something else. It sees no records: before partitions are assigned, each gets a
//! queue of its own, which goes to the other half. So a program that is slow leaves its records
//! where they are, and librdkafka stops fetching by itself; nothing has to be paused for that.
//!
//! librdkafka waits with a rebalance until it is told `assign` or `unassign`. Its callback only
//! notes what happens; the thread tells it later, once the program has let the partitions go, and
//! polls all the while.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, base_consumer::PartitionQueue},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::warn;

use super::{
    cluster::list,
    committer::Committer,
    errors::{self, failed},
    lock,
    notes::Notes,
    settings::POLL_WITHIN,
};
use crate::{BrokerError, Partition, Revocation};

/// How long partitions that are asked back may take. The whole group waits for the slowest.
const REVOKED_WITHIN: Duration = Duration::from_secs(20);
/// How much longer they may really take: the program counts from when it hears of it.
const REVOKED_GRACE: Duration = Duration::from_secs(5);
/// How soon the end is noticed.
const TICK: Duration = Duration::from_millis(50);
/// The same while the program lets partitions go.
const TICK_REVOKING: Duration = Duration::from_millis(5);

pub(super) type Native = BaseConsumer<Context>;
pub(super) type Queue = PartitionQueue<Context>;

/// A partition that was assigned, with the queue of its records.
pub(super) struct Assigned {
    pub(super) partition: Partition,
    pub(super) queue: Queue,
    /// The first record that will come, where that is known.
    pub(super) from: Option<i64>,
}

/// What the other half is told.
pub(super) enum Event {
    Assigned {
        assignment: u64,
        partitions: Vec<Assigned>,
    },
    Revoking(Revocation),
    Failed(BrokerError),
}

/// What both halves see.
pub(super) struct Link {
    pub(super) notes: Mutex<Notes>,
    /// Told when an empty queue gets records.
    pub(super) arrived: Notify,
    /// Until when the program counts as listening.
    listening: Mutex<Instant>,
    leaving: AtomicBool,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            notes: Mutex::default(),
            arrived: Notify::new(),
            listening: Mutex::new(Instant::now() + POLL_WITHIN),
            leaving: AtomicBool::new(false),
        }
    }

    /// The program listens, and will for so long.
    pub(super) fn listens(&self, wait: Duration) {
        *lock(&self.listening) = Instant::now() + wait + POLL_WITHIN;
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}

/// What librdkafka calls back: it is noted, and done by the thread.
pub(super) struct Context {
    link: Arc<Link>,
    changes: Mutex<VecDeque<Change>>,
}

enum Change {
    Assign(Vec<Partition>),
    Revoke {
        partitions: Vec<Partition>,
        lost: bool,
    },
}

impl Context {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            changes: Mutex::default(),
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        errors::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        errors::reported("consumer", &error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.link.is_leaving() {
            // Nobody is left to do it later.
            unassign(consumer);
            return;
        }
        let partitions = partitions_of(list);
        let change = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Change::Assign(partitions)
        } else {
            let lost = consumer.assignment_lost();
            Change::Revoke { partitions, lost }
        };
        lock(&self.changes).push_back(change);
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<Partition> {
    let elements = list.elements();
    let partitions = elements.iter();
    partitions
        .map(|element| Partition::new(element.topic(), element.partition()))
        .collect()
}

fn unassign(consumer: &Native) {
    if let Err(error) = consumer.unassign() {
        warn!(%error, "partitions not let go");
    }
}

/// Queues for partitions. To be made before the partitions are assigned: librdkafka then leaves
/// them alone, and no record goes past them.
pub(super) fn queues(
    consumer: &Arc<Native>,
    partitions: impl Iterator<Item = (Partition, Option<i64>)>,
) -> Result<Vec<Assigned>, BrokerError> {
    partitions
        .map(|(partition, from)| {
            let queue = consumer
                .split_partition_queue(&partition.topic, partition.index)
                .ok_or_else(|| BrokerError::UnknownTopic(partition.topic.to_string()))?;
            Ok(Assigned {
                partition,
                queue,
                from,
            })
        })
        .collect()
}

/// The thread's own.
pub(super) struct Member {
    pub(super) consumer: Arc<Native>,
    pub(super) link: Arc<Link>,
    pub(super) events: mpsc::Sender<Event>,
    /// Dropped when the thread has ended.
    pub(super) ended: oneshot::Sender<()>,
    pub(super) committer: Option<Arc<Committer>>,
}

impl Member {
    pub(super) fn start(self) -> Result<(), BrokerError> {
        let commits = self.committer.as_ref().map(Committer::start).transpose()?;
        let thread = thread::Builder::new().name("kafka-member".to_owned());
        let started = thread.spawn(move || self.run(commits));
        started.map_err(|error| BrokerError::Fatal(format!("cannot start a thread: {error}")))?;
        Ok(())
    }

    fn run(self, commits: Option<JoinHandle<()>>) {
        while !self.link.is_leaving() {
            if !self.is_heard() {
                // Nobody should speak for a program that hangs: after a while without a poll,
                // librdkafka leaves the group by itself.
                thread::sleep(TICK);
                continue;
            }
            self.poll(TICK);
            let change = lock(&self.consumer.context().changes).pop_front();
            match change {
                Some(Change::Assign(partitions)) => self.assign(partitions),
                Some(Change::Revoke { partitions, lost }) => self.revoke(partitions, lost),
                None => {}
            }
        }
        self.leave(commits);
    }

    /// Whether the program still asks for what comes next, and has taken what came.
    fn is_heard(&self) -> bool {
        *lock(&self.link.listening) > Instant::now() && self.events.capacity() > 0
    }

    fn poll(&self, wait: Duration) {
        match self.consumer.poll(wait) {
            None => {}
            Some(Err(error)) => self.report(&error),
            // It cannot be put back: to start over is what loses nothing.
            Some(Ok(_)) => self.tell(Event::Failed(BrokerError::Unavailable(
                "a record came past its queue".to_owned(),
            ))),
        }
    }

    /// Connections come and go, and librdkafka sees to them. Only what will not mend is told.
    fn report(&self, error: &KafkaError) {
        let told = match error {
            KafkaError::MessageConsumptionFatal(code) => {
                BrokerError::Unavailable(format!("the consumer failed: {code}"))
            }
            other => match failed("consumer", other) {
                fatal @ BrokerError::Fatal(_) => fatal,
                _ => return,
            },
        };
        self.tell(Event::Failed(told));
    }

    /// There is room, see `is_heard`; when the other half is gone, it is about to be noticed.
    fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }

    fn assign(&self, partitions: Vec<Partition>) {
        let assignment = lock(&self.link.notes).begin(partitions.iter());
        let queues = queues(
            &self.consumer,
            partitions.iter().cloned().map(|p| (p, None)),
        );
        let assigned = queues.and_then(|queues| {
            let list = list(partitions.iter().map(|one| (one, Offset::Invalid)))?;
            let assigned = self.consumer.assign(&list);
            assigned.map_err(|error| failed("cannot take partitions", &error))?;
            Ok(queues)
        });
        match assigned {
            Ok(queues) if queues.is_empty() => {}
            Ok(partitions) => self.tell(Event::Assigned {
                assignment,
                partitions,
            }),
            Err(error) => self.tell(Event::Failed(error)),
        }
    }

    fn revoke(&self, partitions: Vec<Partition>, lost: bool) {
        if !partitions.is_empty() {
            let (revocation, dropped) = Revocation::new(partitions, lost, REVOKED_WITHIN);
            self.tell(Event::Revoking(revocation));
            self.wait_for(dropped);
        }
        if !lost && !self.consumer.assignment_lost() {
            self.commit();
        }
        lock(&self.link.notes).end();
        unassign(&self.consumer);
    }

    fn wait_for(&self, mut dropped: oneshot::Receiver<()>) {
        let until = Instant::now() + REVOKED_WITHIN + REVOKED_GRACE;
        while matches!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            if Instant::now() > until {
                warn!("partitions were not let go in time: they go as they are");
                return;
            }
            if self.link.is_leaving() {
                return;
            }
            self.poll(TICK_REVOKING);
        }
    }

    /// Commits what was noted and leaves the group.
    fn leave(self, commits: Option<JoinHandle<()>>) {
        if let Some(commits) = commits {
            // Its share of the native consumer goes with it: the last one is to be ours.
            let _ = commits.join();
        }
        if !self.consumer.assignment_lost() {
            self.commit();
        }
        // Also answers a rebalance that is still under way.
        unassign(&self.consumer);
        drop(self.committer);
        drop(self.consumer);
        drop(self.ended);
    }

    /// The last commit of an assignment.
    fn commit(&self) {
        if let Some(Err(error)) = self.committer.as_ref().map(|committer| committer.commit()) {
            warn!(%error, "offsets not committed: their records will come again");
        }
    }
}
