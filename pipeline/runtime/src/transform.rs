//! The runner of the stages that only turn records into records: match, render, retry.
//!
//! Decode → process → produce → await every ack → complete in the ledger → commit the contiguous
//! frontier. Several batches are on their way to the broker at once; they are completed in order.
//! An infrastructure failure ends the run: the supervisor starts it again at the last commit.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use herald_broker::{Acks, Consumer, Partition, Record, Revocation, Turn};
use herald_schemas::{
    codec::{AvroRecord, DecodeError},
    ids::UnixMs,
    records::{DeliveryReady, Event, NotificationRequested},
    topics::Topics,
};
use herald_stages::{
    Context, Output, Source, Verdict, matching, poison, render, retry, snapshot::Snapshot,
};
use tokio::time::timeout;
use tracing::warn;

use crate::{
    inbox::{is_too_large, source},
    lag::{Unread, since},
    ledger::Ledger,
    metrics::Written,
    stage::Stage,
    worker::{DRAIN, Shutdown, StageError, Worker, now, until_ok},
};

/// How many batches may be on their way to the broker.
const BATCHES_IN_FLIGHT: usize = 4;
/// How much of what follows from a batch is gathered before it is written: an event makes as many
/// copies of its payload as rules hold.
const OUTPUTS_AT_ONCE: usize = 1_000;
/// How long to wait for records when nothing is in flight.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// How long to wait for records before looking whether acks have come.
const BUSY_WAIT: Duration = Duration::from_millis(2);

/// A stage that turns records into records.
pub(crate) trait Transform: Send + Sync + 'static {
    /// What it reads.
    type Record: AvroRecord + Send;
    const STAGE: Stage;
    /// How many records a batch holds at the most.
    const MAX_BATCH: usize;

    fn topics(&self, topics: &Topics, worker: &Worker) -> Vec<String>;

    /// Since when a record waits for this stage.
    fn since(&self, record: &Record, _: Option<&Self::Record>) -> UnixMs {
        since(record)
    }

    /// The catalog version that a record asks for; 0: the newest there is, none: it needs no catalog.
    fn wants(&self, record: &Self::Record) -> Option<i64>;

    fn process(&self, record: Self::Record, source: &Source<'_>, context: &Context<'_>) -> Verdict;
}

pub(crate) struct Match;

impl Transform for Match {
    type Record = Event;
    const STAGE: Stage = Stage::Match;
    const MAX_BATCH: usize = 500;

    fn topics(&self, topics: &Topics, _: &Worker) -> Vec<String> {
        vec![topics.events()]
    }

    fn wants(&self, event: &Event) -> Option<i64> {
        Some(event.catalog_version)
    }

    fn process(&self, event: Event, source: &Source<'_>, context: &Context<'_>) -> Verdict {
        matching::process(event, source, context)
    }
}

pub(crate) struct Render;

impl Transform for Render {
    type Record = NotificationRequested;
    const STAGE: Stage = Stage::Render;
    const MAX_BATCH: usize = 500;

    fn topics(&self, topics: &Topics, worker: &Worker) -> Vec<String> {
        let lanes = &worker.serves.lanes;
        lanes
            .iter()
            .map(|lane| topics.notifications(*lane))
            .collect()
    }

    fn wants(&self, request: &NotificationRequested) -> Option<i64> {
        request.template_id.map(|_| request.catalog_version)
    }

    fn process(
        &self,
        request: NotificationRequested,
        source: &Source<'_>,
        context: &Context<'_>,
    ) -> Verdict {
        render::process(request, source, context)
    }
}

pub(crate) struct Retry;

impl Transform for Retry {
    type Record = DeliveryReady;
    const STAGE: Stage = Stage::Retry;
    const MAX_BATCH: usize = 100;

    fn topics(&self, topics: &Topics, worker: &Worker) -> Vec<String> {
        let tiers = worker.settings.retry.ladder().tiers().iter();
        tiers.map(|tier| topics.retries(&tier.name)).collect()
    }

    /// Not before it is due.
    fn since(&self, record: &Record, delivery: Option<&DeliveryReady>) -> UnixMs {
        let due = delivery.and_then(|delivery| delivery.due_at);
        due.unwrap_or_else(|| since(record))
    }

    fn wants(&self, _: &DeliveryReady) -> Option<i64> {
        None
    }

    fn process(
        &self,
        delivery: DeliveryReady,
        source: &Source<'_>,
        context: &Context<'_>,
    ) -> Verdict {
        retry::process(delivery, source, context)
    }
}

