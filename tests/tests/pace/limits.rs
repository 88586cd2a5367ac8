//! How much reaches a provider, and when: limits, lanes, breakers.

use std::time::{Duration, Instant};

use herald_e2e::{Client, Engine, Provider, Received, Reply, SOON, System, eventually};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::alone;

herald_e2e::on_both_engines!(
    the_limit_is_used_and_not_exceeded,
    one_recipient_gets_the_whole_limit,
    a_high_one_passes_all_that_wait_and_low_ones_still_go,
    a_provider_that_fails_is_left_alone_until_it_is_well,
);

const LIMIT: f64 = 100.0;

pub(crate) async fn send(
    client: &Client,
    count: usize,
    priority: &str,
    recipient: impl Fn(usize) -> String,
) {
    let numbers: Vec<usize> = (0..count).collect();
    for numbers in numbers.chunks(1_000) {
        let item = |n: &usize| json!({ "recipient": recipient(*n), "channel": "sms", "content": "x", "priority": priority });
        let items: Vec<Value> = numbers.iter().map(item).collect();
        client.notify(Value::Array(items)).await;
    }
}

pub(crate) fn number(n: usize) -> String {
    format!("+90555{n:07}")
}

/// A pause between two that came which is longer than this is no pause of the limit's: somebody on
/// this machine had no time.
const STALL: Duration = Duration::from_millis(50);

/// How many came between two moments, as a part of the limit; and the most that were let go in any
/// second, so too. What piled up while somebody had no time came in a later second than it was let
/// go in.
fn shares(requests: &[Received], from: Instant, until: Instant) -> (f64, f64) {
    let mut times: Vec<Instant> = requests.iter().map(|one| one.at).collect();
    times.retain(|at| (from..until).contains(at));
    times.sort_unstable();
    let second = Duration::from_secs(1);
    let mut most = 0.0_f64;
    for (first, at) in times.iter().enumerate() {
        let after = times[first..].iter();
        let count = after.take_while(|one| **one - *at < second).count();
        let around = times
            .windows(2)
            .filter(|pair| pair[1] > *at - second && pair[0] < *at + second);
        let stalls = around.map(|pair| (pair[1] - pair[0]).saturating_sub(STALL));
        let piled_up = stalls.sum::<Duration>().as_secs_f64() * LIMIT;
        most = most.max(count as f64 - piled_up);
    }
    let seconds = (until - from).as_secs_f64();
    (times.len() as f64 / seconds / LIMIT, most / LIMIT)
}

pub(crate) fn check(provider: &Provider, from: Instant, until: Instant) {
    let (share, most) = shares(&provider.requests(), from, until);
    println!(
        "{:.1} % of the limit, {:.0} % in the fullest second",
        share * 100.0,
        most * 100.0
    );
    assert!((0.90..=1.02).contains(&share), "{share} of the limit");
    assert!(most <= 1.10, "{most} of the limit in a second");
}

async fn the_limit_is_used_and_not_exceeded(engine: Engine) {
    let _alone = alone().await;
    let provider = Provider::start().await;
    let limit = [("HERALD_RATE_LIMITS_SMS", "100")];
    let mut system = System::start(&engine, &provider, &limit);
    let client = system.client();
    send(&client, 3_600, "normal", number).await;
    provider.expect(1, SOON).await;
    let from = Instant::now();
    sleep(Duration::from_secs(30)).await;
    check(&provider, from, Instant::now());
    // Set by an operator, it works within two seconds.
    let slower = json!({ "rate_limits": { "sms": 10 } });
    client.patch("/api/v1/controls", &slower).await.expect(200);
    sleep(Duration::from_secs(2)).await;
    let from = Instant::now();
    sleep(Duration::from_secs(5)).await;
    let (share, _) = shares(&provider.requests(), from, Instant::now());
    assert!((0.08..=0.12).contains(&share), "{share}");
    system.stop();
}

