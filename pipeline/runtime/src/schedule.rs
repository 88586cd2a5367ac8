//! The runner of schedule: keeps what is early in the store, and lets it go on when it is due.
//!
//! A partition of `scheduled` is a shard of what waits, and whoever has the partition owns the
//! shard: the consumer group is the lock. Because a former owner may not know yet that it is one,
//! the place up to which a shard's rows have gone on is advanced only in the owner's name.
//!
//! What was let go on and not noted before a crash goes on again, under the same ids: deliver finds
//! out that it was sent.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use herald_broker::{Consumer, Offsets, Partition, Record, Start, Subscription, Turn};
use herald_schemas::{
    ids::{NotificationId, UnixMs},
    records::NotificationRequested,
};
use herald_stages::{Output, poison, schedule};
use herald_store::{Due, ScheduledRow};
use tokio::time::Instant;

use crate::{
    inbox::source,
    stage::Stage,
    worker::{Shutdown, StageError, Worker, now},
};

const MAX_BATCH: usize = 500;
/// How many rows go on at once.
const DUE_AT_ONCE: usize = 200;
/// How often it is looked what is due: the lateness of a notification, at the most, when there is
/// little to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the stage until shutdown is asked for.
pub(crate) async fn run(worker: Worker, shutdown: Shutdown) -> Result<(), StageError> {
    let what = Subscription {
        group: Some(worker.topics.group(Stage::Schedule.as_str())),
        topics: vec![worker.topics.scheduled()],
        start: Start::Earliest,
        max_batch: MAX_BATCH,
    };
    let mut consumer = worker.broker.subscribe(what).await?;
    let mut scheduler = Scheduler {
        // One run of one worker: its own former runs are others, too.
        owner: format!("{}/{}", worker.name, NotificationId::random()),
        worker,
        shards: HashMap::new(),
        next_look: Instant::now(),
    };
    let ended = scheduler.run(consumer.as_mut(), shutdown).await;
    consumer.close().await;
    ended
}

struct Scheduler {
    worker: Worker,
    owner: String,
    /// The shards that are ours, and up to where their rows have gone on.
    shards: HashMap<i32, Due>,
    next_look: Instant,
}

impl Scheduler {
    async fn run(
        &mut self,
        consumer: &mut dyn Consumer,
        shutdown: Shutdown,
    ) -> Result<(), StageError> {
        while !shutdown.is_asked() {
            let wait = self.next_look.saturating_duration_since(Instant::now());
            match consumer.next(wait).await? {
                Turn::Assigned(partitions) => self.own(&partitions).await?,
                // Every batch is finished before the next turn is asked for.
                Turn::Revoking(revocation) => {
                    for partition in revocation.partitions() {
                        self.shards.remove(&partition.index);
                    }
                }
                Turn::Records(records) => {
                    self.worker.metrics.read(Stage::Schedule, records.len());
                    let frontier = frontier(&records);
                    self.take(records).await?;
                    consumer.commit(&frontier);
                }
                Turn::Idle => {}
            }
            if Instant::now() >= self.next_look {
                self.release_due().await?;
                self.next_look = Instant::now() + LOOK_EVERY;
            }
        }
        Ok(())
    }

    async fn own(&mut self, partitions: &[Partition]) -> Result<(), StageError> {
        for partition in partitions {
            let shard = partition.index;
            let owned = self.worker.store.own_schedule(shard, &self.owner, now());
            self.shards.insert(shard, owned.await?);
        }
        Ok(())
    }

