//! The half of a consumer that the program holds: it reads the queue of each partition.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rdkafka::{
    Offset,
    config::FromClientConfigAndContext,
    consumer::Consumer as _,
    message::{BorrowedMessage, Headers, Message},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    cluster::{ANSWER_WITHIN, Cluster, blocking, list},
    committer::Committer,
    errors::{failed, failed_for},
    lock,
    member::{Assigned, Context, Event, Link, Member, Native, Queue, queues},
};
use crate::{
    BrokerError, Consumer, Header, Lag, Offsets, Partition, Record, Start, Subscription, Turn,
};

/// How many events may wait to be taken; the member falls silent before there are more.
const EVENTS: usize = 16;
/// How much a turn holds, whatever the number of its records.
const TURN_BYTES: usize = 8 * 1024 * 1024;
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How long a partition may not be ready to be sought, and how often it is tried.
const SOUGHT_WITHIN: Duration = Duration::from_secs(10);
const SEEK_EVERY: Duration = Duration::from_millis(20);
/// Librdkafka wants a name for a group even of those that join none.
const NO_GROUP: &str = "herald-reader";

pub(super) struct KafkaConsumer {
    // The queues go first: the one that drops the native consumer last waits for its end, and that
    // is to be the member's thread.
    readers: Vec<Reader>,
    events: mpsc::Receiver<Event>,
    native: Option<Arc<Native>>,
    link: Arc<Link>,
    ended: oneshot::Receiver<()>,
    cluster: Arc<Cluster>,
    what: Subscription,
    assignment: u64,
    /// Where the next turn starts to look, so that no partition starves another.
    turn: usize,
    failure: Option<BrokerError>,
}

/// A partition that is ours.
struct Reader {
    partition: Partition,
    queue: Queue,
    paused: bool,
    /// The next record, where it is known.
    position: Option<i64>,
}

impl KafkaConsumer {
    pub(super) async fn new(
        cluster: Arc<Cluster>,
        what: Subscription,
    ) -> Result<Self, BrokerError> {
        let partitions = partitions(&cluster, &what.topics).await?;
        let link = Arc::new(Link::new());
        let group = what.group.as_deref().unwrap_or(NO_GROUP);
        let config = cluster
            .settings
            .consumer(group, what.start, partitions.len());
        let native = Native::from_config_and_context(&config, Context::new(Arc::clone(&link)))
            .map_err(|error| failed("cannot make a consumer", &error))?;
        let native = Arc::new(native);
        let (tell, events) = mpsc::channel(EVENTS);
        if what.group.is_some() {
            let topics: Vec<&str> = what.topics.iter().map(String::as_str).collect();
            let subscribed = native.subscribe(&topics);
            subscribed.map_err(|error| failed("cannot subscribe", &error))?;
        } else {
            let partitions = take_all(&cluster, &native, &partitions, what.start).await?;
            let assigned = Event::Assigned {
                assignment: 0,
                partitions,
            };
            let _ = tell.try_send(assigned);
        }
        let (end, ended) = oneshot::channel();
        let member = Member {
            consumer: Arc::clone(&native),
            link: Arc::clone(&link),
            events: tell,
            ended: end,
            committer: what.group.as_ref().map(|_| {
                let commits = cluster.trips.commit.clone();
                Committer::new(Arc::clone(&native), Arc::clone(&link), commits)
            }),
        };
        member.start()?;
        Ok(Self {
            readers: Vec::new(),
            events,
            native: Some(native),
            link,
            ended,
            cluster,
            what,
            assignment: 0,
            turn: 0,
            failure: None,
        })
    }

    fn take(&mut self, event: Event) -> Result<Turn, BrokerError> {
        match event {
            Event::Assigned {
                assignment,
                partitions,
            } => {
                self.assignment = assignment;
                self.turn = 0;
                // First the old queues: two may be of one partition, and their end silences it.
                self.readers.clear();
                let link = &self.link;
                self.readers
                    .extend(partitions.into_iter().map(|one| Reader::new(one, link)));
                let partitions = self.readers.iter().map(|reader| reader.partition.clone());
                Ok(Turn::Assigned(partitions.collect()))
            }
            Event::Revoking(revocation) => {
                self.readers.clear();
                Ok(Turn::Revoking(revocation))
            }
            Event::Failed(error) => Err(error),
        }
    }

