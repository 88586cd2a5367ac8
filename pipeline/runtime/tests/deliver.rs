//! deliver on the embedded engines, with a log that can be told to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use herald_broker::{
    Acks, Broker, BrokerError, Consumer, Offsets, Outgoing, Partition, Producer, Subscription,
    TopicSpec, Turn, embedded::EmbeddedBroker,
};
use herald_channels::{Call, CallOutcome, Provider, Reply};
use herald_runtime::{
    catalogs::Catalogs,
    inbox::Inbox,
    metrics::Metrics,
    outbox::Outbox,
    providers::Providers,
    setup,
    stage::Stage,
    worker::{Shutdown, Worker, now},
};
use herald_schemas::{
    codec::{Codec, Framing},
    ids::NotificationId,
    records::{DeliveryReady, Identity, Message},
    topics::Topics,
    words::{Channel, Priority},
};
use herald_stages::{Output, Settings};
use herald_store::{Layout, Store, sqlite::SqliteStore};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Counts the calls and accepts them all, once it is told to answer.
struct Counting {
    calls: AtomicUsize,
    answers: watch::Sender<bool>,
}

#[async_trait]
impl Provider for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    async fn send(&self, _: &Call) -> Reply {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.subscribe();
        answers.wait_for(|answers| *answers).await.unwrap();
        Reply {
            outcome: CallOutcome::Accepted {
                provider_message_id: None,
            },
            response: None,
        }
    }
}

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

/// A broker whose next consumer fails when it is told to, once.
struct Failing {
    inside: Arc<dyn Broker>,
    fail: Arc<AtomicBool>,
}

#[async_trait]
impl Broker for Failing {
    async fn setup(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        self.inside.setup(topics).await
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>, BrokerError> {
        self.inside.producer().await
    }

    async fn subscribe(&self, what: Subscription) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(FailingConsumer {
            inside: Mutex::new(self.inside.subscribe(what).await?),
            fail: Arc::clone(&self.fail),
        }))
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        self.inside.partitions(topic).await
    }

    async fn end_offsets(&self, partitions: &[Partition]) -> Result<Offsets, BrokerError> {
        self.inside.end_offsets(partitions).await
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Offsets, BrokerError> {
        self.inside.committed(group, partitions).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.inside.ping().await
    }
}

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

    async fn lag(&self) -> Result<Vec<(Partition, i64)>, BrokerError> {
        Err(BrokerError::Unavailable("nobody asks here".to_owned()))
    }

    async fn close(self: Box<Self>) {
        self.inside.into_inner().unwrap().close().await;
    }
}

struct Bench {
    worker: Worker,
    calls: Arc<Counting>,
    shut: Arc<AtomicBool>,
    fail: Arc<AtomicBool>,
    _directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (topics, settings) = (Topics::default(), Arc::new(Settings::default()));
        let ladder = settings.retry.ladder();
        let broker: Arc<dyn Broker> = EmbeddedBroker::open(&directory.path().join("log")).unwrap();
        let specs: Vec<_> = setup::topics(&topics, ladder, 2, Duration::from_secs(3_600))
            .into_iter()
            .map(|topic| topic.spec)
            .collect();
        broker.setup(&specs).await.unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
        let layout = Layout {
            status_shards: 2,
            claim_shards: 2,
            bucket_minutes: 60,
            retention_days: 1,
        };
        store.setup(layout).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let codec = Codec::new(&Framing::SingleObject).unwrap();
        let shut = Arc::new(AtomicBool::new(false));
        let door = Door {
            shut: Arc::clone(&shut),
            inside: broker.producer().await.unwrap(),
        };
        let calls = Arc::new(Counting {
            calls: AtomicUsize::new(0),
            answers: watch::channel(true).0,
        });
        let fail = Arc::new(AtomicBool::new(false));
        let broker = Arc::new(Failing {
            inside: broker,
            fail: Arc::clone(&fail),
        });
        let mut providers = Providers::default();
        providers.set(Channel::Log, vec![Arc::clone(&calls) as Arc<dyn Provider>]);
        let worker = Worker {
            outbox: Outbox::new(codec.clone(), &topics, ladder, Arc::new(door)),
            catalogs: Catalogs::load(Arc::clone(&store)).await.unwrap(),
            broker,
            store,
            topics,
            inbox: Inbox::new(codec, None),
            settings,
            providers: Arc::new(ArcSwap::from_pointee(providers)),
            metrics: Metrics::new().unwrap(),
            name: "w".into(),
            max_calls: 100,
        };
        Self {
            worker,
            calls,
            shut,
            fail,
            _directory: directory,
        }
    }

    async fn enqueue(&self, count: usize) {
        let deliveries: Vec<Output> = (0..count)
            .map(|number| Output::Deliver(delivery(number)))
            .collect();
        self.worker.outbox.send(&deliveries).await.unwrap();
    }

    fn called(&self) -> usize {
        self.calls.calls.load(Ordering::SeqCst)
    }

    fn answer(&self, answers: bool) {
        self.calls.answers.send_replace(answers);
    }

    fn run(&self) -> (watch::Sender<bool>, JoinHandle<()>) {
        let (stop, shutdown) = Shutdown::new();
        let worker = self.worker.clone();
        let running = async move { worker.run(&[Stage::Deliver], shutdown).await };
        (stop, tokio::spawn(running))
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

fn delivery(number: usize) -> DeliveryReady {
    let identity = Identity {
        id: NotificationId::derived(now(), &[&number.to_be_bytes()]),
        recipient: format!("r{number}"),
        channel: Channel::Log,
        priority: Priority::Normal,
        batch_id: None,
        event_id: None,
        rule_id: None,
        requeued_from: None,
        template_id: None,
        template_version: None,
        idempotency_key: None,
        correlation_id: None,
        traceparent: None,
        created_at: now(),
        send_at: None,
        expires_at: None,
        catalog_version: 0,
        source: None,
    };
    DeliveryReady {
        identity,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_takes_nothing_what_is_to_be_written_does_not_pile_up() {
    let bench = Bench::new().await;
    bench.enqueue(5_000).await;
    bench.shut.store(true, Ordering::SeqCst);
    let (stop, running) = bench.run();
    let called = bench.called_in_the_end(1).await;
    assert!(
        called <= 2_100,
        "{called} calls whose outcome nobody could be told"
    );
    bench.shut.store(false, Ordering::SeqCst);
    assert_eq!(bench.called_in_the_end(5_000).await, 5_000, "each once");
    stop.send(true).unwrap();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_fails_finishes_the_calls_that_it_has_begun() {
    let bench = Bench::new().await;
    bench.answer(false);
    bench.enqueue(50).await;
    let (stop, running) = bench.run();
    assert_eq!(bench.called_in_the_end(50).await, 50);
    bench.fail.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + DEADLINE;
    while bench.fail.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "the consumer was not asked");
        sleep(Duration::from_millis(20)).await;
    }
    bench.answer(true);
    // Started anew, it knows how they ended.
    assert_eq!(bench.called_in_the_end(50).await, 50, "each once");
    stop.send(true).unwrap();
    running.await.unwrap();
}
