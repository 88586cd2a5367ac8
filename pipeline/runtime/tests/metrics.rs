//! What the stages count, on the embedded engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use herald_broker::{BrokerError, Outgoing};
use herald_runtime::{
    metrics::{Metrics, State},
    stage::Stage,
};
use herald_schemas::words::{Channel, Priority};
use herald_stages::{Output, Settings};

use self::support::{
    Carrier, Subscribing, World, accepts, delivery, eventually, refuses, retries_after,
};

const NO_RETRY_SOON: u64 = 600_000;

/// The value of a figure, where it is shown.
fn figure(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.text().unwrap();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// In, out, dead letters.
fn counted(metrics: &Metrics, stage: Stage) -> [f64; 3] {
    ["records_in", "records_out", "dead_letters"].map(|name| {
        let series = format!("herald_{name}_total{{stage=\"{stage}\"}}");
        figure(metrics, &series).unwrap_or(-1.0)
    })
}

async fn until_counted(world: &World, stage: Stage, expected: [f64; 3]) {
    let metrics = &world.worker.metrics;
    eventually(&format!("{stage} has counted {expected:?}"), async || {
        counted(metrics, stage) == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_record_are_a_dead_letter_of_each_stage() {
    let world = World::new(retries_after(&[NO_RETRY_SOON]), Carrier::willing()).await;
    let topics = &world.worker.topics;
    let poisoned = [
        (Stage::Match, topics.events(), [1.0, 1.0, 1.0]),
        (
            Stage::Render,
            topics.notifications(Priority::Low),
            [1.0, 1.0, 1.0],
        ),
        (Stage::Schedule, topics.scheduled(), [1.0, 1.0, 1.0]),
        (
            Stage::Deliver,
            topics.deliveries(Channel::Log, Priority::Low),
            [1.0, 1.0, 1.0],
        ),
        (
            Stage::Retry,
            topics.retries(&format!("{NO_RETRY_SOON}ms")),
            [1.0, 1.0, 1.0],
        ),
        // The five letters, an event and a status: the last two are nothing that could be stored.
        (Stage::Materialize, topics.status(), [7.0, 5.0, 0.0]),
    ];
    let producer = world.worker.broker.producer().await.unwrap();
    let running = world.start(&Stage::ALL);
    for (_, topic, _) in &poisoned {
        let poison = Outgoing {
            topic: topic.as_str().into(),
            key: None,
            value: Bytes::from_static(b"poison"),
            headers: Vec::new(),
        };
        producer.send(vec![poison]).await.unwrap();
    }
    for (stage, _, expected) in poisoned {
        until_counted(&world, stage, expected).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_deliver_gives_up_or_puts_off_is_counted_as_that() {
    let carrier = Carrier::new(|call| match call.delivery.identity.recipient.as_str() {
        "r0" | "r1" => refuses("permanent"),
        "r2" => refuses("transient"),
        _ => accepts(),
    });
    let world = World::new(retries_after(&[NO_RETRY_SOON]), carrier).await;
    let deliveries: Vec<Output> = (0..6).map(|n| Output::Deliver(delivery(n))).collect();
    world.worker.outbox.send(&deliveries).await.unwrap();
    let running = world.start(&[Stage::Deliver, Stage::Retry]);
    // A status of each, two dead letters, one for the retry topic.
    until_counted(&world, Stage::Deliver, [6.0, 9.0, 2.0]).await;
    until_counted(&world, Stage::Retry, [1.0, 0.0, 0.0]).await;
    let metrics = &world.worker.metrics;
    for (series, expected) in [
        ("herald_retries_total{channel=\"log\"}", 1.0),
        ("herald_retries_total{channel=\"sms\"}", 0.0),
        (
            "herald_provider_latency_seconds_count{channel=\"log\",outcome=\"accepted\",\
             provider=\"carrier\"}",
            3.0,
        ),
        (
            "herald_provider_latency_seconds_count{channel=\"log\",outcome=\"permanent\",\
             provider=\"carrier\"}",
            2.0,
        ),
        // What is not due is neither late nor in hand.
        ("herald_lag_seconds{stage=\"retry\"}", 0.0),
        ("herald_in_flight{stage=\"retry\"}", 0.0),
    ] {
        assert_eq!(figure(metrics, series), Some(expected), "{series}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_is_held_up_falls_behind_and_catches_up() {
    let carrier = Carrier::willing();
    carrier.answer(false);
    let world = World::of(1, Settings::default(), carrier).await;
    let deliveries: Vec<Output> = (0..50).map(|n| Output::Deliver(delivery(n))).collect();
    world.worker.outbox.send(&deliveries).await.unwrap();
    let running = world.start(&[Stage::Deliver]);
    let of = |name: &str| {
        let series = format!("herald_{name}{{stage=\"deliver\"}}");
        figure(&world.worker.metrics, &series)
    };
    eventually("all are in flight", async || of("in_flight") == Some(50.0)).await;
    eventually("its first look", async || of("lag_records") == Some(50.0)).await;
    eventually("it is behind", async || of("lag_seconds") > Some(0.1)).await;
    let before = of("lag_seconds");
    eventually("what hangs grows old", async || of("lag_seconds") > before).await;
    world.carrier.answer(true);
    eventually("it has caught up", async || {
        of("lag_seconds") == Some(0.0) && of("in_flight") == Some(0.0)
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_is_up_while_it_reads_and_not_between_two_runs() {
    let mut world = World::new(Settings::default(), Carrier::willing()).await;
    let (joinable, worker) = (Arc::new(AtomicBool::new(false)), &mut world.worker);
    let (open, render) = (Arc::clone(&joinable), worker.topics.group("render"));
    worker.broker = Subscribing::new(&worker.broker, move |inside, what| {
        let is_shut = what.group.as_ref() == Some(&render) && !open.load(Ordering::SeqCst);
        Box::pin(async move {
            match is_shut {
                true => Err(BrokerError::Unavailable("as the test wants it".to_owned())),
                false => inside.subscribe(what).await,
            }
        })
    });
    let metrics = &world.worker.metrics;
    let states = || [Stage::Match, Stage::Render].map(|stage| metrics.state(stage));
    let running = world.start(&[Stage::Match, Stage::Render]);
    let restarts = "herald_stage_restarts_total{stage=\"render\"}";
    eventually("render was started anew", async || {
        figure(metrics, restarts) >= Some(2.0)
    })
    .await;
    assert_eq!(states(), [State::Running, State::Down]);
    assert_eq!(
        figure(metrics, "herald_stage_up{stage=\"render\"}"),
        Some(0.0)
    );
    joinable.store(true, Ordering::SeqCst);
    eventually("render runs", async || states() == [State::Running; 2]).await;
    running.stop().await;
    assert_eq!(states(), [State::Down, State::Down]);
}
