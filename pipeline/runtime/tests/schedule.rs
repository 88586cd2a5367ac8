//! schedule on the embedded engines, in real time and with short waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use herald_broker::{BrokerError, Outgoing, Start, Subscription};
use herald_runtime::{
    metrics::Metrics,
    stage::Stage,
    worker::{Worker, now},
};
use herald_schemas::{
    ids::{NotificationId, UnixMs},
    records::{DeadLetter, NotificationRequested},
    words::{Priority, Status},
};
use herald_stages::{Output, Settings};
use herald_store::ScheduledRow;
use tokio::time::{Instant, sleep};

use self::support::{Carrier, PARTITIONS, Process, Reader, Subscribing, World, eventually};

const SCHEDULE: &[Stage] = &[Stage::Schedule];
const HOUR: i64 = 3_600_000;
/// The number of one that goes on at once.
const CANARY: usize = 1_000_000;
/// Before every place.
fn first() -> (UnixMs, NotificationId) {
    (i64::MIN, NotificationId::first_at(0))
}

fn request(number: usize, send_at: Option<UnixMs>) -> NotificationRequested {
    let created_at = now();
    NotificationRequested {
        id: Some(NotificationId::derived(created_at, &[&number.to_be_bytes()]).to_string()),
        recipient: format!("r{}", number % 7),
        channel: "log".to_owned(),
        priority: "normal".to_owned(),
        content: Some(number.to_string()),
        subject: None,
        html: None,
        template_id: None,
        template_version: None,
        variables: None,
        metadata: None,
        idempotency_key: None,
        correlation_id: None,
        traceparent: None,
        batch_id: None,
        event_id: None,
        rule_id: None,
        requeued_from: None,
        created_at,
        send_at,
        expires_at: None,
        catalog_version: 0,
        accepted_by: Some("api".to_owned()),
    }
}

struct Bench {
    world: World,
    /// What goes on.
    out: Reader<NotificationRequested>,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new(Settings::default(), Carrier::willing()).await;
        let topic = world.worker.topics.notifications(Priority::Normal);
        let out = world.read(&topic).await;
        Self { world, out }
    }

    fn run(&self) -> Process {
        self.world.start(SCHEDULE)
    }

    async fn schedule(&self, requests: &[NotificationRequested]) {
        let early = requests.iter().cloned().map(Output::Schedule);
        let early: Vec<Output> = early.collect();
        self.world.worker.outbox.send(&early).await.unwrap();
    }

    /// How many wait in the store.
    async fn kept(&self) -> usize {
        let store = &self.world.worker.store;
        let mut kept = 0;
        for shard in 0..PARTITIONS {
            let rows = store.due_scheduled(shard, first(), i64::MAX, 100_000).await;
            kept += rows.unwrap().len();
        }
        kept
    }

    /// Runs the stage, and waits until it does.
    async fn run_and_see(&mut self) -> Process {
        let running = self.run();
        self.schedule(&[request(CANARY, None)]).await;
        self.have_gone_on(1).await;
        self.out.forget();
        running
    }

    /// Waits until so many different ones have gone on.
    async fn have_gone_on(&mut self, count: usize) {
        let out = &mut self.out;
        eventually(&format!("{count} have gone on"), async || {
            out.catch_up().await;
            times_gone_on(out).len() >= count
        })
        .await;
    }
}

/// How often each went on, by its content; under one id, however often.
fn times_gone_on(out: &Reader<NotificationRequested>) -> BTreeMap<usize, usize> {
    let mut ids = HashMap::new();
    let mut times = BTreeMap::new();
    for request in &out.records {
        let number: usize = request.content.as_ref().unwrap().parse().unwrap();
        let id = request.id.clone().unwrap();
        assert_eq!(*ids.entry(number).or_insert(id.clone()), id);
        *times.entry(number).or_default() += 1;
    }
    times
}

