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

use herald_broker::{Consumer, Partition, Record, Turn};
use herald_schemas::{
    ids::{NotificationId, UnixMs},
    records::NotificationRequested,
};
use herald_stages::{Output, poison, schedule};
use herald_store::{Due, ScheduledRow};
use tokio::time::Instant;

use crate::{
    inbox::source,
    lag::{Unread, oldest},
    ledger::frontier,
    metrics::Written,
    stage::Stage,
    worker::{Shutdown, StageError, Worker, now},
};

const MAX_BATCH: usize = 500;
/// How many rows go on at once.
const DUE_AT_ONCE: usize = 200;
/// How often it is looked what is due: the lateness of a notification, at the most, when there is
/// little to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How far behind the noted place of a shard may be of which nothing is due: from there the next
/// owner looks for rows, all the time in between.
const NOTED_BEHIND_MS: i64 = 600_000;

/// Runs the stage until shutdown is asked for.
pub(crate) async fn run(worker: Worker, shutdown: Shutdown) -> Result<(), StageError> {
    let topics = vec![worker.topics.scheduled()];
    let subscribed = worker.subscribe(Stage::Schedule, topics, MAX_BATCH);
    let mut consumer = subscribed.await?;
    let mut scheduler = Scheduler {
        // One run of one worker: its own former runs are others, too.
        owner: format!("{}/{}", worker.name, NotificationId::random()),
        worker,
        shards: HashMap::new(),
        next_look: Instant::now(),
        unread: Unread::new(Stage::Schedule),
    };
    let ended = scheduler.run(consumer.as_mut(), shutdown).await;
    consumer.close().await;
    ended
}

struct Scheduler {
    worker: Worker,
    owner: String,
    /// The shards that are ours.
    shards: HashMap<i32, Shard>,
    next_look: Instant,
    unread: Unread,
}

#[derive(Clone, Copy)]
struct Shard {
    /// Up to where its rows have gone on.
    gone: Due,
    /// How much of that its next owner will know.
    noted: UnixMs,
}

impl Scheduler {
    async fn run(
        &mut self,
        consumer: &mut dyn Consumer,
        shutdown: Shutdown,
    ) -> Result<(), StageError> {
        while !shutdown.is_asked() {
            let wait = self.next_look.saturating_duration_since(Instant::now());
            let mut is_idle = false;
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
                    self.begin(records.len(), oldest(&records));
                    let frontier = frontier(&records);
                    self.take(records).await?;
                    consumer.commit(&frontier);
                }
                Turn::Idle => is_idle = true,
            }
            if Instant::now() >= self.next_look {
                // Where there is more, other turns come in between all the same.
                let more = self.release_due().await?;
                is_idle &= !more;
                let pause = match more {
                    true => Duration::ZERO,
                    false => LOOK_EVERY,
                };
                self.next_look = Instant::now() + pause;
            }
            let metrics = &self.worker.metrics;
            metrics.holds(Stage::Schedule, 0);
            metrics.lags(Stage::Schedule, None, is_idle);
            self.unread.look(consumer, metrics);
        }
        Ok(())
    }

    /// Tells of a batch, whether read or due, that is in hand until its turn ends.
    fn begin(&self, records: usize, oldest: Option<UnixMs>) {
        self.worker.metrics.holds(Stage::Schedule, records);
        self.worker.metrics.lags(Stage::Schedule, oldest, false);
    }

    async fn own(&mut self, partitions: &[Partition]) -> Result<(), StageError> {
        for partition in partitions {
            let shard = partition.index;
            let owned = self.worker.store.own_schedule(shard, &self.owner, now());
            let gone = owned.await?;
            let noted = gone.0;
            self.shards.insert(shard, Shard { gone, noted });
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
        self.shards
            .get(&shard)
            .is_some_and(|shard| place <= shard.gone)
    }

    /// Lets the next rows of each shard go on. True: there may be more.
    async fn release_due(&mut self) -> Result<bool, StageError> {
        let shards: Vec<i32> = self.shards.keys().copied().collect();
        let mut more = false;
        for shard in shards {
            more |= self.release_some(shard).await?;
        }
        Ok(more)
    }

    async fn release_some(&mut self, shard: i32) -> Result<bool, StageError> {
        let (store, now) = (&self.worker.store, now());
        let Some(Shard { gone, noted }) = self.shards.get(&shard).copied() else {
            return Ok(false);
        };
        let due = store.due_scheduled(shard, gone, now, DUE_AT_ONCE).await?;
        let Some(last) = due.last().map(ScheduledRow::place) else {
            let gone = gone.max(end_of(now));
            self.shards.insert(shard, Shard { gone, noted });
            if now.saturating_sub(noted) > NOTED_BEHIND_MS {
                self.note(shard, gone).await?;
            }
            return Ok(false);
        };
        self.begin(due.len(), due.first().map(|row| row.send_at));
        let mut outputs = Vec::with_capacity(due.len() * 2);
        for row in &due {
            outputs.extend(self.due(row, now).await?);
        }
        self.send(&outputs).await?;
        self.note(shard, last).await?;
        Ok(due.len() == DUE_AT_ONCE)
    }

    /// Notes up to where the rows of a shard have gone on, if it still is ours.
    async fn note(&mut self, shard: i32, gone: Due) -> Result<(), StageError> {
        let advanced = self.worker.store.advance_schedule(shard, &self.owner, gone);
        if !advanced.await? {
            return Err(StageError::NotOwner(shard));
        }
        let noted = gone.0;
        self.shards.insert(shard, Shard { gone, noted });
        Ok(())
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
            self.worker.outbox.send(outputs).await?;
            let written = Written::of(outputs);
            self.worker.metrics.wrote(Stage::Schedule, &written);
        }
        Ok(())
    }
}

/// Behind everything that is due at a time.
fn end_of(at: UnixMs) -> Due {
    (at, NotificationId::first_at(UnixMs::MAX))
}