    /// Keeps what is early, lets go on what is not.
    async fn take(&mut self, records: Vec<Record>) -> Result<(), StageError> {
        let mut outputs = Vec::new();
        let mut kept: BTreeMap<i32, Vec<ScheduledRow>> = BTreeMap::new();
        for record in &records {
            let decoded = self
                .worker
                .inbox
                .decode::<NotificationRequested>(&record.value);
            let source = source(record);
            let request = match decoded.await? {
                Ok(request) => request,
                Err(error) => {
                    self.worker.metrics.gave_up(Stage::Schedule, 1);
                    let stage = Stage::Schedule.as_str();
                    let letter = poison::undecodable(stage, &source, &error, now());
                    outputs.push(Output::DeadLetter(letter));
                    continue;
                }
            };
            let (id, request) = schedule::kept(request, &source);
            let shard = record.partition.index;
            match self.row(id, &request)? {
                Some(row) if !self.is_past(shard, row.place()) => {
                    kept.entry(shard).or_default().push(row);
                }
                _ => outputs.extend(schedule::release(id, request, now())),
            }
        }
        for (shard, rows) in &kept {
            self.worker.store.put_scheduled(*shard, rows).await?;
        }
        self.send(&outputs).await
    }

    /// The row of a request that is early.
    fn row(
        &self,
        id: NotificationId,
        request: &NotificationRequested,
    ) -> Result<Option<ScheduledRow>, StageError> {
        let send_at = schedule::send_at(request);
        if send_at <= now() {
            return Ok(None);
        }
        let body = self.worker.outbox.codec().encode(request);
        let body = body.map_err(crate::outbox::OutboxError::from)?.to_vec();
        Ok(Some(ScheduledRow { send_at, id, body }))
    }

    /// Whether the rows of a shard have gone on beyond a place: by another clock than ours, it may
    /// be later.
    fn is_past(&self, shard: i32, place: Due) -> bool {
        self.shards.get(&shard).is_some_and(|gone| place <= *gone)
    }

    async fn release_due(&mut self) -> Result<(), StageError> {
        let shards: Vec<i32> = self.shards.keys().copied().collect();
        for shard in shards {
            while self.release_some(shard).await? {}
        }
        Ok(())
    }

    /// Lets the next rows of a shard go on. True: there may be more.
    async fn release_some(&mut self, shard: i32) -> Result<bool, StageError> {
        let (store, now) = (&self.worker.store, now());
        let Some(gone) = self.shards.get(&shard).copied() else {
            return Ok(false);
        };
        let due = store.due_scheduled(shard, gone, now, DUE_AT_ONCE).await?;
        let Some(last) = due.last().map(ScheduledRow::place) else {
            self.shards.insert(shard, gone.max(end_of(now)));
            return Ok(false);
        };
        let mut outputs = Vec::with_capacity(due.len() * 2);
        for row in &due {
            outputs.extend(self.due(row, now).await?);
        }
        self.send(&outputs).await?;
        let advanced = self.worker.store.advance_schedule(shard, &self.owner, last);
        if !advanced.await? {
            return Err(StageError::NotOwner(shard));
        }
        self.shards.insert(shard, last);
        Ok(due.len() == DUE_AT_ONCE)
    }

    /// What follows from a row that is due. It decoded when it was kept.
    async fn due(&self, row: &ScheduledRow, now: UnixMs) -> Result<Vec<Output>, StageError> {
        match self
            .worker
            .inbox
            .decode::<NotificationRequested>(&row.body)
            .await?
        {
            Ok(request) => Ok(schedule::release(row.id, request, now)),
            Err(error) => {
                tracing::error!(id = %row.id, %error, "scheduled request left out");
                Ok(Vec::new())
            }
        }
    }

    async fn send(&self, outputs: &[Output]) -> Result<(), StageError> {
        if !outputs.is_empty() {
            self.worker.metrics.written(Stage::Schedule, outputs.len());
            self.worker.outbox.send(outputs).await?;
        }
        Ok(())
    }
}

/// Behind everything that is due at a time.
fn end_of(at: UnixMs) -> Due {
    (at, NotificationId::first_at(UnixMs::MAX))
}

fn frontier(records: &[Record]) -> Offsets {
    // In order within each partition: the last one of each stands.
    records
        .iter()
        .map(|record| (Partition::clone(&record.partition), record.offset + 1))
        .collect()
}