    /// What is there now, from one partition after the other.
    fn gather(&mut self) -> Result<Vec<Record>, BrokerError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut batch = Batch {
            records: Vec::new(),
            room: self.what.max_batch.max(1),
            bytes: TURN_BYTES,
        };
        let count = self.readers.len();
        let start = self.turn;
        for step in 0..count {
            let index = (start + step) % count;
            self.turn = (index + 1) % count;
            if let Err(error) = self.readers[index].read(&mut batch) {
                if batch.records.is_empty() {
                    return Err(error);
                }
                // First what was read before it.
                self.failure = Some(error);
                break;
            }
            if batch.is_full() {
                break;
            }
        }
        Ok(batch.records)
    }

    fn readers_of<'a>(
        &'a mut self,
        partitions: &'a [Partition],
    ) -> impl Iterator<Item = &'a mut Reader> {
        let wanted: HashSet<&Partition> = partitions.iter().collect();
        self.readers
            .iter_mut()
            .filter(move |reader| wanted.contains(&reader.partition))
    }

    fn leave(&mut self) {
        self.readers.clear();
        self.events.close();
        while self.events.try_recv().is_ok() {}
        self.native = None;
        self.link.leave();
    }
}

/// What is between these positions and the end. Where nothing was read yet, it begins at what the
/// group has committed, or else where it starts.
async fn lag(
    cluster: Arc<Cluster>,
    member: Option<Weak<Native>>,
    start: Offset,
    positions: Vec<(Partition, Option<i64>)>,
) -> Result<Vec<(Partition, i64)>, BrokerError> {
    let partitions: Vec<_> = positions.iter().map(|(one, _)| one.clone()).collect();
    let ends = cluster.offsets_there(&partitions, Offset::End).await?;
    let mut unread: Vec<_> = positions
        .iter()
        .filter(|(_, position)| position.is_none())
        .map(|(one, _)| one.clone())
        .collect();
    let mut starts = match member {
        Some(member) => cluster.committed_by(member, unread.clone()).await?,
        None => Offsets::new(),
    };
    unread.retain(|partition| !starts.contains_key(partition));
    starts.extend(cluster.offsets_there(&unread, start).await?);
    let lag = |(partition, position): (Partition, Option<i64>)| {
        let end = *ends.get(&partition)?;
        let next = position.or_else(|| starts.get(&partition).copied());
        Some((partition, (end - next.unwrap_or(end)).max(0)))
    };
    Ok(positions.into_iter().filter_map(lag).collect())
}

/// All partitions of topics that must be there.
async fn partitions(cluster: &Cluster, topics: &[String]) -> Result<Vec<Partition>, BrokerError> {
    let mut partitions = Vec::new();
    for topic in topics {
        let name: Arc<str> = topic.as_str().into();
        let count = cluster.partitions(topic).await?;
        partitions.extend((0..count).map(|index| Partition::new(Arc::clone(&name), index)));
    }
    Ok(partitions)
}

/// Takes partitions for ourselves, without a group. Where they start is asked now, so that nothing
/// that is written after the subscription is missed.
async fn take_all(
    cluster: &Cluster,
    native: &Arc<Native>,
    partitions: &[Partition],
    start: Start,
) -> Result<Vec<Assigned>, BrokerError> {
    let starts = cluster.offsets(partitions, first(start)).await?;
    let from = |partition: &Partition| starts.get(partition).copied();
    let queues = queues(
        native,
        partitions.iter().map(|one| (one.clone(), from(one))),
    )?;
    let list = list(partitions.iter().map(|one| {
        let offset = from(one).map_or(first(start), Offset::Offset);
        (one, offset)
    }))?;
    let assigned = native.assign(&list);
    assigned.map_err(|error| failed("cannot take partitions", &error))?;
    Ok(queues)
}

fn first(start: Start) -> Offset {
    match start {
        Start::Earliest => Offset::Beginning,
        Start::Latest => Offset::End,
    }
}

/// A turn that is being filled.
struct Batch {
    records: Vec<Record>,
    room: usize,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.room == 0 || self.bytes == 0
    }

    fn push(&mut self, record: Record, bytes: usize) {
        self.records.push(record);
        self.room -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Reader {
    fn new(assigned: Assigned, link: &Arc<Link>) -> Self {
        let mut queue = assigned.queue;
        let link = Arc::clone(link);
        queue.set_nonempty_callback(move || link.arrived.notify_one());
        Self {
            partition: assigned.partition,
            queue,
            paused: false,
            position: assigned.from,
        }
    }

    fn read(&mut self, batch: &mut Batch) -> Result<(), BrokerError> {
        if self.paused {
            return Ok(());
        }
        while !batch.is_full() {
            match self.queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let (record, bytes) = record(&self.partition, &message);
                    self.position = Some(record.offset + 1);
                    batch.push(record, bytes);
                }
                Some(Err(error)) => match failed_for(&self.partition.topic, &error) {
                    // librdkafka tries again by itself.
                    BrokerError::Unavailable(why) => {
                        tracing::warn!(partition = %self.partition, why, "cannot read");
                    }
                    other => return Err(other),
                },
                None => break,
            }
        }
        Ok(())
    }
}

