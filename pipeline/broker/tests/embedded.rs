//! The contract on the embedded broker, and what only it has: a file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{Engine, numbered, outgoing, read, reading, send, spec, subscribe, unique, value};
use herald_broker::{Broker, BrokerError, Partition, TopicSpec, embedded::EmbeddedBroker};
use tempfile::TempDir;

struct Embedded {
    directory: TempDir,
    broker: Arc<EmbeddedBroker>,
}

impl Engine for Embedded {
    async fn start() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let broker = EmbeddedBroker::open(directory.path()).unwrap();
        Some(Self { directory, broker })
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    async fn restart(self) -> Self {
        let Self { directory, broker } = self;
        drop(broker);
        let broker = EmbeddedBroker::open(directory.path()).unwrap();
        Self { directory, broker }
    }
}

contract!(Embedded);

#[tokio::test]
async fn a_second_opening_is_told_that_the_log_is_in_use() {
    let engine = Embedded::start().await.unwrap();
    let error = EmbeddedBroker::open(engine.directory.path()).err().unwrap();
    assert!(matches!(error, BrokerError::Held(_)));
    assert!(
        error
            .to_string()
            .contains("in use by another herald process"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_member_of_a_group_is_told_so_until_the_first_is_gone() {
    let engine = Embedded::start().await.unwrap();
    let broker = engine.broker();
    let topic = contract::topic(&*broker, 1).await;
    let first = subscribe(&*broker, &[&topic], Some("g")).await;
    let second = broker.subscribe(reading(&[&topic], Some("g"))).await;
    assert!(matches!(second, Err(BrokerError::Held(_))));
    first.close().await;
    subscribe(&*broker, &[&topic], Some("g")).await;
}

#[tokio::test]
async fn what_is_no_longer_in_memory_is_read_from_the_file() {
    let engine = Embedded::start().await.unwrap();
    let broker = engine.broker();
    let topic = contract::topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    for start in (0..40).step_by(4) {
        let batch = (start..start + 4)
            .map(|i| outgoing(&topic, "k", format!("{i:>3}{}", "x".repeat(100_000))));
        producer.send(batch.collect()).await.unwrap();
    }
    let mut consumer = subscribe(&*broker, &[&topic], None).await;
    let records = read(&mut *consumer, 40).await;
    let numbers: Vec<usize> = records
        .iter()
        .map(|r| value(r)[..3].trim().parse().unwrap())
        .collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

fn file_bytes(engine: &Embedded) -> u64 {
    let files = std::fs::read_dir(engine.directory.path()).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

#[tokio::test]
async fn retention_frees_space_and_keeps_offsets() {
    let engine = Embedded::start().await.unwrap();
    let broker = engine.broker();
    let old = TopicSpec {
        retention: Some(Duration::ZERO),
        ..spec(&unique("old"), 1)
    };
    broker.setup(std::slice::from_ref(&old)).await.unwrap();
    let producer = broker.producer().await.unwrap();
    let batch = |count| {
        (0..count)
            .map(|_| outgoing(&old.name, "k", vec![1; 10_000]))
            .collect()
    };
    producer.send(batch(1_000)).await.unwrap();
    let full = file_bytes(&engine);
    assert!(full > 10_000_000, "{full}");
    tokio::time::sleep(Duration::from_millis(2)).await;
    engine.broker.delete_expired().await.unwrap();
    let freed = file_bytes(&engine);
    assert!(freed < 2_000_000, "{freed} of {full} bytes are left");

    // The next record follows the last one, also after a restart.
    drop((broker, producer));
    let engine = engine.restart().await;
    let broker = engine.broker();
    let producer = broker.producer().await.unwrap();
    let position = producer.send(batch(1)).await.unwrap()[0];
    assert_eq!(position.offset, 1_000);
    let mut consumer = subscribe(&*broker, &[&old.name], None).await;
    assert_eq!(read(&mut *consumer, 2).await[0].offset, 999);
}

#[tokio::test]
async fn what_is_too_much_for_one_cleaning_goes_soon_after() {
    let engine = Embedded::start().await.unwrap();
    let broker = engine.broker();
    let old = TopicSpec {
        retention: Some(Duration::ZERO),
        ..spec(&unique("old"), 1)
    };
    broker.setup(std::slice::from_ref(&old)).await.unwrap();
    send(&*broker, numbered(&old.name, 0..25_000)).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    engine.broker.delete_expired().await.unwrap();
    let consumer = subscribe(&*broker, &[&old.name], None).await;
    let until = Instant::now() + Duration::from_secs(5);
    while consumer.lag().await.unwrap()[0].1 > 1 {
        assert!(Instant::now() < until, "{:?}", consumer.lag().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_disk_is_bounded_in_bytes() {
    let engine = Embedded::start().await.unwrap();
    let broker = engine.broker();
    let topic = contract::topic(&*broker, 1).await;
    let slow = rusqlite::Connection::open(engine.directory.path().join("log.db")).unwrap();
    slow.execute_batch("BEGIN IMMEDIATE").unwrap();
    let producer = broker.producer().await.unwrap();
    let mut waiting = Vec::new();
    loop {
        let batch = (0..4).map(|_| outgoing(&topic, "k", vec![1; 1_000_000]));
        let enqueued = producer.enqueue(batch.collect());
        match tokio::time::timeout(Duration::from_millis(300), enqueued).await {
            Ok(acks) => waiting.push(acks.unwrap()),
            Err(_) => break,
        }
        assert!(waiting.len() < 20, "more than 80 MB wait");
    }
    slow.execute_batch("ROLLBACK").unwrap();
    for acks in waiting {
        acks.await.unwrap();
    }
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_newest_of_each_key() {
    let engine = Embedded::start().await.unwrap();
    let broker = engine.broker();
    let compacted = TopicSpec {
        retention: None,
        ..spec(&unique("compacted"), 1)
    };
    broker
        .setup(std::slice::from_ref(&compacted))
        .await
        .unwrap();
    send(&*broker, numbered(&compacted.name, 0..95)).await;
    engine.broker.delete_expired().await.unwrap();
    drop(broker);
    let engine = engine.restart().await;
    let broker = engine.broker();
    let mut consumer = subscribe(&*broker, &[&compacted.name], None).await;
    let numbers: Vec<String> = read(&mut *consumer, 10).await.iter().map(value).collect();
    assert_eq!(numbers, (85..95).map(|i| i.to_string()).collect::<Vec<_>>());
}

const CHILD: &str = "HERALD_EMBEDDED_CHILD";

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
async fn child_that_appends_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else {
        return;
    };
    let broker = EmbeddedBroker::open(directory.as_ref()).unwrap();
    broker.setup(&[spec("t", 2)]).await.unwrap();
    let producer = broker.producer().await.unwrap();
    for batch in 0_u64.. {
        let records = (0..7).map(|i| outgoing("t", &format!("{batch}-{i}"), batch.to_string()));
        producer.send(records.collect()).await.unwrap();
        println!("acked {batch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_an_append_loses_nothing_acked_and_leaves_nothing_half() {
    for round in 0..3 {
        let directory = TempDir::new().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_that_appends_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acked = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, batch)) = line.split_once("acked ") {
                acked = Some(batch.parse::<u64>().unwrap());
                if acked >= Some(20 + round * 37) {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let acked = acked.expect("the child acked nothing");

        let broker = EmbeddedBroker::open(directory.path()).unwrap();
        let partitions = [Partition::new("t", 0), Partition::new("t", 1)];
        let ends = broker.end_offsets(&partitions).await.unwrap();
        let total: i64 = ends.values().sum();
        assert_eq!(total % 7, 0, "a batch is there whole or not at all");
        assert!(
            total >= (acked as i64 + 1) * 7,
            "{total} records, {acked} batches acked"
        );
        let mut consumer = subscribe(&*broker, &["t"], None).await;
        let records = read(&mut *consumer, total as usize).await;
        for partition in &partitions {
            let offsets = records
                .iter()
                .filter(|r| r.partition == *partition)
                .map(|r| r.offset);
            assert!(offsets.eq(0..ends[partition]), "offsets without a gap");
        }
    }
}
