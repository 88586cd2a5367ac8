//! The contract on a real Kafka, and what only it has: groups of several members, topics that
//! others may have made, and brokers that are away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use std::{
    collections::HashSet,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use contract::{Engine, done, numbered, outgoing, read, reading, spec, subscribe, unique, value};
use herald_broker::{
    Broker, BrokerError, Consumer, Outgoing, Partition, Revocation, TopicSpec, Turn,
    kafka::{KafkaBroker, KafkaSettings},
};
use tokio::task::JoinHandle;

const KAFKA: &str = "HERALD_TEST_KAFKA";
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

struct Kafka {
    broker: Arc<KafkaBroker>,
}

fn connect(brokers: &str) -> Arc<KafkaBroker> {
    Arc::new(KafkaBroker::connect(KafkaSettings::new(brokers)).unwrap())
}

impl Engine for Kafka {
    async fn start() -> Option<Self> {
        match std::env::var(KAFKA) {
            Ok(brokers) => Some(Self {
                broker: connect(&brokers),
            }),
            Err(_) => {
                skip();
                None
            }
        }
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    async fn restart(self) -> Self {
        drop(self);
        Self::start().await.unwrap()
    }
}

/// Not by `eprintln`, which the test runner would keep to itself.
fn skip() {
    let reason = format!("{KAFKA} is not set");
    let real = std::env::var("HERALD_TEST_REAL").is_ok_and(|value| value == "1");
    assert!(!real, "{reason}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("kafka");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

contract!(Kafka);

/// A member of a group that processes what it reads and commits it at once.
struct Member {
    assigned: Arc<AtomicUsize>,
    processed: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Member {
    async fn join(broker: &dyn Broker, topic: &str, group: &str) -> Self {
        let consumer = broker.subscribe(reading(&[topic], Some(group))).await;
        let mut consumer = consumer.unwrap();
        let assigned = Arc::new(AtomicUsize::new(0));
        let processed = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (owned, values, stopped) = (assigned.clone(), processed.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                match consumer.next(SHORT).await.unwrap() {
                    Turn::Records(records) => {
                        values.lock().unwrap().extend(records.iter().map(value));
                        consumer.commit(&done(&records));
                    }
                    Turn::Assigned(partitions) => owned.store(partitions.len(), Ordering::Relaxed),
                    Turn::Revoking(revocation) => {
                        assert!(!revocation.is_lost());
                        owned.store(0, Ordering::Relaxed);
                    }
                    Turn::Idle => {}
                }
            }
            consumer.close().await;
        });
        Self {
            assigned,
            processed,
            stop,
            task,
        }
    }

    async fn owns(&self, partitions: usize) {
        eventually("the partitions are dealt", || {
            self.assigned.load(Ordering::Relaxed) == partitions
        })
        .await;
    }

    fn count(&self) -> usize {
        self.processed.lock().unwrap().len()
    }

    async fn leave(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let mut processed = self.processed.lock().unwrap();
        std::mem::take(&mut *processed)
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Records with keys of their own, so that every partition gets some.
fn spread(topic: &str, range: std::ops::Range<usize>) -> Vec<Outgoing> {
    range
        .map(|i| outgoing(topic, &i.to_string(), i.to_string()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_process_each_record_once() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let (topic, group) = (contract::topic(&*broker, 4).await, unique("g"));
    let producer = broker.producer().await.unwrap();
    let first = Member::join(&*broker, &topic, &group).await;
    first.owns(4).await;

    // Records come all the while, through both rebalances.
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = {
        let (topic, stop, sent) = (topic.clone(), stop.clone(), sent.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let next = sent.load(Ordering::Relaxed);
                producer
                    .send(spread(&topic, next..next + 20))
                    .await
                    .unwrap();
                sent.store(next + 20, Ordering::Relaxed);
            }
        })
    };
    eventually("the first has some", || first.count() > 100).await;
    let second = Member::join(&*broker, &topic, &group).await;
    first.owns(2).await;
    second.owns(2).await;
    let before = first.count();
    eventually("both get some", || {
        second.count() > 100 && first.count() > before + 100
    })
    .await;
    let mut processed = second.leave().await;
    first.owns(4).await;
    stop.store(true, Ordering::Relaxed);
    sending.await.unwrap();
    let sent = sent.load(Ordering::Relaxed);
    eventually("all are processed", || {
        first.count() + processed.len() >= sent
    })
    .await;
    processed.extend(first.leave().await);

    let mut numbers: Vec<usize> = processed.iter().map(|n| n.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent), "each once, none lost");
}

async fn next_revocation(consumer: &mut dyn Consumer) -> Revocation {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "nothing is revoked");
        match consumer.next(SHORT).await.unwrap() {
            Turn::Revoking(revocation) => return revocation,
            Turn::Idle => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_hand_is_finished_and_committed_before_a_partition_goes() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let (topic, group) = (contract::topic(&*broker, 1).await, unique("g"));
    let producer = broker.producer().await.unwrap();
    producer.send(numbered(&topic, 0..50)).await.unwrap();
    let mut first = subscribe(&*broker, &[&topic], Some(&group)).await;
    let in_hand = read(&mut *first, 50).await;

    let second = Member::join(&*broker, &topic, &group).await;
    let revocation = next_revocation(&mut *first).await;
    assert_eq!(revocation.partitions(), [Partition::new(topic.as_str(), 0)]);
    // Neither records nor partitions move as long as it is held.
    producer.send(numbered(&topic, 50..60)).await.unwrap();
    assert!(matches!(
        first.next(Duration::from_millis(300)).await.unwrap(),
        Turn::Idle
    ));
    assert_eq!(second.assigned.load(Ordering::Relaxed), 0);
    first.commit(&done(&in_hand));
    drop(revocation);
    // Whoever gets the partition goes on after them; the first one, by leaving, makes it the second.
    let leaving = tokio::spawn(first.close());
    eventually("the second goes on", || second.count() >= 10).await;
    leaving.await.unwrap();
    let processed = second.leave().await;
    let expected: Vec<String> = (50..60).map(|i| i.to_string()).collect();
    assert_eq!(processed, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_an_earlier_assignment_are_not_committed() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let (topic, group) = (contract::topic(&*broker, 2).await, unique("g"));
    let producer = broker.producer().await.unwrap();
    producer.send(spread(&topic, 0..50)).await.unwrap();
    let mut first = subscribe(&*broker, &[&topic], Some(&group)).await;
    let records = read(&mut *first, 50).await;
    let frontier = done(&records[..20]);
    first.commit(&frontier);
    let mut second = subscribe(&*broker, &[&topic], Some(&group)).await;
    let (tell, assigned) = tokio::sync::oneshot::channel();
    // It commits nothing, so what it reads shows where the first one did.
    let reading = tokio::spawn(async move {
        let (mut tell, mut seen) = (Some(tell), HashSet::new());
        let until = Instant::now() + PATIENCE;
        while seen.len() < 30 {
            assert!(Instant::now() < until, "{} of 30 records came", seen.len());
            match second.next(SHORT).await.unwrap() {
                Turn::Records(records) => seen.extend(records.iter().map(value)),
                Turn::Assigned(_) => {
                    if let Some(tell) = tell.take() {
                        let _ = tell.send(());
                    }
                }
                Turn::Revoking(_) | Turn::Idle => {}
            }
        }
        second.close().await;
        seen
    });
    drop(next_revocation(&mut *first).await);
    // Each gets one: so the first one has let both go, whichever it has now.
    assigned.await.unwrap();
    // Too late. Nor does leaving commit it.
    first.commit(&done(&records[..40]));
    first.close().await;
    let rest = records[20..].iter().map(value).collect();
    assert_eq!(reading.await.unwrap(), rest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_reach_the_broker_while_the_work_goes_on() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let (topic, group) = (contract::topic(&*broker, 1).await, unique("g"));
    let producer = broker.producer().await.unwrap();
    let member = Member::join(&*broker, &topic, &group).await;
    let partition = [Partition::new(topic.as_str(), 0)];
    for round in 1..=5 {
        producer.send(numbered(&topic, 0..10)).await.unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            let committed = broker.committed(&group, &partition).await.unwrap();
            if committed.get(&partition[0]) == Some(&(round * 10)) {
                break;
            }
            assert!(Instant::now() < until, "round {round}: {committed:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_goes_where_other_clients_would_put_it() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let topic = contract::topic(&*broker, 7).await;
    let mut keys: Vec<Bytes> = (0..300).map(|i| format!("key-{i}").into()).collect();
    keys.extend((0..20).map(|length| Bytes::from(vec![0xf0_u8; length])));
    let batch = keys.iter().map(|key| Outgoing {
        key: Some(key.clone()),
        ..outgoing(&topic, "", "value")
    });
    let producer = broker.producer().await.unwrap();
    let positions = producer.send(batch.collect()).await.unwrap();
    for (key, position) in keys.iter().zip(positions) {
        let expected = herald_schemas::ids::partition_of(key, 7) as i32;
        assert_eq!(position.partition, expected, "{key:?}");
    }
}

/// Bytes that no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_record_fits_and_one_byte_more_is_refused_with_its_batch() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let topic = contract::topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    let largest = spec(&topic, 1).max_record_bytes;
    let batch = vec![
        outgoing(&topic, "k", "before"),
        outgoing(&topic, "k", noise(largest - 1)),
        outgoing(&topic, "k", "after"),
    ];
    producer.send(batch).await.unwrap();
    // It would compress well: what counts is what a reader gets.
    let batch = vec![
        outgoing(&topic, "k", "before"),
        outgoing(&topic, "k", vec![0; largest]),
    ];
    let refused = producer.send(batch).await;
    assert!(
        matches!(&refused, Err(BrokerError::TooLarge { bytes, .. }) if *bytes == largest + 1),
        "{refused:?}"
    );
    let partition = Partition::new(topic.as_str(), 0);
    let ends = broker.end_offsets(std::slice::from_ref(&partition)).await;
    assert_eq!(ends.unwrap()[&partition], 3, "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_brings_an_existing_topic_to_what_is_needed() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let small = TopicSpec {
        fixed_partitions: false,
        ..spec(&unique("grows"), 1)
    };
    broker.setup(std::slice::from_ref(&small)).await.unwrap();
    let large = TopicSpec {
        partitions: 3,
        max_record_bytes: small.max_record_bytes * 2,
        retention: Some(Duration::from_secs(7_200)),
        ..small.clone()
    };
    broker.setup(std::slice::from_ref(&large)).await.unwrap();
    assert_eq!(broker.partitions(&small.name).await.unwrap(), 3);
    let producer = broker.producer().await.unwrap();
    let record = || {
        vec![outgoing(
            &small.name,
            "k",
            noise(large.max_record_bytes - 1),
        )]
    };
    producer.send(record()).await.unwrap();
    // What is more than enough stays.
    broker.setup(std::slice::from_ref(&small)).await.unwrap();
    assert_eq!(broker.partitions(&small.name).await.unwrap(), 3);
    producer.send(record()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_is_neither_written_nor_read_nor_made() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let name = unique("missing");
    let unknown = |error: &BrokerError| matches!(error, BrokerError::UnknownTopic(t) if *t == name);
    let producer = broker.producer().await.unwrap();
    let error = producer
        .send(vec![outgoing(&name, "k", "v")])
        .await
        .unwrap_err();
    assert!(unknown(&error), "{error}");
    for group in [Some("g"), None] {
        let subscribed = broker.subscribe(reading(&[&name], group)).await;
        assert!(unknown(&subscribed.err().unwrap()));
    }
    let partition = Partition::new(name.as_str(), 0);
    let error = broker
        .end_offsets(std::slice::from_ref(&partition))
        .await
        .unwrap_err();
    assert!(unknown(&error), "{error}");
    let committed = broker.committed(&unique("g"), &[partition]).await.unwrap();
    assert!(committed.is_empty());
    assert!(unknown(&broker.partitions(&name).await.unwrap_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dropped_producer_took_is_still_written() {
    let Some(engine) = Kafka::start().await else {
        return;
    };
    let broker = engine.broker();
    let topic = contract::topic(&*broker, 1).await;
    let producer = broker.producer().await.unwrap();
    let acks = producer.enqueue(numbered(&topic, 0..100)).await.unwrap();
    drop(producer);
    assert_eq!(acks.await.unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_are_said_to_be_within_a_deadline() {
    // One refuses to be connected to, the other is and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = connect(&format!("127.0.0.1:1,{}", silent.local_addr().unwrap()));
    let started = Instant::now();
    let away = |what: &str, answer: Result<(), BrokerError>| {
        assert!(
            matches!(answer, Err(BrokerError::Unavailable(_))),
            "{what}: {answer:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
    };
    away("ping", broker.ping().await);
    assert!(started.elapsed() < Duration::from_millis(2_500));
    let partition = [Partition::new("t", 0)];
    let producer = broker.producer().await.unwrap();
    let specs = [spec("t", 1)];
    let (setup, partitions, ends, committed, sent, subscribed) = tokio::join!(
        broker.setup(&specs),
        broker.partitions("t"),
        broker.end_offsets(&partition),
        broker.committed("g", &partition),
        producer.send(vec![outgoing("t", "k", "v")]),
        broker.subscribe(reading(&["t"], Some("g"))),
    );
    away("setup", setup);
    away("partitions", partitions.map(drop));
    away("end_offsets", ends.map(drop));
    away("committed", committed.map(drop));
    away("send", sent.map(drop));
    away("subscribe", subscribed.map(drop));
}

#[test]
fn settings_that_cannot_be_are_fatal() {
    let settings = KafkaSettings {
        sasl: Some(herald_broker::kafka::Sasl {
            mechanism: "NONSENSE".to_owned(),
            user: "u".to_owned(),
            password: "p".to_owned(),
        }),
        ..KafkaSettings::new("127.0.0.1:9092")
    };
    let error = KafkaBroker::connect(settings).err().unwrap();
    assert!(matches!(error, BrokerError::Fatal(_)), "{error}");
}
