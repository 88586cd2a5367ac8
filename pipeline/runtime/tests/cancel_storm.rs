//! Thousands of notifications, cancelled at random while they are sent, retried, and while the
//! process that sends them is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use herald_channels::Call;
use herald_runtime::{
    cancel::{Cancelled, cancel, status},
    stage::Stage,
    worker::now,
};
use herald_schemas::{
    ids::NotificationId,
    records::{DeadLetter, DeliveryReady},
    words::{Channel, Priority, Status},
};
use herald_stages::Output;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::support::{
    Carrier, Says, World, accepts, delivery, eventually, refuses, retries_after, row,
};

const NOTIFICATIONS: usize = 4_000;
const CANCELLERS: u64 = 4;
const KILLS: usize = 4;
const ONE: &[Status] = &[Status::Pending, Status::Scheduled];
const BATCH: &[Status] = &[Status::Pending, Status::Scheduled, Status::Retrying];

/// What was said of one notification.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    yes: bool,
    no: bool,
}

struct Storm {
    world: World,
    deliveries: Vec<DeliveryReady>,
    produced: AtomicUsize,
    said: Mutex<Vec<Said>>,
    over: AtomicBool,
}

/// The same for the same call: what is called again after a crash goes as it did before.
fn says(seed: u64, call: &Call) -> Says {
    let id = call.delivery.identity.id.uuid().as_u128() as u64;
    let mut rng = fastrand::Rng::with_seed(seed ^ id ^ u64::from(call.attempt.unsigned_abs()));
    let after = Duration::from_millis(rng.u64(0..=5));
    let says = match rng.u32(0..100) {
        0..30 => refuses("transient"),
        30..33 => refuses("permanent"),
        _ => accepts(),
    };
    Says { after, ..says }
}

impl Storm {
    async fn new(seed: u64) -> Arc<Self> {
        let carrier = Carrier::new(move |call| says(seed, call));
        let deliveries: Vec<DeliveryReady> = (0..NOTIFICATIONS)
            .map(|number| {
                let mut delivery = delivery(number);
                // Some of them wait for each other.
                delivery.identity.recipient = format!("r{}", number % 1_500);
                delivery
            })
            .collect();
        Arc::new(Self {
            world: World::new(retries_after(&[20, 60]), carrier).await,
            said: Mutex::new(vec![Said::default(); deliveries.len()]),
            deliveries,
            produced: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        })
    }

