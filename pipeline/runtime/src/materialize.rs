//! The runner of materialize: status, events, matches, batches and dead letters → the store.
//!
//! The one writer of rows. For each partition of `status`: read the rows, fold the changes in,
//! advance the exact counts by a compare-and-set on the offset they are true for, write the rows,
//! commit. The counts go first: a crash in between makes the same records come again, and those
//! below the counts' offset are folded in without being counted a second time. Dead letters are
//! counted likewise, those that are there already left out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use herald_broker::{Consumer, Partition, Record, Revocation, Turn};
use herald_schemas::{
    ids::{DeadLetterId, EventId, NotificationId},
    records::{BatchAccepted, DeadLetter, Event, EventMatched, StatusChanged},
    rows::{NotificationRow, Tally},
};
use herald_stages::materialize::{Batch, fold};
use herald_store::Counted;
use tracing::error;

use crate::{
    inbox::is_too_large,
    lag::{Unread, oldest},
    ledger::frontier,
    stage::Stage,
    worker::{Shutdown, StageError, Worker},
};

const MAX_BATCH: usize = 1_000;
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// How many partitions of `status` are written at once.
const PARTITIONS_AT_ONCE: usize = 4;

/// Runs the stage until shutdown is asked for.
pub(crate) async fn run(worker: Worker, shutdown: Shutdown) -> Result<(), StageError> {
    let topics = &worker.topics;
    let names = vec![
        topics.status(),
        topics.events(),
        topics.matches(),
        topics.batches(),
        topics.dead_letters(),
    ];
    let subscribed = worker.subscribe(Stage::Materialize, names, MAX_BATCH);
    let mut consumer = subscribed.await?;
    let mut materializer = Materializer {
        worker,
        counted: HashMap::new(),
        unread: Unread::new(Stage::Materialize),
    };
    let ended = materializer.run(consumer.as_mut(), shutdown).await;
    consumer.close().await;
    ended
}

struct Materializer {
    worker: Worker,
    /// For each partition that is ours the offset its counts are true for.
    counted: HashMap<Counted, i64>,
    unread: Unread,
}

impl Materializer {
    async fn run(
        &mut self,
        consumer: &mut dyn Consumer,
        shutdown: Shutdown,
    ) -> Result<(), StageError> {
        while !shutdown.is_asked() {
            match consumer.next(IDLE_WAIT).await? {
                Turn::Records(records) => {
                    self.begin(&records);
                    let frontier = frontier(&records);
                    let stored = self.write(records).await?;
                    consumer.commit(&frontier);
                    self.worker.metrics.stored(Stage::Materialize, stored);
                    self.worker.metrics.holds(Stage::Materialize, 0);
                }
                Turn::Revoking(revocation) => self.let_go(&revocation),
                Turn::Idle => self.worker.metrics.caught_up(Stage::Materialize),
                Turn::Assigned(_) => {}
            }
            self.unread.look(consumer, &self.worker.metrics);
        }
        Ok(())
    }

    fn begin(&self, records: &[Record]) {
        let metrics = &self.worker.metrics;
        metrics.read(Stage::Materialize, records.len());
        metrics.holds(Stage::Materialize, records.len());
        metrics.lags(Stage::Materialize, oldest(records), false);
    }

    /// Every batch is finished before the next turn is asked for, so nothing is in hand here.
    fn let_go(&mut self, revocation: &Revocation) {
        let topics = &self.worker.topics;
        for Partition { topic, index } in revocation.partitions() {
            if **topic == *topics.status() {
                self.counted.remove(&Counted::Status(*index));
            } else if **topic == *topics.dead_letters() {
                self.counted.remove(&Counted::DeadLetters(*index));
            }
        }
    }

    /// Answers how many of them are in the store now: all but those that nobody can read.
    async fn write(&mut self, records: Vec<Record>) -> Result<usize, StageError> {
        let topics = &self.worker.topics;
        let (status_topic, events_topic) = (topics.status(), topics.events());
        let (matches_topic, letters_topic) = (topics.matches(), topics.dead_letters());
        let batches_topic = topics.batches();
        let mut status: BTreeMap<i32, Vec<(i64, StatusChanged)>> = BTreeMap::new();
        let mut events = Vec::new();
        let mut matches = Vec::new();
        let mut batches = Vec::new();
        let mut letters: BTreeMap<i32, Vec<(i64, DeadLetter)>> = BTreeMap::new();
        for record in &records {
            let topic = record.partition.topic.as_ref();
            if topic == status_topic {
                if let Some(change) = self.decode::<StatusChanged>(record).await? {
                    let partition = status.entry(record.partition.index).or_default();
                    partition.push((record.offset, change));
                }
            } else if topic == events_topic && is_too_large::<Event>(record) {
                // Match makes its dead letter; its row might be more than the store takes.
                let (partition, offset) = (&record.partition, record.offset);
                error!(%partition, offset, "event too large for the store");
            } else if topic == events_topic {
                events.extend(
                    self.decode::<Event>(record)
                        .await?
                        .map(|event| (event_id(record, &event), event)),
                );
            } else if topic == matches_topic {
                matches.extend(self.decode::<EventMatched>(record).await?);
            } else if topic == batches_topic {
                batches.extend(self.decode::<BatchAccepted>(record).await?);
            } else if topic == letters_topic
                && let Some(letter) = self.decode::<DeadLetter>(record).await?
            {
                let partition = letters.entry(record.partition.index).or_default();
                partition.push((record.offset, letter));
            }
        }
        let of_partitions = status
            .values()
            .map(Vec::len)
            .chain(letters.values().map(Vec::len));
        let stored = of_partitions.sum::<usize>() + events.len() + matches.len() + batches.len();
        let store = &self.worker.store;
        if !events.is_empty() {
            store.write_events(&events).await?;
        }
        if !matches.is_empty() {
            store.write_matches(&matches).await?;
        }
        if !batches.is_empty() {
            store.write_batches(&batches).await?;
        }
        for (partition, letters) in letters {
            self.write_letters(partition, letters).await?;
        }
        self.write_status(status).await?;
        Ok(stored)
    }