async fn one_recipient_gets_the_whole_limit(engine: Engine) {
    let _alone = alone().await;
    let provider = Provider::start().await;
    let limit = [("NOTIFICATION_RATE_LIMIT_PER_SECOND", "100")];
    let mut system = System::start(&engine, &provider, &limit);
    send(&system.client(), 2_000, "normal", |_| number(1)).await;
    provider.expect(1, SOON).await;
    let from = Instant::now();
    sleep(Duration::from_secs(15)).await;
    check(&provider, from, Instant::now());
    system.stop();
}

async fn a_high_one_passes_all_that_wait_and_low_ones_still_go(engine: Engine) {
    let _alone = alone().await;
    let provider = Provider::start().await;
    let limit = [("HERALD_RATE_LIMITS_SMS", "100")];
    let mut system = System::start(&engine, &provider, &limit);
    let client = system.client();
    send(&client, 10_000, "low", |n| number(n + 1_000_000)).await;
    send(&client, 10_000, "normal", |n| number(n + 2_000_000)).await;
    provider.expect(200, SOON).await;
    let sent = Instant::now();
    let high =
        json!([{ "recipient": number(1), "channel": "sms", "content": "now", "priority": "high" }]);
    client.notify(high).await;
    let arrived = eventually(SOON, async || {
        let requests = provider.requests();
        let high = requests.iter().find(|one| one.text("content") == "now");
        high.map(|one| one.at).ok_or_else(|| "not there".to_owned())
    })
    .await;
    let took = arrived - sent;
    assert!(took < Duration::from_millis(1_010), "{took:?}");

    send(&client, 1_000, "high", |n| number(n + 3_000_000)).await;
    let from = provider.requests().len();
    sleep(Duration::from_secs(5)).await;
    let since = provider.requests().split_off(from);
    let of = |lane: &str| {
        since
            .iter()
            .filter(|one| one.text("priority") == lane)
            .count()
    };
    let (high, low) = (of("high"), of("low"));
    assert!(high > since.len() * 3 / 4, "{high} of {}", since.len());
    assert!(low > 0, "low ones starve");
    system.stop();
}

async fn a_provider_that_fails_is_left_alone_until_it_is_well(engine: Engine) {
    let _alone = alone().await;
    let provider = Provider::scripted(|_| Reply::status(500)).await;
    let settings = [
        ("HERALD_RATE_LIMITS_SMS", "50"),
        ("NOTIFICATION_CIRCUIT_FAILURE_THRESHOLD", "5"),
        ("NOTIFICATION_CIRCUIT_OPEN_SECONDS", "3"),
        ("NOTIFICATION_CIRCUIT_PROBE_SECONDS", "1"),
        ("HERALD_RETRY_DELAYS", "1s,2s"),
    ];
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    send(&client, 100, "normal", number).await;
    provider.expect(1, SOON).await;
    let failed = Instant::now();
    let breaker =
        async || client.get("/api/v1/metrics").await.expect(200)["circuit_breaker"]["sms"].clone();
    until_it_is(&breaker, "open").await;
    assert!(
        failed.elapsed() < Duration::from_secs(2),
        "{:?}",
        failed.elapsed()
    );
    // Those that wait have lost nothing.
    let asked = provider.requests().len();
    assert!(asked < 20, "{asked} calls before it opened");
    assert!(client.count(Some("pending")).await >= 80);

    provider.rescript(|_| Reply::ok());
    client.until_count("sent", 100).await;
    assert_eq!(breaker().await, "closed");
    let wasted = provider.requests().len() - 100;
    assert!(
        wasted <= asked + 4,
        "{wasted} calls failed: {asked} before it opened, then probes"
    );
    system.stop();
}

async fn until_it_is(breaker: &impl AsyncFn() -> Value, state: &str) {
    eventually(SOON, async || match breaker().await {
        is if is == state => Ok(()),
        is => Err(is.to_string()),
    })
    .await;
}
