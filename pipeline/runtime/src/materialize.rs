//! The runner of materialize: status, events, matches, batches and dead letters → the store.
//!
//! The one writer of rows. For each partition of `status`: read the rows, fold the changes in,
//! advance the exact counts by a compare-and-set on the offset they are true for, write the rows,
//! commit. The counts go first: a crash in between makes the same records come again, and those
//! below the counts' offset are folded in without being counted a second time.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use herald_broker::{Consumer, Offsets, Partition, Record, Revocation, Start, Subscription, Turn};
use herald_schemas::{
    ids::{EventId, NotificationId},
    records::{BatchAccepted, DeadLetter, Event, EventMatched, StatusChanged},
    rows::NotificationRow,
};
use herald_stages::materialize::{Batch, fold};
use tracing::error;

use crate::{
    inbox::is_too_large,
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
    let what = Subscription {
        group: Some(topics.group(Stage::Materialize.as_str())),
        topics: vec![
            topics.status(),
            topics.events(),
            topics.matches(),
            topics.batches(),
            topics.dead_letters(),
        ],
        start: Start::Earliest,
        max_batch: MAX_BATCH,
    };
    let mut consumer = worker.broker.subscribe(what).await?;
    let mut materializer = Materializer {
        worker,
        counted: HashMap::new(),
    };
    let ended = materializer.run(consumer.as_mut(), shutdown).await;
    consumer.close().await;
    ended
}

struct Materializer {
    worker: Worker,
    /// For each partition of `status` that is ours the offset its counts are true for.
    counted: HashMap<i32, i64>,
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
                    self.worker.metrics.read(Stage::Materialize, records.len());
                    let frontier = frontier(&records);
                    self.write(records).await?;
                    consumer.commit(&frontier);
                }
                Turn::Revoking(revocation) => self.let_go(&revocation),
                Turn::Assigned(_) | Turn::Idle => {}
            }
        }
        Ok(())
    }

    /// Every batch is finished before the next turn is asked for, so nothing is in hand here.
    fn let_go(&mut self, revocation: &Revocation) {
        for partition in revocation.partitions() {
            self.counted.remove(&partition.index);
        }
    }

    async fn write(&mut self, records: Vec<Record>) -> Result<(), StageError> {
        let topics = &self.worker.topics;
        let (status_topic, events_topic) = (topics.status(), topics.events());
        let (matches_topic, letters_topic) = (topics.matches(), topics.dead_letters());
        let batches_topic = topics.batches();
        let mut status: BTreeMap<i32, Vec<(i64, StatusChanged)>> = BTreeMap::new();
        let mut events = Vec::new();
        let mut matches = Vec::new();
        let mut batches = Vec::new();
        let mut letters = Vec::new();
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
            } else if topic == letters_topic {
                letters.extend(self.decode::<DeadLetter>(record).await?);
            }
        }
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
        if !letters.is_empty() {
            store.write_dead_letters(&letters).await?;
        }
        self.write_status(status).await
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
        let written: Vec<(i32, i64)> = stream::iter(partitions)
            .map(|(partition, changes)| {
                write_partition(worker, partition, counted.get(&partition).copied(), changes)
            })
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_collect()
            .await?;
        self.counted.extend(written);
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
) -> Result<(i32, i64), StageError> {
    let store = &worker.store;
    let counted = match counted {
        Some(offset) => offset,
        None => store.totals(partition).await?.offset,
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
        return Ok((partition, counted));
    }
    let Batch { writes, counts } = fold(&mut rows, new.iter().map(|(_, change)| change));
    if !store
        .advance_totals(partition, counted, end, &counts)
        .await?
    {
        return Err(StageError::Superseded(partition));
    }
    store.write_notifications(&writes, end).await?;
    Ok((partition, end))
}

fn event_id(record: &Record, event: &Event) -> EventId {
    let Partition { topic, index } = &record.partition;
    event.event_id(topic, *index, record.offset, record.timestamp)
}

fn frontier(records: &[Record]) -> Offsets {
    // In order within each partition: the last one of each stands.
    records
        .iter()
        .map(|record| (Partition::clone(&record.partition), record.offset + 1))
        .collect()
}
