//! A worker on the embedded engines, a provider that does as it is told, and what was said about
//! the notifications. What not every test of this folder uses.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use herald_broker::{
    Broker, BrokerError, Consumer, Offsets, Partition, Producer, Start, Subscription, TopicSpec,
    Turn, embedded::EmbeddedBroker,
};
use herald_channels::{Call, CallOutcome, Provider, Reply};
use herald_runtime::{
    catalogs::Catalogs,
    inbox::Inbox,
    limits::Limits,
    metrics::Metrics,
    outbox::Outbox,
    peers::Peers,
    providers::Providers,
    setup,
    stage::Stage,
    worker::{Serves, Shutdown, Worker, now},
};
use herald_schemas::{
    codec::{AvroRecord, Codec, Framing},
    ids::{NotificationId, UnixMs},
    records::{DeliveryReady, Failure, Identity, Message, StatusChanged},
    rows::NotificationRow,
    topics::Topics,
    words::{Channel, Priority, Status},
};
use herald_stages::{
    Settings,
    materialize::fold,
    retry::{Backoff, Ladder, Policy, Tier},
};
use herald_store::{Layout, Store, sqlite::SqliteStore};
use tempfile::TempDir;
use tokio::{
    runtime,
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PARTITIONS: i32 = 2;

/// Waits until `what` is so, and says what it was not when it takes too long.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A log, a store, and a worker that uses them.
pub(crate) struct World {
    pub(crate) worker: Worker,
    partitions: i32,
    pub(crate) carrier: Arc<Carrier>,
    _directory: TempDir,
}

impl World {
    pub(crate) async fn new(settings: Settings, carrier: Arc<Carrier>) -> Self {
        Self::of(PARTITIONS, settings, carrier).await
    }

    /// With so many partitions of each topic.
    pub(crate) async fn of(partitions: i32, settings: Settings, carrier: Arc<Carrier>) -> Self {
        let directory = TempDir::new().unwrap();
        let (topics, settings) = (Topics::default(), Arc::new(settings));
        let ladder = settings.retry.ladder();
        let broker: Arc<dyn Broker> = EmbeddedBroker::open(&directory.path().join("log")).unwrap();
        let specs: Vec<_> = setup::topics(&topics, ladder, partitions, Duration::from_secs(3_600))
            .into_iter()
            .map(|topic| topic.spec)
            .collect();
        broker.setup(&specs).await.unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
        let layout = Layout {
            status_shards: partitions as u32,
            claim_shards: partitions as u32,
            bucket_minutes: 60,
            retention_days: 1,
        };
        store.setup(layout).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let codec = Codec::new(&Framing::SingleObject).unwrap();
        let mut providers = Providers::default();
        providers.set(
            Channel::Log,
            vec![Arc::clone(&carrier) as Arc<dyn Provider>],
        );
        let producer = broker.producer().await.unwrap();
        let worker = Worker {
            outbox: Outbox::new(codec.clone(), &topics, ladder, producer),
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
            limits: Limits::default(),
            peers: Peers::new("w", "w"),
            serves: Serves::default(),
            partitions: partitions as u32,
        };
        Self {
            worker,
            partitions,
            carrier,
            _directory: directory,
        }
    }

    /// Starts a process of its own that runs these stages.
    pub(crate) fn start(&self, stages: &'static [Stage]) -> Process {
        Process::start(self.worker.clone(), stages)
    }

    /// Whether the group of a stage has done all that these topics hold.
    pub(crate) async fn is_done(&self, stage: Stage, topics: &[String]) -> bool {
        let partitions: Vec<Partition> = topics
            .iter()
            .flat_map(|topic| {
                (0..self.partitions).map(|index| Partition::new(topic.as_str(), index))
            })
            .collect();
        let (broker, group) = (
            &self.worker.broker,
            self.worker.topics.group(stage.as_str()),
        );
        let ends = broker.end_offsets(&partitions).await.unwrap();
        let committed = broker.committed(&group, &partitions).await.unwrap();
        let at = |offsets: &Offsets, partition| offsets.get(partition).copied().unwrap_or(0);
        partitions
            .iter()
            .all(|partition| at(&committed, partition) >= at(&ends, partition))
    }

    /// A reader of a whole topic.
    pub(crate) async fn read<R: AvroRecord>(&self, topic: &str) -> Reader<R> {
        let what = Subscription {
            group: None,
            topics: vec![topic.to_owned()],
            start: Start::Earliest,
            max_batch: 1_000,
        };
        Reader {
            consumer: self.worker.broker.subscribe(what).await.unwrap(),
            inbox: self.worker.inbox.clone(),
            records: Vec::new(),
            times: Vec::new(),
        }
    }

    pub(crate) async fn rows(&self) -> Rows {
        Rows {
            reader: self.read(&self.worker.topics.status()).await,
            rows: HashMap::new(),
        }
    }
}

type Subscribed = BoxFuture<'static, Result<Box<dyn Consumer>, BrokerError>>;

/// A broker to which one subscribes in another way.
pub(crate) struct Subscribing<F> {
    inside: Arc<dyn Broker>,
    subscribe: F,
}

impl<F: Fn(Arc<dyn Broker>, Subscription) -> Subscribed> Subscribing<F> {
    /// `subscribe` is given the broker itself and what is asked of it.
    pub(crate) fn new(inside: &Arc<dyn Broker>, subscribe: F) -> Arc<Self> {
        Arc::new(Self {
            inside: Arc::clone(inside),
            subscribe,
        })
    }
}

#[async_trait]
impl<F> Broker for Subscribing<F>
where
    F: Fn(Arc<dyn Broker>, Subscription) -> Subscribed + Send + Sync + 'static,
{
    async fn setup(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        self.inside.setup(topics).await
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>, BrokerError> {
        self.inside.producer().await
    }

    async fn subscribe(&self, what: Subscription) -> Result<Box<dyn Consumer>, BrokerError> {
        (self.subscribe)(Arc::clone(&self.inside), what).await
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

/// What a topic holds, as far as it was read.
pub(crate) struct Reader<R> {
    consumer: Box<dyn Consumer>,
    inbox: Inbox,
    pub(crate) records: Vec<R>,
    /// When each was produced.
    pub(crate) times: Vec<UnixMs>,
}

impl<R: AvroRecord> Reader<R> {
    /// As if what was read had never been.
    pub(crate) fn forget(&mut self) {
        self.records.clear();
        self.times.clear();
    }

    /// Reads what came since.
    pub(crate) async fn catch_up(&mut self) -> &[R] {
        let known = self.records.len();
        loop {
            match self.consumer.next(Duration::from_millis(5)).await.unwrap() {
                Turn::Records(records) => {
                    for record in records {
                        let decoded = self.inbox.decode(&record.value).await.unwrap();
                        self.records.push(decoded.unwrap());
                        self.times.push(record.timestamp);
                    }
                }
                Turn::Idle => return &self.records[known..],
                _ => {}
            }
        }
    }
}

/// The rows that the topic `status` makes.
pub(crate) struct Rows {
    reader: Reader<StatusChanged>,
    rows: HashMap<NotificationId, NotificationRow>,
}

impl Rows {
    /// The rows as of now.
    pub(crate) async fn now(&mut self) -> &HashMap<NotificationId, NotificationRow> {
        fold(&mut self.rows, self.reader.catch_up().await);
        &self.rows
    }

    pub(crate) async fn status(&mut self, id: NotificationId) -> Option<Status> {
        self.now().await.get(&id).map(|row| row.status)
    }
}

/// Stages in a runtime of their own, so that they can be ended as a kill ends a process.
pub(crate) struct Process {
    stop: watch::Sender<bool>,
    kill: Arc<tokio::sync::Notify>,
    thread: thread::JoinHandle<()>,
}

impl Process {
    pub(crate) fn start(worker: Worker, stages: &'static [Stage]) -> Self {
        let (stop, shutdown) = Shutdown::new();
        let kill = Arc::new(tokio::sync::Notify::new());
        let killed = Arc::clone(&kill);
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = worker.run(stages, shutdown) => {}
                    () = killed.notified() => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(10));
        });
        Self { stop, kill, thread }
    }

    /// Ends it wherever it is.
    pub(crate) async fn kill(self) {
        self.kill.notify_one();
        // Whoever stops is asked to; this one must not know.
        let Self { stop, thread, .. } = self;
        spawn_blocking(|| thread.join()).await.unwrap().unwrap();
        drop(stop);
    }

    /// Lets it finish what it has in hand.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        spawn_blocking(|| self.thread.join())
            .await
            .unwrap()
            .unwrap();
    }
}