/// Runs a stage until shutdown is asked for.
pub(crate) async fn run<T: Transform>(
    worker: Worker,
    stage: T,
    shutdown: Shutdown,
) -> Result<(), StageError> {
    let topics = stage.topics(&worker.topics, &worker);
    let consumer = worker.subscribe(T::STAGE, topics, T::MAX_BATCH).await?;
    let mut runner = Runner {
        worker,
        stage,
        consumer,
        ledger: Ledger::default(),
        in_flight: VecDeque::new(),
        held: HashMap::new(),
        unread: Unread::new(T::STAGE),
    };
    let ended = runner.run(shutdown).await;
    // What is completed is committed even when something else failed.
    runner.consumer.close().await;
    ended
}

struct Runner<T> {
    worker: Worker,
    stage: T,
    consumer: Box<dyn Consumer>,
    ledger: Ledger,
    in_flight: VecDeque<Batch>,
    /// Partitions whose first record is not due yet: paused, with what was read of them.
    held: HashMap<Partition, Held>,
    unread: Unread,
}

/// A batch on its way to the broker.
struct Batch {
    acks: Acks,
    done: Vec<(Partition, i64)>,
    written: Written,
}

struct Held {
    until: UnixMs,
    records: VecDeque<Record>,
}

impl<T: Transform> Runner<T> {
    async fn run(&mut self, shutdown: Shutdown) -> Result<(), StageError> {
        while !shutdown.is_asked() {
            let wait = self.wait();
            let mut is_idle = false;
            match self.consumer.next(wait).await? {
                Turn::Records(records) => self.handle(records).await?,
                Turn::Assigned(_) => {}
                Turn::Idle => is_idle = true,
                Turn::Revoking(revocation) => self.let_go(revocation).await?,
            }
            self.handle_due().await?;
            self.settle()?;
            let (oldest, metrics) = (self.ledger.oldest(), &self.worker.metrics);
            metrics.lags(T::STAGE, oldest, is_idle);
            self.unread.look(self.consumer.as_ref(), metrics);
        }
        self.drain(DRAIN).await
    }

    /// How long there is nothing else to do than to wait for records.
    fn wait(&self) -> Duration {
        let wait = if self.in_flight.is_empty() {
            IDLE_WAIT
        } else {
            BUSY_WAIT
        };
        let due = self.held.values().map(|held| held.until).min();
        due.map_or(wait, |due| {
            wait.min(Duration::from_millis((due - now()).max(0) as u64))
        })
    }

