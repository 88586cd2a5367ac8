//! What every broker does, as functions over the seam. `contract!` makes a test of each for an
//! engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use herald_broker::{
    Broker, BrokerError, Consumer, Header, Offsets, Outgoing, Partition, Record, Start,
    Subscription, TopicSpec, Turn,
};

/// A broker under test, and how its process is started anew.
#[allow(async_fn_in_trait)]
pub trait Engine: Sized {
    async fn start() -> Option<Self>;
    fn broker(&self) -> Arc<dyn Broker>;
    /// As if the process had ended and another one started.
    async fn restart(self) -> Self;
}

const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// A name that no other test or run has.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "test-{name}-{}-{}",
        now.as_nanos(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

pub fn spec(name: &str, partitions: i32) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        fixed_partitions: true,
        retention: Some(Duration::from_secs(3_600)),
        max_record_bytes: 1_048_576,
    }
}

pub async fn topic(broker: &dyn Broker, partitions: i32) -> String {
    let name = unique("topic");
    broker.setup(&[spec(&name, partitions)]).await.unwrap();
    name
}

pub fn outgoing(topic: &str, key: &str, value: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        topic: topic.into(),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: value.into(),
        headers: Vec::new(),
    }
}

pub fn numbered(topic: &str, range: std::ops::Range<usize>) -> Vec<Outgoing> {
    range
        .map(|i| outgoing(topic, &format!("k{}", i % 10), i.to_string()))
        .collect()
}

pub fn reading(topics: &[&str], group: Option<&str>) -> Subscription {
    Subscription {
        group: group.map(str::to_owned),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        start: Start::Earliest,
        max_batch: 100,
    }
}

/// Writes a batch and waits for its acks.
pub async fn send(broker: &dyn Broker, batch: Vec<Outgoing>) {
    broker.producer().await.unwrap().send(batch).await.unwrap();
}

/// Reads as [`reading`] says.
pub async fn subscribe(
    broker: &dyn Broker,
    topics: &[&str],
    group: Option<&str>,
) -> Box<dyn Consumer> {
    broker.subscribe(reading(topics, group)).await.unwrap()
}

pub fn value(record: &Record) -> String {
    String::from_utf8(record.value.to_vec()).unwrap()
}

/// Reads until `count` records have come; checks that each partition's come in order.
pub async fn read(consumer: &mut dyn Consumer, count: usize) -> Vec<Record> {
    let until = Instant::now() + PATIENCE;
    let mut records: Vec<Record> = Vec::new();
    while records.len() < count {
        assert!(
            Instant::now() < until,
            "{} of {count} records came",
            records.len()
        );
        if let Turn::Records(more) = consumer.next(SHORT).await.unwrap() {
            assert!(!more.is_empty());
            records.extend(more);
        }
    }
    let mut last: HashMap<Partition, i64> = HashMap::new();
    for record in &records {
        let before = last.insert(record.partition.clone(), record.offset);
        assert!(
            before.is_none_or(|before| before < record.offset),
            "out of order"
        );
    }
    records
}

/// Nothing more comes for a while.
pub async fn read_nothing(consumer: &mut dyn Consumer) {
    let until = Instant::now() + SHORT;
    while Instant::now() < until {
        if let Turn::Records(records) = consumer.next(Duration::from_millis(100)).await.unwrap() {
            panic!(
                "{} records came, such as {:?}",
                records.len(),
                value(&records[0])
            );
        }
    }
}

pub fn done(records: &[Record]) -> Offsets {
    records
        .iter()
        .map(|record| (record.partition.clone(), record.offset + 1))
        .collect()
}