    /// Our own records always decode. One that does not was put here by somebody else; match
    /// makes an event's dead letter, and for the rest there is nobody to tell but the log.
    async fn decode<R: herald_schemas::codec::AvroRecord>(
        &self,
        record: &Record,
    ) -> Result<Option<R>, StageError> {
        match self.worker.inbox.decode::<R>(&record.value).await? {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let (partition, offset) = (&record.partition, record.offset);
                error!(%partition, offset, %error, "record left out of the store");
                Ok(None)
            }
        }
    }

    async fn write_status(
        &mut self,
        partitions: BTreeMap<i32, Vec<(i64, StatusChanged)>>,
    ) -> Result<(), StageError> {
        let (worker, counted) = (&self.worker, &self.counted);
        let written: Vec<(Counted, i64)> = stream::iter(partitions)
            .map(|(partition, changes)| {
                let counted = counted.get(&Counted::Status(partition)).copied();
                write_partition(worker, partition, counted, changes)
            })
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_collect()
            .await?;
        self.counted.extend(written);
        Ok(())
    }

    async fn write_letters(
        &mut self,
        partition: i32,
        letters: Vec<(i64, DeadLetter)>,
    ) -> Result<(), StageError> {
        let of = Counted::DeadLetters(partition);
        let known = self.counted.get(&of).copied();
        let counted = write_letters(&self.worker, partition, known, letters).await?;
        self.counted.insert(of, counted);
        Ok(())
    }
}

/// Folds the changes of one partition of `status` into the store; answers the offset its counts
/// are now true for.
async fn write_partition(
    worker: &Worker,
    partition: i32,
    counted: Option<i64>,
    changes: Vec<(i64, StatusChanged)>,
) -> Result<(Counted, i64), StageError> {
    let (store, of) = (&worker.store, Counted::Status(partition));
    let counted = match counted {
        Some(offset) => offset,
        None => store.totals(of).await?.offset,
    };
    let mut ids: Vec<NotificationId> = changes
        .iter()
        .map(|(_, change)| change.identity.id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut rows: HashMap<NotificationId, NotificationRow> = store
        .notifications(&ids)
        .await?
        .into_iter()
        .flatten()
        .map(|row| (row.id(), row))
        .collect();

    let end = changes.last().map_or(counted, |(offset, _)| offset + 1);
    // Below the counts' offset: counted before a crash, perhaps not written. Its stamp is its own
    // offset, so that what the first run did write of later records stands.
    let new = changes.partition_point(|(offset, _)| *offset < counted);
    let (again, new) = changes.split_at(new);
    if let Some((last, _)) = again.last() {
        let Batch { writes, .. } = fold(&mut rows, again.iter().map(|(_, change)| change));
        store.write_notifications(&writes, last + 1).await?;
    }
    if new.is_empty() {
        return Ok((of, counted));
    }
    let Batch {
        writes,
        counts,
        tallies,
    } = fold(&mut rows, new.iter().map(|(_, change)| change));
    if !store
        .advance_totals(of, counted, end, &counts, &tallies)
        .await?
    {
        let partition = Partition::new(worker.topics.status(), partition);
        return Err(StageError::Superseded(partition));
    }
    store.write_notifications(&writes, end).await?;
    Ok((of, end))
}

/// Writes the letters of one partition of `dead-letters`; answers the offset its counts are now
/// true for. A stage that did its work twice gave up twice, under the same id: counted once.
async fn write_letters(
    worker: &Worker,
    partition: i32,
    counted: Option<i64>,
    letters: Vec<(i64, DeadLetter)>,
) -> Result<i64, StageError> {
    let (store, of) = (&worker.store, Counted::DeadLetters(partition));
    let counted = match counted {
        Some(offset) => offset,
        None => store.totals(of).await?.offset,
    };
    let end = letters.last().map_or(counted, |(offset, _)| offset + 1);
    let new = letters.partition_point(|(offset, _)| *offset < counted);
    let mut again: Vec<DeadLetter> = letters.into_iter().map(|(_, letter)| letter).collect();
    let new = again.split_off(new);
    if !again.is_empty() {
        store.write_dead_letters(&again).await?;
    }
    if new.is_empty() {
        return Ok(counted);
    }
    let ids: Vec<DeadLetterId> = new.iter().map(|letter| letter.id).collect();
    let there = store.has_dead_letters(&ids).await?;
    let first_seen: HashSet<DeadLetterId> = ids
        .into_iter()
        .zip(there)
        .filter_map(|(id, is_there)| (!is_there).then_some(id))
        .collect();
    let mut tallies: BTreeMap<Tally, i64> = BTreeMap::new();
    for id in first_seen {
        *tallies.entry(Tally::of_letter(id)).or_default() += 1;
    }
    let tallies: Vec<(Tally, i64)> = tallies.into_iter().collect();
    if !store
        .advance_totals(of, counted, end, &[], &tallies)
        .await?
    {
        let partition = Partition::new(worker.topics.dead_letters(), partition);
        return Err(StageError::Superseded(partition));
    }
    store.write_dead_letters(&new).await?;
    Ok(end)
}

fn event_id(record: &Record, event: &Event) -> EventId {
    let Partition { topic, index } = &record.partition;
    event.event_id(topic, *index, record.offset, record.timestamp)
}