    async fn handle(&mut self, records: Vec<Record>) -> Result<(), StageError> {
        self.worker.metrics.read(T::STAGE, records.len());
        // A record of a partition that is held waits behind those already held.
        let (held, free): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| self.held.contains_key(&record.partition));
        for record in held {
            if let Some(held) = self.held.get_mut(&record.partition) {
                held.records.push_back(record);
            }
        }
        self.process(free).await
    }

    /// Processes what was held back and is due by now.
    async fn handle_due(&mut self) -> Result<(), StageError> {
        let now = now();
        let due: Vec<Partition> = self
            .held
            .iter()
            .filter(|(_, held)| held.until <= now)
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in due {
            let Some(held) = self.held.remove(&partition) else {
                continue;
            };
            self.process(held.records.into()).await?;
            if !self.held.contains_key(&partition) {
                self.consumer.resume(&[partition]);
            }
        }
        Ok(())
    }

    async fn process(&mut self, records: Vec<Record>) -> Result<(), StageError> {
        if records.is_empty() {
            return Ok(());
        }
        let decoded = decode::<T::Record>(&self.worker, records).await?;
        let wanted = decoded
            .iter()
            .filter_map(|(_, decoded)| self.stage.wants(decoded.as_ref().ok()?));
        // Told before it is waited for what may take long.
        let waits = decoded
            .iter()
            .map(|(record, decoded)| self.stage.since(record, decoded.as_ref().ok()));
        let oldest = waits.chain(self.ledger.oldest()).min();
        self.worker.metrics.lags(T::STAGE, oldest, false);
        let snapshot = snapshot(&self.worker, wanted).await;
        let mut outputs = Vec::with_capacity(decoded.len() * 2);
        let mut done = Vec::with_capacity(decoded.len());
        for (record, decoded) in decoded {
            if let Some(held) = self.held.get_mut(&record.partition) {
                held.records.push_back(record);
                continue;
            }
            let since = self.stage.since(&record, decoded.as_ref().ok());
            let verdict = self.verdict(&record, decoded, &snapshot);
            match verdict {
                Verdict::Emit(emitted) | Verdict::DeadLetter(emitted) => outputs.extend(emitted),
                Verdict::Drop(reason) => {
                    tracing::debug!(stage = %T::STAGE, offset = record.offset, reason, "record dropped");
                }
                Verdict::Defer(until) => {
                    self.consumer.pause(std::slice::from_ref(&record.partition));
                    let partition = record.partition.clone();
                    self.held.insert(
                        partition,
                        Held {
                            until,
                            records: VecDeque::from([record]),
                        },
                    );
                    continue;
                }
            }
            self.ledger.take(&record.partition, record.offset, since);
            done.push((record.partition, record.offset));
            if outputs.len() >= OUTPUTS_AT_ONCE {
                self.produce(&std::mem::take(&mut outputs), std::mem::take(&mut done))
                    .await?;
            }
        }
        self.produce(&outputs, done).await
    }

    fn verdict(
        &self,
        record: &Record,
        decoded: Result<T::Record, DecodeError>,
        snapshot: &Snapshot,
    ) -> Verdict {
        let source = source(record);
        let context = Context {
            now: now(),
            seed: record.offset as u64,
            catalog: snapshot,
            settings: &self.worker.settings,
        };
        let letter = match decoded {
            _ if is_too_large::<T::Record>(record) => {
                poison::oversized(T::STAGE.as_str(), &source, context.now)
            }
            Ok(decoded) => return self.stage.process(decoded, &source, &context),
            Err(error) => poison::undecodable(T::STAGE.as_str(), &source, &error, context.now),
        };
        Verdict::DeadLetter(vec![Output::DeadLetter(letter)])
    }

    async fn produce(
        &mut self,
        outputs: &[Output],
        done: Vec<(Partition, i64)>,
    ) -> Result<(), StageError> {
        self.tell_in_flight();
        let records = self.worker.outbox.encode(outputs)?;
        let acks = self.worker.outbox.enqueue(records).await?;
        let written = Written::of(outputs);
        self.in_flight.push_back(Batch {
            acks,
            done,
            written,
        });
        while self.in_flight.len() > BATCHES_IN_FLIGHT {
            self.await_oldest().await?;
        }
        Ok(())
    }

    /// Completes the batches that are acked by now, oldest first.
    fn settle(&mut self) -> Result<(), StageError> {
        while let Some(oldest) = self.in_flight.front_mut() {
            let Some(acked) = (&mut oldest.acks).now_or_never() else {
                break;
            };
            acked?;
            self.complete_oldest();
        }
        self.commit();
        Ok(())
    }

    async fn await_oldest(&mut self) -> Result<(), StageError> {
        if let Some(oldest) = self.in_flight.front_mut() {
            (&mut oldest.acks).await?;
            self.complete_oldest();
        }
        Ok(())
    }

    fn complete_oldest(&mut self) {
        let Some(Batch { done, written, .. }) = self.in_flight.pop_front() else {
            return;
        };
        self.worker.metrics.wrote(T::STAGE, &written);
        for (partition, offset) in done {
            self.ledger.complete(&partition, offset);
        }
    }

    fn commit(&mut self) {
        let frontier = self.ledger.frontier();
        if !frontier.is_empty() {
            self.consumer.commit(&frontier);
        }
        self.tell_in_flight();
    }

    fn tell_in_flight(&self) {
        let unfinished = self.ledger.unfinished_in_all();
        self.worker.metrics.holds(T::STAGE, unfinished);
    }

    /// Finishes what is in flight and lets partitions go.
    async fn let_go(&mut self, revocation: Revocation) -> Result<(), StageError> {
        self.held
            .retain(|partition, _| !revocation.partitions().contains(partition));
        let drained = self.drain(revocation.deadline().mul_f32(0.8)).await;
        self.ledger.forget(revocation.partitions());
        drained
    }

    async fn drain(&mut self, patience: Duration) -> Result<(), StageError> {
        let until = Instant::now() + patience;
        while !self.in_flight.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.await_oldest()).await {
                Ok(done) => done?,
                Err(_) => break,
            }
        }
        self.commit();
        Ok(())
    }
}

async fn decode<R: AvroRecord>(
    worker: &Worker,
    records: Vec<Record>,
) -> Result<Vec<(Record, Result<R, DecodeError>)>, StageError> {
    let mut decoded = Vec::with_capacity(records.len());
    for record in records {
        let value = worker.inbox.decode::<R>(&record.value).await?;
        decoded.push((record, value));
    }
    Ok(decoded)
}

/// How old the catalog may be for a record that does not say which one its producer saw.
const CATALOG_AGE: Duration = Duration::from_millis(50);

/// A snapshot at least as new as the records ask for. The store being away is no reason to match by
/// older rules than the producer saw: it is waited for. Of a producer that does not say, nobody
/// knows: the newest that can be had will do.
async fn snapshot(worker: &Worker, wanted: impl Iterator<Item = i64>) -> Arc<Snapshot> {
    let (mut version, mut unstamped) = (0, false);
    for wanted in wanted {
        version = version.max(wanted);
        unstamped |= wanted == 0;
    }
    let catalogs = &worker.catalogs;
    let current = match unstamped {
        true => catalogs.fresh(CATALOG_AGE).await.unwrap_or_else(|error| {
            warn!(%error, "catalog not refreshed; working with the one at hand");
            catalogs.current()
        }),
        false => catalogs.current(),
    };
    if current.version() >= version {
        return current;
    }
    until_ok("read the catalog", || catalogs.at_least(version)).await
}