async fn wait_committed(broker: &dyn Broker, group: &str, offsets: &Offsets) {
    let partitions: Vec<Partition> = offsets.keys().cloned().collect();
    let until = Instant::now() + PATIENCE;
    while broker.committed(group, &partitions).await.unwrap() != *offsets {
        assert!(Instant::now() < until, "offsets were not committed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn what_is_produced_is_read_with_all_it_has<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    let header = |name: &'static str, value: &'static [u8]| Header {
        name: name.into(),
        value: Bytes::from_static(value),
    };
    let full = Outgoing {
        topic: topic.as_str().into(),
        key: Some(Bytes::from_static(b"\x00\xff")),
        value: Bytes::from_static(b"value"),
        headers: vec![header("a", b"1"), header("b", b""), header("a", b"\xfe")],
    };
    let bare = Outgoing {
        key: None,
        value: Bytes::new(),
        headers: vec![],
        ..full.clone()
    };
    let large = Outgoing {
        value: vec![7; 900_000].into(),
        ..bare.clone()
    };
    let batch = vec![full.clone(), bare.clone(), large.clone()];
    let positions = producer.send(batch.clone()).await.unwrap();
    assert_eq!(positions.len(), 3);

    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    let records = read(&mut *consumer, 3).await;
    for ((record, sent), position) in records.iter().zip(&batch).zip(&positions) {
        assert_eq!(
            (record.partition.index, record.offset),
            (position.partition, position.offset)
        );
        assert_eq!(&*record.partition.topic, topic);
        assert_eq!(record.key, sent.key);
        assert_eq!(record.value, sent.value);
        assert_eq!(record.headers, sent.headers);
        assert!(record.timestamp > 1_600_000_000_000);
    }
    assert_eq!(
        records[0].header("a"),
        None,
        "the last one of a name counts, and is no text"
    );
    consumer.close().await;
}

pub async fn a_key_keeps_its_order_and_its_partition<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 3).await;
    let producer = broker.producer().await.unwrap();
    let mut acks = Vec::new();
    for start in (0..1_000).step_by(50) {
        acks.push(
            producer
                .enqueue(numbered(&topic, start..start + 50))
                .await
                .unwrap(),
        );
    }
    for acks in acks {
        assert_eq!(acks.await.unwrap().len(), 50);
    }
    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    let records = read(&mut *consumer, 1_000).await;
    let mut by_key: HashMap<Bytes, Vec<&Record>> = HashMap::new();
    for record in &records {
        by_key
            .entry(record.key.clone().unwrap())
            .or_default()
            .push(record);
    }
    assert_eq!(by_key.len(), 10);
    for (key, records) in by_key {
        let numbers: Vec<usize> = records.iter().map(|r| value(r).parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{key:?}: {numbers:?}");
        let expected = herald_schemas::ids::partition_of(&key, 3) as i32;
        assert!(
            records.iter().all(|r| r.partition.index == expected),
            "{key:?}"
        );
    }
    consumer.close().await;
}

pub async fn a_group_goes_on_where_it_committed<E: Engine>(engine: E) {
    let broker = engine.broker();
    let (topic, group) = (topic(&*broker, 2).await, unique("g"));
    send(&*broker, numbered(&topic, 0..100)).await;
    let mut consumer = subscribe(&*broker, &[&topic], Some(&group)).await;
    let records = read(&mut *consumer, 100).await;
    let frontier = done(&records[..60]);
    consumer.commit(&frontier);
    wait_committed(&*broker, &group, &frontier).await;
    let pending: Vec<String> = records
        .iter()
        .filter(|r| {
            frontier
                .get(&r.partition)
                .is_none_or(|done| r.offset >= *done)
        })
        .map(value)
        .collect();
    consumer.close().await;
    drop(broker);

    let engine = engine.restart().await;
    let broker = engine.broker();
    let mut consumer = subscribe(&*broker, &[&topic], Some(&group)).await;
    let mut again: Vec<String> = read(&mut *consumer, pending.len())
        .await
        .iter()
        .map(value)
        .collect();
    let mut pending = pending;
    pending.sort();
    again.sort();
    assert_eq!(
        again, pending,
        "what was not committed comes again, and nothing else"
    );
    read_nothing(&mut *consumer).await;
    consumer.close().await;
}

pub async fn closing_commits_what_was_noted<E: Engine>(engine: E) {
    let broker = engine.broker();
    let (topic, group) = (topic(&*broker, 1).await, unique("g"));
    send(&*broker, numbered(&topic, 0..10)).await;
    let mut consumer = subscribe(&*broker, &[&topic], Some(&group)).await;
    let records = read(&mut *consumer, 10).await;
    consumer.commit(&done(&records));
    consumer.close().await;
    let partition = Partition::new(topic.as_str(), 0);
    let committed = broker
        .committed(&group, std::slice::from_ref(&partition))
        .await
        .unwrap();
    assert_eq!(committed, Offsets::from([(partition, 10)]));
}

pub async fn a_commit_is_of_what_is_assigned_and_goes_forward_only<E: Engine>(engine: E) {
    let broker = engine.broker();
    let (topic, other, group) = (
        topic(&*broker, 1).await,
        topic(&*broker, 1).await,
        unique("g"),
    );
    send(&*broker, numbered(&topic, 0..10)).await;
    let mut consumer = subscribe(&*broker, &[&topic], Some(&group)).await;
    read(&mut *consumer, 10).await;
    let [own, other] = [&topic, &other].map(|topic| Partition::new(topic.as_str(), 0));
    consumer.commit(&Offsets::from([(own.clone(), 7), (other.clone(), 1)]));
    consumer.commit(&Offsets::from([(own.clone(), 5)]));
    consumer.close().await;
    let committed = broker.committed(&group, &[own.clone(), other]).await;
    assert_eq!(committed.unwrap(), Offsets::from([(own, 7)]));
}

