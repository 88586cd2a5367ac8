//! Cancelling while deliver runs: what was promised holds, whoever comes first and whoever dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use herald_runtime::{
    cancel::{Cancelled, cancel, status},
    stage::Stage,
    worker::now,
};
use herald_schemas::{
    records::{DeadLetter, DeliveryReady},
    words::{Channel, Priority, Status},
};
use herald_stages::Output;
use herald_store::{CancelMark, Claim, Race, RaceEnd};

use self::support::{
    Carrier, Rows, World, accepts, delivery, eventually, refuses, retries_after, row,
};

/// What a cancel of one takes.
const ONE: &[Status] = &[Status::Pending, Status::Scheduled];
/// What a cancel of a batch takes.
const BATCH: &[Status] = &[Status::Pending, Status::Scheduled, Status::Retrying];
const DELIVERING: &[Stage] = &[Stage::Deliver, Stage::Retry];

/// One notification, and all that can happen to it.
struct Bench {
    world: World,
    delivery: DeliveryReady,
    rows: Rows,
}

impl Bench {
    async fn new(carrier: Arc<Carrier>) -> Self {
        Self::with(carrier, delivery(0)).await
    }

    async fn with(carrier: Arc<Carrier>, delivery: DeliveryReady) -> Self {
        let world = World::new(retries_after(&[30]), carrier).await;
        let wanted = Output::Deliver(delivery.clone());
        world.worker.outbox.send(&[wanted]).await.unwrap();
        let rows = world.rows().await;
        Self {
            world,
            delivery,
            rows,
        }
    }

    /// As the API does whose row is the first one still.
    async fn cancel(&self, from: &[Status]) -> Cancelled {
        let rows = [row(&self.delivery)];
        let worker = &self.world.worker;
        let answers = cancel(worker.store.as_ref(), &rows, from, &worker.settings).await;
        answers.unwrap().remove(0)
    }

    /// A mark of somebody who then died.
    async fn mark(&self) {
        let identity = &self.delivery.identity;
        let mark = CancelMark {
            id: identity.id,
            recipient: identity.recipient.clone(),
            mark: 1,
            send_at: None,
        };
        let marked = self.world.worker.store.mark_cancelled(&[mark]).await;
        marked.unwrap();
    }

    async fn is_called(&self, times: usize) {
        eventually("it is called", async || {
            self.world.carrier.called() == times
        })
        .await;
    }

    async fn becomes(&mut self, status: Status) {
        let id = self.delivery.identity.id;
        eventually(&format!("it is {status}"), async || {
            self.rows.status(id).await == Some(status)
        })
        .await;
    }

    /// Whether it is still so when nothing is left to do.
    async fn stays(&mut self, status: Status) {
        let topic = self
            .world
            .worker
            .topics
            .deliveries(Channel::Log, Priority::Normal);
        eventually("all is delivered", async || {
            self.world
                .is_done(Stage::Deliver, std::slice::from_ref(&topic))
                .await
        })
        .await;
        let stands = self.rows.status(self.delivery.identity.id).await;
        assert_eq!(stands, Some(status));
    }

    async fn dead_letters(&self) -> usize {
        let topic = self.world.worker.topics.dead_letters();
        let mut letters = self.world.read::<DeadLetter>(&topic).await;
        letters.catch_up().await.len()
    }
}