/// A message as a record, and how large it is. Its parts lie in one piece of memory.
fn record(partition: &Partition, message: &BorrowedMessage<'_>) -> (Record, usize) {
    let headers = message.headers();
    let of_headers = headers.map_or(0, |headers| {
        headers.iter().map(|h| h.value.map_or(0, <[u8]>::len)).sum()
    });
    let bytes = message.key_len() + message.payload_len() + of_headers;
    let mut memory = BytesMut::with_capacity(bytes);
    let mut part = |bytes: &[u8]| -> Bytes {
        memory.extend_from_slice(bytes);
        memory.split().freeze()
    };
    let key = message.key().map(&mut part);
    let value = part(message.payload().unwrap_or_default());
    let headers = headers.map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| Header {
                name: header.key.to_owned().into(),
                value: part(header.value.unwrap_or_default()),
            })
            .collect()
    });
    let record = Record {
        partition: partition.clone(),
        offset: message.offset(),
        key,
        value,
        headers,
        timestamp: message.timestamp().to_millis().unwrap_or_default(),
    };
    (record, bytes)
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.leave();
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Turn, BrokerError> {
        let until = Instant::now() + wait;
        self.link.listens(wait);
        loop {
            if let Ok(event) = self.events.try_recv() {
                return self.take(event);
            }
            let records = self.gather()?;
            if !records.is_empty() {
                return Ok(Turn::Records(records));
            }
            // No await after what one of these says: a future that was dropped has taken nothing.
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    let ended = || BrokerError::Unavailable("the consumer has ended".to_owned());
                    return self.take(event.ok_or_else(ended)?);
                }
                () = self.link.arrived.notified() => {}
                () = sleep_until(until) => return Ok(Turn::Idle),
            }
        }
    }

    fn commit(&mut self, frontier: &Offsets) {
        if self.what.group.is_some() {
            lock(&self.link.notes).note(self.assignment, frontier);
        }
    }

    fn pause(&mut self, partitions: &[Partition]) {
        self.readers_of(partitions)
            .for_each(|reader| reader.paused = true);
    }

    fn resume(&mut self, partitions: &[Partition]) {
        self.readers_of(partitions)
            .for_each(|reader| reader.paused = false);
    }

    async fn seek(&mut self, to: &Offsets) -> Result<(), BrokerError> {
        let until = Instant::now() + SOUGHT_WITHIN;
        let mut left: Offsets = to.clone();
        left.retain(|partition, _| self.readers.iter().any(|r| r.partition == *partition));
        while !left.is_empty() {
            let Some(native) = self.native.clone() else {
                break;
            };
            let wanted = left.clone();
            let refused = blocking(move || seek(&native, &wanted)).await?;
            for reader in &mut self.readers {
                if let Some(offset) = left.get(&reader.partition)
                    && !refused.contains(&reader.partition)
                {
                    reader.position = Some(*offset);
                }
            }
            left.retain(|partition, _| refused.contains(partition));
            if !left.is_empty() {
                // A partition that was just assigned cannot be sought at once.
                if Instant::now() > until {
                    let text = "a partition is not ready to be sought".to_owned();
                    return Err(BrokerError::Unavailable(text));
                }
                sleep(SEEK_EVERY).await;
            }
        }
        Ok(())
    }

    fn lag(&self) -> Lag {
        let positions = self.readers.iter();
        let positions = positions.map(|reader| (reader.partition.clone(), reader.position));
        let member = self.what.group.as_ref().and(self.native.as_ref());
        let member = member.map(Arc::downgrade);
        let (positions, start) = (positions.collect(), first(self.what.start));
        Box::pin(lag(Arc::clone(&self.cluster), member, start, positions))
    }

    async fn close(mut self: Box<Self>) {
        self.leave();
        // An error says that the thread has ended, which is what is waited for.
        if timeout(CLOSED_WITHIN, &mut self.ended).await.is_err() {
            tracing::warn!("a consumer takes long to leave its group: not waiting for it");
        }
    }
}

/// Returns the partitions that could not be sought yet.
fn seek(native: &Native, to: &Offsets) -> Result<HashSet<Partition>, BrokerError> {
    let wanted = list(to.iter().map(|(one, at)| (one, Offset::Offset(*at))))?;
    let sought = native
        .seek_partitions(wanted, ANSWER_WITHIN)
        .map_err(|error| failed("cannot seek", &error))?;
    let elements = sought.elements();
    let refused = elements.iter().filter(|element| element.error().is_err());
    Ok(refused
        .map(|element| Partition::new(element.topic(), element.partition()))
        .collect())
}