pub async fn a_turn_is_bounded_in_bytes<E: Engine>(engine: E) {
    let broker = engine.broker();
    let mut topics = Vec::new();
    for _ in 0..4 {
        let topic = topic(&*broker, 1).await;
        let batch = (0..10).map(|_| outgoing(&topic, "k", vec![7; 900_000]));
        send(&*broker, batch.collect()).await;
        topics.push(topic);
    }
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut consumer = subscribe(&*broker, &topics, Some(&unique("g"))).await;
    let (mut count, until) = (0, Instant::now() + PATIENCE);
    while count < 40 {
        assert!(Instant::now() < until, "{count} of 40 came");
        if let Turn::Records(records) = consumer.next(SHORT).await.unwrap() {
            let bytes: usize = records.iter().map(|record| record.value.len()).sum();
            assert!(bytes < 10_000_000, "{bytes} bytes in one turn");
            count += records.len();
        }
    }
    consumer.close().await;
}

pub async fn another_group_reads_everything_for_itself<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 2).await;
    send(&*broker, numbered(&topic, 0..20)).await;
    for group in [Some(unique("a")), Some(unique("b")), None] {
        let mut consumer = subscribe(&*broker, &[&topic], group.as_deref()).await;
        assert_eq!(read(&mut *consumer, 20).await.len(), 20);
        consumer.close().await;
    }
}

pub async fn starting_late_skips_what_was_there<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    producer.send(numbered(&topic, 0..5)).await.unwrap();
    let mut late = reading(&[&topic], None);
    late.start = Start::Latest;
    let mut consumer = broker.subscribe(late).await.unwrap();
    read_nothing(&mut *consumer).await;
    producer.send(numbered(&topic, 5..6)).await.unwrap();
    assert_eq!(value(&read(&mut *consumer, 1).await[0]), "5");
    consumer.close().await;
}

pub async fn a_paused_partition_is_silent_and_loses_nothing<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 2).await;
    let producer = broker.producer().await.unwrap();
    producer.send(numbered(&topic, 0..500)).await.unwrap();
    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    // An assignment starts with nothing paused, so it is waited for.
    let until = Instant::now() + PATIENCE;
    while !matches!(consumer.next(SHORT).await.unwrap(), Turn::Assigned(_)) {
        assert!(Instant::now() < until, "nothing is assigned");
    }
    let mut seen: Vec<usize> = Vec::new();
    // Pausing and resuming all the while.
    let both = [
        Partition::new(topic.as_str(), 0),
        Partition::new(topic.as_str(), 1),
    ];
    for round in 0..6 {
        let paused = &both[round % 2];
        consumer.pause(std::slice::from_ref(paused));
        for _ in 0..3 {
            if let Turn::Records(records) = consumer.next(SHORT).await.unwrap() {
                assert!(
                    records.iter().all(|r| r.partition != *paused),
                    "paused and yet read"
                );
                seen.extend(records.iter().map(|r| value(r).parse::<usize>().unwrap()));
            }
        }
        // One that was never paused is resumed too: that must change nothing.
        consumer.resume(&both);
    }
    while seen.len() < 500 {
        seen.extend(
            read(&mut *consumer, 1)
                .await
                .iter()
                .map(|r| value(r).parse::<usize>().unwrap()),
        );
    }
    read_nothing(&mut *consumer).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>(), "each once");
    consumer.close().await;
}

pub async fn seeking_reads_again_from_there<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 1).await;
    send(&*broker, numbered(&topic, 0..300)).await;
    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    let first = read(&mut *consumer, 150).await;
    let partition = first[0].partition.clone();
    consumer
        .seek(&Offsets::from([(partition.clone(), 20)]))
        .await
        .unwrap();
    let records = read(&mut *consumer, 280).await;
    assert_eq!(value(&records[0]), "20");
    assert_eq!(records.len(), 280);
    consumer.close().await;
}

pub async fn lag_counts_what_was_not_read<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    producer.send(numbered(&topic, 0..250)).await.unwrap();
    let partition = Partition::new(topic.as_str(), 0);
    let ends = broker
        .end_offsets(std::slice::from_ref(&partition))
        .await
        .unwrap();
    assert_eq!(ends, Offsets::from([(partition.clone(), 250)]));
    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    let records = read(&mut *consumer, 1).await;
    let lag = consumer.lag().await.unwrap();
    assert_eq!(lag, [(partition, 250 - records.len() as i64)]);
    consumer.close().await;
}

