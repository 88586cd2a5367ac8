//! The runner of deliver: claims what may be sent now, calls providers, settles.
//!
//! One task owns everything; what takes time (the store, the providers, the broker) is a future
//! that hands its result back to it. A record's way:
//!
//! 1. `queue`: read, waiting in its partition's queue; picked lane by lane, one at a time for each
//!    recipient, when `gates` let it go: the limit, breakers, what is paused.
//! 2. claim: with up to a hundred others, and with the outcomes of earlier calls, one turn of the
//!    store; what already has an outcome is settled by it instead of being sent again, and what
//!    somebody wants to cancel is withdrawn if that was agreed before (see [`crate::cancel`]).
//! 3. `call`: primary, then fallback.
//! 4. settle: what follows is produced, and the outcome goes with the next turn of the store. When
//!    both are acked, the record is complete in the ledger.
//!
//! A failure of the store or the broker is waited out: what is in hand stays in hand.

mod attempt;
mod breaker;
mod bucket;
mod call;
mod dispatch;
mod gates;
mod lanes;
mod queue;
mod steer;

pub use breaker::{BreakerSettings, HealthSettings};

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use herald_broker::{Consumer, Outgoing, Partition, Record, Revocation, Turn};
use herald_schemas::records::DeliveryReady;
use herald_stages::{
    Output,
    deliver::{Settled, next_attempt},
    poison,
};
use herald_store::{Claimed, Outcome, RaceEnd};
use tokio::time::timeout;

use self::{
    dispatch::OUTCOME_PATIENCE,
    gates::{Gates, Pass},
    queue::{Queues, Waiting},
    steer::Steering,
};
use crate::{
    inbox::source,
    lag::{Unread, since},
    ledger::Ledger,
    metrics::Written,
    stage::Stage,
    worker::{DRAIN, Shutdown, StageError, Worker, now},
};

const MAX_BATCH: usize = 500;
/// How many records are claimed at once: what makes one write of the store.
const CLAIMS_AT_ONCE: usize = 100;
/// How many records may be out of their queues besides those that are being sent: what follows from
/// them waits for the log, which may take nothing for a while.
const MAX_UNACKED: usize = 2_000;
const IDLE_WAIT: Duration = Duration::from_millis(250);

/// Runs the stage until shutdown is asked for.
pub(crate) async fn run(worker: Worker, shutdown: Shutdown) -> Result<(), StageError> {
    let topics = &worker.topics;
    let serves = &worker.serves;
    let names = serves.channels.iter().flat_map(|channel| {
        let lanes = serves.lanes.iter();
        lanes.map(move |lane| topics.deliveries(*channel, *lane))
    });
    let names = names.collect();
    let consumer = worker.subscribe(Stage::Deliver, names, MAX_BATCH).await?;
    let mut runner = Runner::new(worker, consumer);
    let ended = runner.run(shutdown).await;
    runner.consumer.close().await;
    ended
}

type Ticket = u64;

/// What a future of the runner hands back.
enum Done {
    /// A turn of the store: what stands about the claims, and whose outcomes are stored.
    StoreTurn {
        claimed: Vec<(InHand, Claimed)>,
        stored: Vec<Ticket>,
    },
    /// The race between this attempt and somebody who wants to cancel is over.
    RaceEnded(InHand, RaceEnd),
    /// An attempt was made.
    Attempted(InHand, Settled),
    /// What follows from these records is acked.
    Acked(Vec<Ticket>, Written),
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A record between its pick and the end of its attempt.
struct InHand {
    ticket: Ticket,
    record: Record,
    delivery: Arc<DeliveryReady>,
    attempt: i32,
    pass: Pass,
}

/// A record that was picked and is not complete.
struct Open {
    partition: Partition,
    offset: i64,
    /// How much is still to be acked: what follows from it, and its outcome.
    awaits: u8,
}

struct Runner {
    worker: Worker,
    consumer: Box<dyn Consumer>,
    ledger: Ledger,
    queues: Queues,
    gates: Gates,
    steering: Steering,
    work: FuturesUnordered<Work>,
    open: HashMap<Ticket, Open>,
    next_ticket: Ticket,
    /// Records between their pick and the end of their attempt.
    attempts: usize,
    /// Picked, waiting for the next turn of the store.
    picked: Vec<InHand>,
    /// Outcomes waiting for the next turn of the store.
    outcomes: Vec<(Ticket, Outcome)>,
    oldest_outcome: Option<Instant>,
    store_busy: bool,
    /// What follows, waiting to be produced together, and from whom.
    outgoing: Vec<Outgoing>,
    outgoing_of: Vec<Ticket>,
    outgoing_is: Written,
    batches: usize,
    revoking: Vec<(Revocation, Instant)>,
    unread: Unread,
}

impl Runner {
    fn new(worker: Worker, consumer: Box<dyn Consumer>) -> Self {
        Self {
            consumer,
            ledger: Ledger::default(),
            queues: Queues::new(&worker.topics),
            gates: Gates::new(worker.limits.clone(), Instant::now()),
            steering: Steering::default(),
            worker,
            work: FuturesUnordered::new(),
            open: HashMap::new(),
            next_ticket: 0,
            attempts: 0,
            picked: Vec::new(),
            outcomes: Vec::new(),
            oldest_outcome: None,
            store_busy: false,
            outgoing: Vec::new(),
            outgoing_of: Vec::new(),
            outgoing_is: Written::default(),
            batches: 0,
            revoking: Vec::new(),
            unread: Unread::new(Stage::Deliver),
        }
    }