fn restarts(worker: &Worker) -> f64 {
    let families = worker.metrics.registry().gather();
    let restarts = families
        .iter()
        .filter(|family| family.name().contains("restarts"));
    restarts
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_early_goes_on_when_it_is_due_in_order_and_little_later() {
    let mut bench = Bench::new().await;
    let mut rows = bench.world.rows().await;
    let running = bench.run_and_see().await;
    let start = now();
    let mut requests: Vec<_> = (0..150)
        .map(|number| request(number, Some(start + 1_000 + 5 * number as i64)))
        .collect();
    fastrand::shuffle(&mut requests);
    bench.schedule(&requests).await;
    bench.have_gone_on(requests.len()).await;
    running.stop().await;
    assert!(times_gone_on(&bench.out).values().all(|times| *times == 1));
    let mut late = Vec::new();
    let mut last: HashMap<String, UnixMs> = HashMap::new();
    for (request, at) in bench.out.records.iter().zip(&bench.out.times) {
        let send_at = request.send_at.unwrap();
        late.push(at - send_at);
        let before = last.insert(request.recipient.clone(), send_at);
        assert!(before < Some(send_at), "out of order");
    }
    late.sort_unstable();
    assert!(late[0] >= 0, "{} ms early", -late[0]);
    let (median, most) = (late[late.len() / 2], late[late.len() - 1]);
    println!("lateness: {median} ms at the median, {most} ms at the most");
    assert!(median < 1_000);
    // It is pending from then on.
    for request in &requests {
        let id = request.id.as_ref().unwrap().parse().unwrap();
        let row = &rows.now().await[&id];
        assert_eq!(row.status, Status::Pending);
        assert!(row.updated_at >= request.send_at.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_already_goes_on_at_once_and_past_what_waits() {
    let mut bench = Bench::new().await;
    let waits = request(0, Some(now() + HOUR));
    let past = request(1, Some(now() - HOUR));
    let long_past = request(2, Some(i64::MIN));
    let without_a_time = request(3, None);
    let beyond_all_time = request(4, Some(i64::MAX));
    bench
        .schedule(&[waits, past, long_past, without_a_time, beyond_all_time])
        .await;
    let running = bench.run();
    bench.have_gone_on(3).await;
    eventually("two are kept", async || bench.kept().await == 2).await;
    running.stop().await;
    bench.out.catch_up().await;
    let gone: Vec<_> = times_gone_on(&bench.out).into_iter().collect();
    assert_eq!(gone, [(1, 1), (2, 1), (3, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_survives_restarts_and_kills_and_goes_on_under_one_id() {
    let mut bench = Bench::new().await;
    let start = now();
    let requests: Vec<_> = (0..1_000)
        .map(|number| {
            let mut request = request(number, Some(start + 300 + 2 * number as i64));
            // A producer that chose no id.
            if number % 3 == 0 {
                request.id = None;
            }
            request
        })
        .collect();
    let (first, later) = requests.split_at(800);
    bench.schedule(first).await;
    let mut kills = 0;
    for round in 0..8 {
        let running = bench.run();
        sleep(Duration::from_millis(fastrand::u64(100..300))).await;
        if round == 4 {
            bench.schedule(later).await;
        }
        if round % 2 == 0 {
            running.stop().await;
        } else {
            running.kill().await;
            kills += 1;
        }
    }
    let running = bench.run();
    bench.have_gone_on(requests.len()).await;
    running.stop().await;
    bench.out.catch_up().await;
    let times = times_gone_on(&bench.out);
    assert_eq!(times.len(), requests.len());
    let again = bench.out.records.len() - times.len();
    println!("{again} went on again after {kills} kills");
    // At the most what one look lets go on, of each shard.
    assert!(again <= kills * 200 * PARTITIONS as usize);
    for (request, at) in bench.out.records.iter().zip(&bench.out.times) {
        assert!(*at >= request.send_at.unwrap(), "early");
    }
    assert_eq!(bench.kept().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_between_two_looks_lets_nothing_go_on_twice() {
    let mut bench = Bench::new().await;
    let start = now();
    let requests: Vec<_> = (0..500)
        .map(|number| request(number, Some(start + 200 + 3 * number as i64)))
        .collect();
    bench.schedule(&requests).await;
    for _ in 0..8 {
        let running = bench.run();
        sleep(Duration::from_millis(fastrand::u64(50..250))).await;
        running.stop().await;
    }
    let running = bench.run();
    bench.have_gone_on(requests.len()).await;
    running.stop().await;
    bench.out.catch_up().await;
    assert_eq!(bench.out.records.len(), requests.len());
}

/// A worker whose groups have another name and start there, and which can join them while it is
/// told that it can: another machine's, which took over what the first one does not know it lost.
fn elsewhere(worker: &Worker, name: &'static str, start: Start) -> (Worker, Arc<AtomicBool>) {
    let joinable = Arc::new(AtomicBool::new(true));
    let open = Arc::clone(&joinable);
    let broker = Subscribing::new(&worker.broker, move |inside, what| {
        let open = Arc::clone(&open);
        Box::pin(async move {
            if !open.load(Ordering::SeqCst) {
                let gone = "its partitions are gone".to_owned();
                return Err(BrokerError::Unavailable(gone));
            }
            let what = Subscription {
                group: what.group.map(|group| group + name),
                start,
                ..what
            };
            inside.subscribe(what).await
        })
    });
    let worker = Worker {
        broker,
        metrics: Metrics::new().unwrap(),
        name: name.into(),
        ..worker.clone()
    };
    (worker, joinable)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_owner_stops_where_it_cannot_note_what_went_on_and_nothing_is_lost() {
    let mut bench = Bench::new().await;
    let worker = &bench.world.worker;
    let (old, joinable) = elsewhere(worker, ".old", Start::Earliest);
    let (new, _) = elsewhere(worker, ".new", Start::Latest);
    let former = Process::start(old.clone(), SCHEDULE);
    let start = now();
    let kept_before: Vec<_> = (0..500)
        .map(|number| request(number, Some(start + 2_000 + number as i64 % 100)))
        .collect();
    bench.schedule(&kept_before).await;
    eventually("all are kept", async || bench.kept().await == 500).await;
    joinable.store(false, Ordering::SeqCst);
    let owner = Process::start(new.clone(), SCHEDULE);
    let mut canaries = CANARY..;
    eventually("both are there", async || {
        let canary = request(canaries.next().unwrap(), None);
        bench.schedule(&[canary]).await;
        bench.out.catch_up().await;
        times_gone_on(&bench.out).values().any(|times| *times == 2)
    })
    .await;
    let start = now();
    let kept_by_both: Vec<_> = (500..1_000)
        .map(|number| request(number, Some(start + 1_000 + number as i64 % 100)))
        .collect();
    bench.schedule(&kept_by_both).await;
    eventually("the old one has stopped", async || restarts(&old) >= 1.0).await;
    eventually("all have gone on", async || {
        bench.out.catch_up().await;
        times_gone_on(&bench.out).range(..1_000).count() == 1_000
    })
    .await;
    eventually("the new one has noted it", async || bench.kept().await == 0).await;
    former.stop().await;
    owner.stop().await;
    bench.out.catch_up().await;
    let times = times_gone_on(&bench.out);
    let twice = times
        .range(..1_000)
        .filter(|(_, times)| **times > 1)
        .count();
    println!("{twice} by both of them");
    // The old one let some go on before it found out.
    assert!(times.values().all(|times| *times <= 2), "{times:?}");
    assert_eq!(restarts(&new), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_was_due_for_long_the_next_owner_need_not_look_again() {
    let mut bench = Bench::new().await;
    let store = Arc::clone(&bench.world.worker.store);
    let long_ago = now() - 2 * HOUR;
    for shard in 0..PARTITIONS {
        let owned = store.own_schedule(shard, "before", long_ago).await.unwrap();
        assert_eq!(owned.0, long_ago);
    }
    bench.run_and_see().await.stop().await;
    for shard in 0..PARTITIONS {
        let owned = store.own_schedule(shard, "after", now()).await.unwrap();
        assert!(
            owned.0 > now() - HOUR,
            "{} h behind",
            (now() - owned.0) / HOUR
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_becomes_a_dead_letter_and_stops_nothing() {
    let mut bench = Bench::new().await;
    let worker = &bench.world.worker;
    let mut letters = bench
        .world
        .read::<DeadLetter>(&worker.topics.dead_letters())
        .await;
    let request = request(1, Some(now() + 300));
    let recipient = request.recipient.clone();
    let garbage = Outgoing {
        topic: worker.topics.scheduled().into(),
        key: Some(Bytes::from(recipient)),
        value: Bytes::from_static(b"no record of ours"),
        headers: Vec::new(),
    };
    let producer = worker.broker.producer().await.unwrap();
    producer.send(vec![garbage]).await.unwrap();
    bench.schedule(&[request]).await;
    let running = bench.run();
    bench.have_gone_on(1).await;
    running.stop().await;
    let letters = letters.catch_up().await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.stage, "schedule");
    assert_eq!(letter.error.code, "undecodable");
    assert_eq!(letter.value, b"no record of ours");
    assert_eq!(letter.source_topic, bench.world.worker.topics.scheduled());
    assert_eq!(restarts(&bench.world.worker), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_that_are_due_in_one_second_are_not_waited_for_long() {
    const ROWS: usize = 20_000;
    let mut bench = Bench::new().await;
    let worker = &bench.world.worker;
    let start = now() - 1_000;
    let mut rows: Vec<Vec<ScheduledRow>> = vec![Vec::new(); PARTITIONS as usize];
    for number in 0..ROWS {
        let send_at = start + (number % 1_000) as i64;
        let request = request(number, Some(send_at));
        rows[number % PARTITIONS as usize].push(ScheduledRow {
            send_at,
            id: request.id.as_ref().unwrap().parse().unwrap(),
            body: worker.outbox.codec().encode(&request).unwrap().to_vec(),
        });
    }
    for (shard, rows) in rows.iter().enumerate() {
        let (store, shard) = (&worker.store, shard as i32);
        store
            .own_schedule(shard, "before", start - 1)
            .await
            .unwrap();
        store.put_scheduled(shard, rows).await.unwrap();
    }
    let began = Instant::now();
    let running = bench.run();
    eventually("all have gone on", async || bench.kept().await == 0).await;
    let took = began.elapsed();
    running.stop().await;
    println!("{:.0} a second", ROWS as f64 / took.as_secs_f64());
    bench.have_gone_on(ROWS).await;
    assert_eq!(bench.out.records.len(), ROWS);
    // A hundred thousand in a minute, and this is a debug build.
    assert!(took < Duration::from_secs(12), "{took:?}");
}
