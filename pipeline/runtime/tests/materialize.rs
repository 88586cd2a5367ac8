//! materialize on the embedded engines: what is counted, once, whatever came before a crash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use herald_broker::{Broker, Partition, embedded::EmbeddedBroker};
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
    ids::DeadLetterId,
    records::{DeadLetter, Failure},
    rows::Tally,
    topics::Topics,
};
use herald_stages::{Output, Settings};
use herald_store::{Counted, Layout, Store, sqlite::SqliteStore};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(60);
const LETTERS: Counted = Counted::DeadLetters(0);

struct Bench {
    worker: Worker,
    _directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (topics, settings) = (Topics::default(), Arc::new(Settings::default()));
        let ladder = settings.retry.ladder();
        let broker: Arc<dyn Broker> = EmbeddedBroker::open(&directory.path().join("log")).unwrap();
        let specs: Vec<_> = setup::topics(&topics, ladder, 1, Duration::from_secs(3_600))
            .into_iter()
            .map(|topic| topic.spec)
            .collect();
        broker.setup(&specs).await.unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
        let layout = Layout {
            status_shards: 1,
            claim_shards: 1,
            bucket_minutes: 60,
            retention_days: 1,
        };
        store.setup(layout).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let codec = Codec::new(&Framing::SingleObject).unwrap();
        let producer = broker.producer().await.unwrap();
        let worker = Worker {
            outbox: Outbox::new(codec.clone(), &topics, ladder, producer),
            catalogs: Catalogs::load(Arc::clone(&store)).await.unwrap(),
            broker,
            store,
            topics,
            inbox: Inbox::new(codec, None),
            settings,
            providers: Arc::new(ArcSwap::from_pointee(Providers::default())),
            metrics: Metrics::new().unwrap(),
            name: "w".into(),
            max_calls: 1,
        };
        Self {
            worker,
            _directory: directory,
        }
    }

    async fn send(&self, letters: &[DeadLetter]) {
        let letters: Vec<Output> = letters.iter().cloned().map(Output::DeadLetter).collect();
        self.worker.outbox.send(&letters).await.unwrap();
    }

    /// Runs materialize until it has passed everything that was sent.
    async fn materialize(&self) {
        let (stop, shutdown) = Shutdown::new();
        let worker = self.worker.clone();
        let running =
            tokio::spawn(async move { worker.run(&[Stage::Materialize], shutdown).await });
        let topics = &self.worker.topics;
        let group = topics.group(Stage::Materialize.as_str());
        let all = [Partition::new(topics.dead_letters(), 0)];
        let end = self.worker.broker.end_offsets(&all).await.unwrap()[&all[0]];
        let deadline = Instant::now() + DEADLINE;
        loop {
            let done = self.worker.broker.committed(&group, &all).await.unwrap();
            if done.get(&all[0]).is_some_and(|done| *done >= end) {
                break;
            }
            assert!(Instant::now() < deadline, "{done:?} of {end}");
            sleep(Duration::from_millis(10)).await;
        }
        stop.send(true).unwrap();
        running.await.unwrap();
    }

    /// How many letters are counted, and up to which offset.
    async fn counted(&self) -> (i64, i64) {
        let totals = self.worker.store.totals(LETTERS).await.unwrap();
        let letters = totals.tallies.iter().map(|(_, number)| number);
        (letters.sum(), totals.offset)
    }
}

fn letters(numbers: std::ops::Range<i64>) -> Vec<DeadLetter> {
    let letter = |n| DeadLetter {
        // The second half of them of the day before.
        id: DeadLetterId::of_record("t", 0, n, now() - n % 2 * 86_400_000),
        stage: "render".to_owned(),
        error: Failure {
            kind: "poison".to_owned(),
            code: "c".to_owned(),
            message: "m".to_owned(),
        },
        at: now(),
        identity: None,
        event_id: None,
        attempts: 0,
        source_topic: "t".to_owned(),
        source_partition: 0,
        source_offset: n,
        key: None,
        value: vec![1],
        headers: Vec::new(),
    };
    numbers.map(letter).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_was_written_twice_is_counted_once() {
    let bench = Bench::new().await;
    let all = letters(0..10);
    // Twice in one batch, and again in one that comes later.
    bench.send(&all[..4]).await;
    bench.send(&all[..6]).await;
    bench.materialize().await;
    assert_eq!(bench.counted().await, (6, 10));
    bench.send(&all).await;
    bench.materialize().await;
    assert_eq!(bench.counted().await, (10, 20));
    let days = bench.worker.store.totals(LETTERS).await.unwrap().tallies;
    assert_eq!(days.len(), 2, "{days:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_counted_before_a_crash_is_written_after_it_and_not_counted_again() {
    let bench = Bench::new().await;
    let all = letters(0..8);
    bench.send(&all[..5]).await;
    // What a crash leaves between the counts and the rows.
    let tally = Tally::of_letter(all[0].id);
    let store = &bench.worker.store;
    let advanced = store
        .advance_totals(LETTERS, 0, 5, &[], &[(tally, 5)])
        .await;
    assert!(advanced.unwrap());
    // One of those again, and new ones.
    bench.send(&all[4..]).await;
    bench.materialize().await;
    assert_eq!(bench.counted().await, (8, 9));
    let ids: Vec<DeadLetterId> = all.iter().map(|letter| letter.id).collect();
    let there = store.has_dead_letters(&ids).await.unwrap();
    assert_eq!(there, [true; 8]);
}