fn first_then(first: &'static str) -> Arc<Carrier> {
    Carrier::new(move |call| match call.attempt {
        1 => refuses(first),
        _ => accepts(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_before_its_claim_is_never_sent_and_deliver_says_so_itself() {
    let mut bench = Bench::new(Carrier::willing()).await;
    assert_eq!(bench.cancel(ONE).await, Cancelled::Yes);
    // The API dies before it can write the status.
    let running = bench.world.start(DELIVERING);
    bench.becomes(Status::Cancelled).await;
    bench.stays(Status::Cancelled).await;
    running.stop().await;
    assert_eq!(bench.world.carrier.called(), 0);
    assert_eq!(bench.dead_letters().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_sent_cannot_be_cancelled_and_is_sent() {
    let mut bench = Bench::new(Carrier::willing()).await;
    bench.world.carrier.answer(false);
    let running = bench.world.start(DELIVERING);
    bench.is_called(1).await;
    let in_flight = Cancelled::No(Status::Processing);
    assert_eq!(bench.cancel(ONE).await, in_flight);
    assert_eq!(bench.cancel(BATCH).await, in_flight);
    bench.world.carrier.answer(true);
    bench.becomes(Status::Sent).await;
    bench.stays(Status::Sent).await;
    running.stop().await;
    assert_eq!(bench.world.carrier.arrived().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_a_crash_cut_off_cannot_be_cancelled_and_is_made_again() {
    let mut bench = Bench::new(Carrier::willing()).await;
    bench.world.carrier.answer(false);
    let killed = bench.world.start(DELIVERING);
    bench.is_called(1).await;
    killed.kill().await;
    let answer = bench.cancel(ONE).await;
    assert_eq!(answer, Cancelled::No(Status::Processing));
    bench.world.carrier.answer(true);
    let running = bench.world.start(DELIVERING);
    bench.becomes(Status::Sent).await;
    bench.stays(Status::Sent).await;
    running.stop().await;
    assert_eq!(bench.world.carrier.called(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_one_who_died_does_not_make_a_call_that_a_crash_cut_off_undone() {
    let mut bench = Bench::new(Carrier::willing()).await;
    bench.world.carrier.answer(false);
    let killed = bench.world.start(DELIVERING);
    bench.is_called(1).await;
    // One process was both, and is killed.
    bench.mark().await;
    killed.kill().await;
    bench.world.carrier.answer(true);
    let running = bench.world.start(DELIVERING);
    // It has arrived already: cancelled would be a lie.
    bench.becomes(Status::Sent).await;
    bench.stays(Status::Sent).await;
    running.stop().await;
    assert_eq!(bench.cancel(ONE).await, Cancelled::No(Status::Sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_saw_a_mark_and_died_comes_to_the_same_end() {
    let mut bench = Bench::new(Carrier::willing()).await;
    assert_eq!(bench.cancel(ONE).await, Cancelled::Yes);
    let identity = &bench.delivery.identity;
    let claim = Claim {
        id: identity.id,
        recipient: identity.recipient.clone(),
        attempt: 1,
        worker: "died".to_owned(),
    };
    let claimed = bench.world.worker.store.claim(&[claim], &[]).await.unwrap();
    assert!(claimed[0].cancel_marked);
    // Promised is promised, though a claim is there now.
    assert_eq!(bench.cancel(ONE).await, Cancelled::Yes);
    let running = bench.world.start(DELIVERING);
    bench.becomes(Status::Cancelled).await;
    bench.stays(Status::Cancelled).await;
    running.stop().await;
    assert_eq!(bench.world.carrier.called(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_was_refused_does_not_stop_the_next_attempt() {
    let mut bench = Bench::new(first_then("transient")).await;
    bench.world.carrier.answer(false);
    let running = bench.world.start(DELIVERING);
    bench.is_called(1).await;
    let answer = bench.cancel(BATCH).await;
    assert_eq!(answer, Cancelled::No(Status::Processing));
    let (store, identity) = (&bench.world.worker.store, &bench.delivery.identity);
    let claim = Claim {
        id: identity.id,
        recipient: identity.recipient.clone(),
        attempt: 1,
        worker: "looks".to_owned(),
    };
    let claimed = store.claim(&[claim], &[]).await.unwrap();
    assert!(!claimed[0].cancel_marked, "its mark is gone");
    // Another one is refused, and dies before it can take its mark back.
    bench.mark().await;
    let race = Race {
        id: identity.id,
        recipient: identity.recipient.clone(),
        attempt: 1,
        send_at: None,
    };
    let ended = store.end_race(&race, RaceEnd::Sent).await.unwrap();
    assert_eq!(ended, RaceEnd::Sent);
    bench.world.carrier.answer(true);
    bench.becomes(Status::Sent).await;
    bench.stays(Status::Sent).await;
    running.stop().await;
    assert_eq!(bench.world.carrier.called(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_twice_is_cancelling_however_far_deliver_is() {
    let mut bench = Bench::new(Carrier::willing()).await;
    assert_eq!(bench.cancel(ONE).await, Cancelled::Yes);
    assert_eq!(bench.cancel(BATCH).await, Cancelled::Yes);
    let running = bench.world.start(DELIVERING);
    bench.becomes(Status::Cancelled).await;
    // By a row that is behind, and by one that is not.
    assert_eq!(bench.cancel(ONE).await, Cancelled::Yes);
    let cancelled = bench.rows.now().await[&bench.delivery.identity.id].clone();
    let (store, settings) = (&bench.world.worker.store, &bench.world.worker.settings);
    let again = cancel(store.as_ref(), &[cancelled], ONE, settings).await;
    assert_eq!(again.unwrap(), [Cancelled::Yes]);
    bench.stays(Status::Cancelled).await;
    running.stop().await;
    assert_eq!(bench.world.carrier.called(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_or_given_up_cannot_be_cancelled() {
    let refusing = Carrier::new(|_| refuses("permanent"));
    for (carrier, end) in [
        (Carrier::willing(), Status::Sent),
        (refusing, Status::Failed),
    ] {
        let mut bench = Bench::new(carrier).await;
        let running = bench.world.start(DELIVERING);
        bench.becomes(end).await;
        // Its outcome is stored by then: it waits for nobody.
        bench.stays(end).await;
        running.stop().await;
        assert_eq!(bench.cancel(BATCH).await, Cancelled::No(end), "row behind");
        let ended = bench.rows.now().await[&bench.delivery.identity.id].clone();
        let (store, settings) = (&bench.world.worker.store, &bench.world.worker.settings);
        let answers = cancel(store.as_ref(), &[ended], BATCH, settings).await;
        assert_eq!(answers.unwrap(), [Cancelled::No(end)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_after_it_was_cancelled_stays_cancelled_without_a_dead_letter() {
    let mut late = delivery(0);
    late.identity.expires_at = Some(now() - 1);
    let mut bench = Bench::with(Carrier::willing(), late).await;
    assert_eq!(bench.cancel(ONE).await, Cancelled::Yes);
    let cancelled = status(&row(&bench.delivery), now());
    bench.world.worker.outbox.send(&[cancelled]).await.unwrap();
    let running = bench.world.start(DELIVERING);
    bench.becomes(Status::Cancelled).await;
    bench.stays(Status::Cancelled).await;
    running.stop().await;
    assert_eq!(bench.dead_letters().await, 0);
    assert_eq!(bench.world.carrier.called(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_next_attempt_is_cancelled_only_by_who_takes_that_too() {
    for (from, taken) in [(ONE, false), (BATCH, true)] {
        let mut bench = Bench::new(first_then("transient")).await;
        // Nobody makes the next attempt yet.
        let delivering = bench.world.start(&[Stage::Deliver]);
        bench.becomes(Status::Retrying).await;
        bench.stays(Status::Retrying).await;
        let answer = match taken {
            true => Cancelled::Yes,
            false => Cancelled::No(Status::Retrying),
        };
        assert_eq!(bench.cancel(from).await, answer);
        assert_eq!(bench.cancel(from).await, answer);
        let retrying = bench.world.start(&[Stage::Retry]);
        let end = match taken {
            true => Status::Cancelled,
            false => Status::Sent,
        };
        bench.becomes(end).await;
        bench.stays(end).await;
        delivering.stop().await;
        retrying.stop().await;
        assert_eq!(bench.world.carrier.arrived().len(), usize::from(!taken));
    }
}
