//! deliver on the embedded engines, with a log that can be told to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use herald_broker::{
    Acks, BrokerError, Consumer, Lag, Offsets, Outgoing, Partition, Producer, Turn,
};
use herald_runtime::{outbox::Outbox, stage::Stage};
use herald_stages::{Output, Settings};
use tokio::time::{Instant, sleep};

use self::support::{Carrier, DEADLINE, Process, Subscribing, World, delivery, eventually};

/// A producer that takes nothing while it is shut.
struct Door {
    shut: Arc<AtomicBool>,
    inside: Arc<dyn Producer>,
}

#[async_trait]
impl Producer for Door {
    async fn enqueue(&self, batch: Vec<Outgoing>) -> Result<Acks, BrokerError> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(BrokerError::Unavailable("shut".to_owned()));
        }
        self.inside.enqueue(batch).await
    }
}

/// Fails when it is told to, once.
struct FailingConsumer {
    /// Only so that it is Sync.
    inside: Mutex<Box<dyn Consumer>>,
    fail: Arc<AtomicBool>,
}

impl FailingConsumer {
    fn inside(&mut self) -> &mut dyn Consumer {
        self.inside.get_mut().unwrap().as_mut()
    }
}

#[async_trait]
impl Consumer for FailingConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Turn, BrokerError> {
        if self.fail.swap(false, Ordering::SeqCst) {
            return Err(BrokerError::Unavailable("failed as told".to_owned()));
        }
        self.inside().next(wait).await
    }

    fn commit(&mut self, frontier: &Offsets) {
        self.inside().commit(frontier);
    }

    fn pause(&mut self, partitions: &[Partition]) {
        self.inside().pause(partitions);
    }

    fn resume(&mut self, partitions: &[Partition]) {
        self.inside().resume(partitions);
    }

    async fn seek(&mut self, to: &Offsets) -> Result<(), BrokerError> {
        self.inside().seek(to).await
    }

    fn lag(&self) -> Lag {
        self.inside.lock().unwrap().lag()
    }

    async fn close(self: Box<Self>) {
        self.inside.into_inner().unwrap().close().await;
    }
}

struct Bench {
    world: World,
    shut: Arc<AtomicBool>,
    fail: Arc<AtomicBool>,
}

impl Bench {
    async fn new() -> Self {
        let mut world = World::new(Settings::default(), Carrier::willing()).await;
        let worker = &mut world.worker;
        let shut = Arc::new(AtomicBool::new(false));
        let door = Door {
            shut: Arc::clone(&shut),
            inside: worker.broker.producer().await.unwrap(),
        };
        let (codec, ladder) = (
            worker.outbox.codec().clone(),
            worker.settings.retry.ladder(),
        );
        worker.outbox = Outbox::new(codec, &worker.topics, ladder, Arc::new(door));
        let fail = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&fail);
        worker.broker = Subscribing::new(&worker.broker, move |inside, what| {
            let fail = Arc::clone(&told);
            Box::pin(async move {
                let inside = Mutex::new(inside.subscribe(what).await?);
                Ok(Box::new(FailingConsumer { inside, fail }) as Box<dyn Consumer>)
            })
        });
        Self { world, shut, fail }
    }

    async fn enqueue(&self, count: usize) {
        let deliveries: Vec<Output> = (0..count)
            .map(|number| Output::Deliver(delivery(number)))
            .collect();
        self.world.worker.outbox.send(&deliveries).await.unwrap();
    }

    fn called(&self) -> usize {
        self.world.carrier.called()
    }

    fn run(&self) -> Process {
        self.world.start(&[Stage::Deliver])
    }

    /// How many were called once no more are, for a second.
    async fn called_in_the_end(&self, at_least: usize) -> usize {
        let deadline = Instant::now() + DEADLINE;
        let (mut called, mut since) = (self.called(), Instant::now());
        while called < at_least || since.elapsed() < Duration::from_secs(1) {
            assert!(Instant::now() < deadline, "{called} of {at_least} called");
            sleep(Duration::from_millis(20)).await;
            if self.called() != called {
                (called, since) = (self.called(), Instant::now());
            }
        }
        called
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_takes_nothing_what_is_to_be_written_does_not_pile_up() {
    let bench = Bench::new().await;
    bench.enqueue(5_000).await;
    bench.shut.store(true, Ordering::SeqCst);
    let running = bench.run();
    let called = bench.called_in_the_end(1).await;
    assert!(
        called <= 2_100,
        "{called} calls whose outcome nobody could be told"
    );
    bench.shut.store(false, Ordering::SeqCst);
    assert_eq!(bench.called_in_the_end(5_000).await, 5_000, "each once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_fails_finishes_the_calls_that_it_has_begun() {
    let bench = Bench::new().await;
    bench.world.carrier.answer(false);
    bench.enqueue(50).await;
    let running = bench.run();
    assert_eq!(bench.called_in_the_end(50).await, 50);
    bench.fail.store(true, Ordering::SeqCst);
    eventually("the consumer was asked", async || {
        !bench.fail.load(Ordering::SeqCst)
    })
    .await;
    bench.world.carrier.answer(true);
    // Started anew, it knows how they ended.
    assert_eq!(bench.called_in_the_end(50).await, 50, "each once");
    running.stop().await;
}