pub async fn many_topics_are_read_together<E: Engine>(engine: E) {
    let broker = engine.broker();
    let (a, b, c) = (
        topic(&*broker, 1).await,
        topic(&*broker, 2).await,
        topic(&*broker, 1).await,
    );
    let producer = broker.producer().await.unwrap();
    let batch = [&a, &b, &c]
        .iter()
        .flat_map(|topic| numbered(topic, 0..30))
        .collect();
    assert_eq!(producer.send(batch).await.unwrap().len(), 90);
    let mut consumer = subscribe(&*broker, &[&a, &b, &c], Some(&unique("g"))).await;
    let records = read(&mut *consumer, 90).await;
    for topic in [&a, &b, &c] {
        assert_eq!(
            records
                .iter()
                .filter(|r| *r.partition.topic == *topic)
                .count(),
            30
        );
    }
    consumer.close().await;
}

pub async fn dropping_the_acks_takes_nothing_back<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    drop(producer.enqueue(numbered(&topic, 0..10)).await.unwrap());
    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    assert_eq!(read(&mut *consumer, 10).await.len(), 10);
    assert!(producer.send(Vec::new()).await.unwrap().is_empty());
    consumer.close().await;
}

pub async fn waiting_ends_in_time_and_can_be_given_up<E: Engine>(engine: E) {
    let broker = engine.broker();
    let topic = topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    let mut consumer = subscribe(&*broker, &[&topic], Some(&unique("g"))).await;
    producer.send(numbered(&topic, 0..1)).await.unwrap();
    read(&mut *consumer, 1).await;
    let started = Instant::now();
    assert!(matches!(consumer.next(SHORT).await.unwrap(), Turn::Idle));
    assert!(started.elapsed() < SHORT * 5);
    // A wait that is given up again and again loses nothing.
    let sending = tokio::spawn(async move {
        for i in 1..200 {
            producer.send(numbered(&topic, i..i + 1)).await.unwrap();
        }
    });
    let mut numbers = Vec::new();
    let until = Instant::now() + PATIENCE;
    while numbers.len() < 199 {
        assert!(Instant::now() < until, "{} of 199 came", numbers.len());
        let turn = tokio::time::timeout(Duration::from_micros(300), consumer.next(SHORT)).await;
        if let Ok(Ok(Turn::Records(records))) = turn {
            numbers.extend(records.iter().map(|r| value(r).parse::<usize>().unwrap()));
        }
    }
    assert_eq!(numbers, (1..200).collect::<Vec<_>>());
    sending.await.unwrap();
    consumer.close().await;
}

pub async fn setup_can_be_repeated_and_raced<E: Engine>(engine: E) {
    let broker = engine.broker();
    let specs = [spec(&unique("a"), 2), spec(&unique("b"), 1)];
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (broker, specs) = (Arc::clone(&broker), specs.clone());
            tokio::spawn(async move { broker.setup(&specs).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(broker.partitions(&specs[0].name).await.unwrap(), 2);
    let other = TopicSpec {
        partitions: 3,
        ..specs[0].clone()
    };
    let refused = broker.setup(&[other]).await;
    assert!(
        matches!(refused, Err(BrokerError::Topic { .. })),
        "{refused:?}"
    );
}

pub async fn what_is_not_there_is_named<E: Engine>(engine: E) {
    let broker = engine.broker();
    let name = unique("missing");
    let error = broker.partitions(&name).await.unwrap_err();
    assert!(
        matches!(&error, BrokerError::UnknownTopic(topic) if *topic == name),
        "{error}"
    );
    assert!(error.to_string().contains("herald setup"));
    let topic = topic(&*broker, 1).await;
    let large = outgoing(&topic, "k", vec![0; 2_000_000]);
    let error = broker
        .producer()
        .await
        .unwrap()
        .send(vec![large])
        .await
        .unwrap_err();
    assert!(matches!(error, BrokerError::TooLarge { .. }), "{error}");
    broker.ping().await.unwrap();
}

#[macro_export]
/// A test for each function, on an engine.
macro_rules! contract {
    ($engine:ty: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(engine) = <$engine as contract::Engine>::start().await {
                    contract::$name(engine).await;
                }
            }
        )+
    };
    ($engine:ty) => {
        $crate::contract! { $engine:
            what_is_produced_is_read_with_all_it_has,
            a_key_keeps_its_order_and_its_partition,
            a_group_goes_on_where_it_committed,
            closing_commits_what_was_noted,
            a_commit_is_of_what_is_assigned_and_goes_forward_only,
            a_turn_is_bounded_in_bytes,
            another_group_reads_everything_for_itself,
            starting_late_skips_what_was_there,
            a_paused_partition_is_silent_and_loses_nothing,
            seeking_reads_again_from_there,
            lag_counts_what_was_not_read,
            many_topics_are_read_together,
            dropping_the_acks_takes_nothing_back,
            waiting_ends_in_time_and_can_be_given_up,
            setup_can_be_repeated_and_raced,
            what_is_not_there_is_named,
        }
    };
}