    /// Serves until shutdown or a failure; what is claimed is finished after either.
    async fn run(&mut self, shutdown: Shutdown) -> Result<(), StageError> {
        let served = self.serve(shutdown).await;
        let drained = self.drain().await;
        served.and(drained)
    }

    async fn serve(&mut self, mut shutdown: Shutdown) -> Result<(), StageError> {
        while !shutdown.is_asked() {
            let (wait, mut is_idle) = (self.wait(), false);
            tokio::select! {
                Some(done) = self.work.next() => self.take(done)?,
                turn = self.consumer.next(wait) => {
                    let turn = turn?;
                    is_idle = matches!(turn, Turn::Idle);
                    self.turn(turn).await?;
                }
                () = shutdown.asked() => break,
            }
            // Whatever else is done by now, so that what follows is one batch.
            while let Some(Some(done)) = self.work.next().now_or_never() {
                self.take(done)?;
            }
            self.steer();
            self.pick();
            self.dispatch(false);
            self.balance();
            self.commit();
            self.let_go();
            let (oldest, metrics) = (self.ledger.oldest(), &self.worker.metrics);
            metrics.lags(Stage::Deliver, oldest, is_idle);
            self.unread.look(self.consumer.as_ref(), metrics);
        }
        Ok(())
    }

    /// How long there is nothing else to do than to wait.
    fn wait(&mut self) -> Duration {
        let wait = match self.oldest_outcome {
            Some(oldest) if !self.store_busy => OUTCOME_PATIENCE.saturating_sub(oldest.elapsed()),
            _ => IDLE_WAIT,
        };
        wait.min(self.until_a_gate_opens())
    }

    async fn turn(&mut self, turn: Turn) -> Result<(), StageError> {
        match turn {
            Turn::Records(records) => self.receive(records).await?,
            Turn::Revoking(revocation) => self.stop_serving(revocation),
            Turn::Assigned(partitions) => self.queues.hold(&partitions),
            Turn::Idle => {}
        }
        Ok(())
    }

    async fn receive(&mut self, records: Vec<Record>) -> Result<(), StageError> {
        self.worker.metrics.read(Stage::Deliver, records.len());
        for record in records {
            let since = since(&record);
            self.ledger.take(&record.partition, record.offset, since);
            match self
                .worker
                .inbox
                .decode::<DeliveryReady>(&record.value)
                .await?
            {
                Ok(delivery) => self.queues.push(record, delivery),
                Err(error) => {
                    let letter = poison::undecodable(
                        Stage::Deliver.as_str(),
                        &source(&record),
                        &error,
                        now(),
                    );
                    let ticket = self.ticket(&record);
                    self.follow(ticket, &[Output::DeadLetter(letter)])?;
                }
            }
        }
        Ok(())
    }

    fn ticket(&mut self, record: &Record) -> Ticket {
        self.next_ticket += 1;
        let partition = record.partition.clone();
        self.open.insert(
            self.next_ticket,
            Open {
                partition,
                offset: record.offset,
                awaits: 0,
            },
        );
        self.next_ticket
    }

    /// Picks what may be sent now.
    fn pick(&mut self) {
        let now = Instant::now();
        self.steering.is_held_back = false;
        while self.attempts < self.worker.max_calls
            && self.picked.len() < CLAIMS_AT_ONCE
            && self.open.len() < self.worker.max_calls + MAX_UNACKED
        {
            let gates = &mut self.gates;
            let may_go = |channel, lane| gates.is_open(channel, lane, now);
            let Some(Waiting { record, delivery }) = self.queues.pick(may_go) else {
                self.steering.is_held_back = !self.queues.is_empty();
                break;
            };
            self.attempts += 1;
            let pass = self.gates.pass(delivery.identity.channel, now);
            let ticket = self.ticket(&record);
            self.picked.push(InHand {
                ticket,
                record,
                attempt: next_attempt(&delivery),
                pass,
                delivery: Arc::new(delivery),
            });
        }
    }