/// A provider that notes what arrives, and then answers as it was told to.
pub(crate) struct Carrier {
    says: Box<dyn Fn(&Call) -> Says + Send + Sync>,
    answers: watch::Sender<bool>,
    called: AtomicUsize,
    arrived: Mutex<Vec<NotificationId>>,
}

/// What a [`Carrier`] says, and when.
pub(crate) struct Says {
    pub(crate) after: Duration,
    pub(crate) outcome: CallOutcome,
}

impl Carrier {
    pub(crate) fn new(says: impl Fn(&Call) -> Says + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            says: Box::new(says),
            answers: watch::channel(true).0,
            called: AtomicUsize::new(0),
            arrived: Mutex::default(),
        })
    }

    /// One that takes everything.
    pub(crate) fn willing() -> Arc<Self> {
        Self::new(|_| accepts())
    }

    /// Whether it answers at all; what is called meanwhile waits.
    pub(crate) fn answer(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// How many calls there were.
    pub(crate) fn called(&self) -> usize {
        self.called.load(Ordering::SeqCst)
    }

    /// What was accepted, once for each call: whether or not anybody heard of it.
    pub(crate) fn arrived(&self) -> Vec<NotificationId> {
        self.arrived.lock().unwrap().clone()
    }
}

#[async_trait]
impl Provider for Carrier {
    fn name(&self) -> &str {
        "carrier"
    }