    async fn produce(&self) {
        for chunk in self.deliveries.chunks(50) {
            let wanted = chunk.iter().cloned().map(Output::Deliver);
            let wanted: Vec<Output> = wanted.collect();
            self.world.worker.outbox.send(&wanted).await.unwrap();
            self.produced.fetch_add(chunk.len(), Ordering::SeqCst);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cancels at random until all is over.
    async fn cancel(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while !self.over.load(Ordering::SeqCst) {
            let produced = self.produced.load(Ordering::SeqCst);
            let newest = (produced + 20).min(NOTIFICATIONS);
            // Mostly such as are on their way.
            let oldest = newest.saturating_sub(rng.choice([150, 600, NOTIFICATIONS]).unwrap());
            let from = if rng.bool() { ONE } else { BATCH };
            let mut chosen: Vec<usize> = (0..rng.usize(1..12))
                .map(|_| rng.usize(oldest..newest))
                .collect();
            chosen.sort_unstable();
            chosen.dedup();
            self.cancel_these(&chosen, from, &mut rng).await;
            sleep(Duration::from_millis(rng.u64(0..4))).await;
        }
    }

    async fn cancel_these(&self, chosen: &[usize], from: &[Status], rng: &mut fastrand::Rng) {
        let worker = &self.world.worker;
        let before: Vec<Said> = {
            let said = self.said.lock().unwrap();
            chosen.iter().map(|number| said[*number]).collect()
        };
        let rows: Vec<_> = chosen.iter().map(|n| row(&self.deliveries[*n])).collect();
        let answers = cancel(worker.store.as_ref(), &rows, from, &worker.settings).await;
        let mut written = Vec::new();
        for (place, answer) in answers.unwrap().into_iter().enumerate() {
            let mut said = self.said.lock().unwrap();
            let said = &mut said[chosen[place]];
            match answer {
                Cancelled::Yes => said.yes = true,
                Cancelled::No(status) => {
                    let by_kind = status == Status::Retrying && !from.contains(&status);
                    assert!(!before[place].yes || by_kind, "promised, then {status}");
                    said.no = true;
                }
            }
            // Of the others the API dies first.
            if answer == Cancelled::Yes && rng.bool() {
                written.push(status(&rows[place], now()));
            }
        }
        worker.outbox.send(&written).await.unwrap();
    }

    /// Whether nothing is left to do.
    async fn is_over(&self) -> bool {
        let topics = &self.world.worker.topics;
        let deliveries = [topics.deliveries(Channel::Log, Priority::Normal)];
        let tiers = self.world.worker.settings.retry.ladder().tiers();
        let retries: Vec<String> = tiers
            .iter()
            .map(|tier| topics.retries(&tier.name))
            .collect();
        // Deliver once more: a record may just have gone from a tier to it.
        self.produced.load(Ordering::SeqCst) == NOTIFICATIONS
            && self.world.is_done(Stage::Deliver, &deliveries).await
            && self.world.is_done(Stage::Retry, &retries).await
            && self.world.is_done(Stage::Deliver, &deliveries).await
    }

    async fn is_as_was_said(&self) {
        let topics = &self.world.worker.topics;
        let arrived: HashSet<NotificationId> = self.world.carrier.arrived().into_iter().collect();
        let mut letters = self.world.read::<DeadLetter>(&topics.dead_letters()).await;
        let given_up: HashSet<NotificationId> = letters
            .catch_up()
            .await
            .iter()
            .map(|letter| letter.identity.as_ref().unwrap().id)
            .collect();
        let mut rows = self.world.rows().await;
        let rows = rows.now().await;
        let (mut yes, mut no, mut sent) = (0, 0, 0);
        for (delivery, said) in self.deliveries.iter().zip(self.said.lock().unwrap().iter()) {
            let id = delivery.identity.id;
            let status = rows[&id].status;
            let facts = format!("{id}: {said:?}, {status}");
            assert_eq!(arrived.contains(&id), status == Status::Sent, "{facts}");
            assert_eq!(given_up.contains(&id), status == Status::Failed, "{facts}");
            assert_eq!(said.yes, status == Status::Cancelled, "{facts}");
            assert!(status.is_terminal(), "{facts}");
            yes += usize::from(said.yes);
            no += usize::from(said.no && !said.yes);
            sent += usize::from(status == Status::Sent);
        }
        let again = self.world.carrier.arrived().len() - arrived.len();
        println!("{yes} cancelled, {no} refused, {sent} sent, {again} of them again after a kill");
        assert!(yes > 50 && no > 50 && sent > 50, "hardly a storm");
        // What was in flight, and what waited to be stored.
        assert!(again <= KILLS * (self.world.worker.max_calls + 200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_that_was_cancelled_arrives_and_none_that_was_refused_is_left_undone() {
    let seed = match std::env::var("HERALD_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    };
    println!("HERALD_TEST_SEED={seed}");
    let began = Instant::now();
    let storm = Storm::new(seed).await;
    let mut tasks = JoinSet::new();
    let producing = Arc::clone(&storm);
    tasks.spawn(async move { producing.produce().await });
    for number in 0..CANCELLERS {
        let cancelling = Arc::clone(&storm);
        tasks.spawn(async move { cancelling.cancel(seed.wrapping_add(number)).await });
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..KILLS {
        let running = storm.world.start(&[Stage::Deliver, Stage::Retry]);
        sleep(Duration::from_millis(rng.u64(100..400))).await;
        running.kill().await;
    }
    let running = storm.world.start(&[Stage::Deliver, Stage::Retry]);
    eventually("all is over", async || storm.is_over().await).await;
    storm.over.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    running.stop().await;
    storm.is_as_was_said().await;
    println!("{} ms", began.elapsed().as_millis());
}