    /// Takes in what a future has done.
    fn take(&mut self, done: Done) -> Result<(), StageError> {
        match done {
            Done::StoreTurn { claimed, stored } => {
                self.store_busy = false;
                for ticket in stored {
                    self.acked(ticket);
                }
                for (item, claimed) in claimed {
                    self.claimed(item, claimed)?;
                }
            }
            Done::RaceEnded(item, RaceEnd::Sent) => self.start(item)?,
            Done::RaceEnded(item, RaceEnd::Cancelled) => self.withdraw(&item)?,
            Done::Attempted(item, settled) => self.attempted(&item, &settled)?,
            Done::Acked(tickets, written) => {
                self.batches -= 1;
                self.worker.metrics.wrote(Stage::Deliver, &written);
                for ticket in tickets {
                    self.acked(ticket);
                }
            }
        }
        Ok(())
    }

    fn balance(&mut self) {
        let (pause, resume) = self.queues.balance();
        if !pause.is_empty() {
            self.consumer.pause(&pause);
        }
        if !resume.is_empty() {
            self.consumer.resume(&resume);
        }
    }

    fn commit(&mut self) {
        let frontier = self.ledger.frontier();
        if !frontier.is_empty() {
            self.consumer.commit(&frontier);
        }
        self.worker.metrics.holds(Stage::Deliver, self.open.len());
    }

    /// Drops what is not claimed of partitions that are about to go; their next owner has it from
    /// where we commit.
    fn stop_serving(&mut self, revocation: Revocation) {
        self.queues.forget(revocation.partitions());
        self.drop_picked(|partition| revocation.partitions().contains(partition));
        self.revoking.push((revocation, Instant::now()));
    }

    fn drop_picked(&mut self, gone: impl Fn(&Partition) -> bool) {
        let picked = std::mem::take(&mut self.picked);
        let (dropped, kept) = picked
            .into_iter()
            .partition(|item| gone(&item.record.partition));
        self.picked = kept;
        for item in Vec::<InHand>::from_iter(dropped) {
            self.give_back(&item);
            self.attempts -= 1;
            self.open.remove(&item.ticket);
        }
    }

    /// Lets revoked partitions go once nothing of them is in hand, or time is up.
    fn let_go(&mut self) {
        let revoking = std::mem::take(&mut self.revoking);
        for (revocation, since) in revoking {
            let partitions = revocation.partitions();
            let in_hand = self
                .open
                .values()
                .any(|open| partitions.contains(&open.partition));
            let time_is_up = since.elapsed() > revocation.deadline().mul_f32(0.8);
            if in_hand && !time_is_up {
                self.revoking.push((revocation, since));
            } else {
                self.ledger.forget(partitions);
            }
        }
    }

    /// Finishes what is claimed, for a bounded time; what is not comes again.
    async fn drain(&mut self) -> Result<(), StageError> {
        let until = Instant::now() + DRAIN;
        self.drop_picked(|_| true);
        while !self.open.is_empty() {
            self.dispatch(true);
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.work.next()).await {
                Ok(Some(done)) => self.take(done)?,
                Ok(None) | Err(_) => break,
            }
        }
        self.commit();
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use herald_schemas::{
        ids::NotificationId,
        records::{DeliveryReady, Identity, Message},
        words::{Channel, Priority},
    };

    /// A first delivery to `recipient`.
    pub(crate) fn delivery(channel: Channel, priority: Priority, recipient: &str) -> DeliveryReady {
        DeliveryReady {
            identity: Identity {
                id: NotificationId::random(),
                recipient: recipient.to_owned(),
                channel,
                priority,
                batch_id: None,
                event_id: None,
                rule_id: None,
                requeued_from: None,
                template_id: None,
                template_version: None,
                idempotency_key: None,
                correlation_id: None,
                traceparent: None,
                created_at: 0,
                send_at: None,
                expires_at: None,
                catalog_version: 0,
                source: None,
            },
            message: Message {
                content: "Hello".to_owned(),
                subject: None,
                html: None,
                metadata: None,
            },
            message_known: true,
            attempts: 0,
            due_at: None,
            last_error: None,
        }
    }
}