    async fn send(&self, call: &Call) -> Reply {
        let says = (self.says)(call);
        if matches!(says.outcome, CallOutcome::Accepted { .. }) {
            let mut arrived = self.arrived.lock().unwrap();
            arrived.push(call.delivery.identity.id);
        }
        self.called.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.subscribe();
        answers.wait_for(|answers| *answers).await.unwrap();
        sleep(says.after).await;
        Reply {
            outcome: says.outcome,
            response: None,
        }
    }
}

pub(crate) fn accepts() -> Says {
    Says {
        after: Duration::ZERO,
        outcome: CallOutcome::Accepted {
            provider_message_id: None,
        },
    }
}

/// Refuses; `kind` says whether it may pass.
pub(crate) fn refuses(kind: &str) -> Says {
    let failure = Failure {
        kind: kind.to_owned(),
        code: "http_500".to_owned(),
        message: "no".to_owned(),
    };
    Says {
        after: Duration::ZERO,
        outcome: CallOutcome::Refused {
            failure,
            retry_after: None,
        },
    }
}

/// Attempts that follow each other after so many milliseconds.
pub(crate) fn retries_after(delays: &[u64]) -> Settings {
    let tier = |ms: &u64| Tier {
        name: format!("{ms}ms"),
        delay: Duration::from_millis(*ms),
    };
    let ladder = Ladder::new(delays.iter().map(tier).collect()).unwrap();
    let attempts = delays.len() as u32 + 1;
    Settings {
        retry: Policy::new(ladder, Backoff::Ladder, attempts),
        ..Settings::default()
    }
}

/// A first delivery to a recipient of its own.
pub(crate) fn delivery(number: usize) -> DeliveryReady {
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

/// The row that its first status makes.
pub(crate) fn row(delivery: &DeliveryReady) -> NotificationRow {
    NotificationRow {
        identity: delivery.identity.clone(),
        message: None,
        status: Status::Pending,
        attempts: 0,
        updated_at: delivery.identity.created_at,
        sent_at: None,
        cancelled_at: None,
        provider_message_id: None,
        last_error: None,
        delivery_status: None,
    }
}
