//! Nothing accepted is lost, however the process ends.

use std::time::Duration;

use herald_e2e::{Engine, Provider, Reply, SOON, System};
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    all_of_a_thousand_survive_a_kill,
    what_is_in_the_queue_at_ctrl_c_goes_on_at_the_next_start,
);

const COUNT: usize = 1_000;
/// As many calls as a worker makes at once, and so as may be made again after a kill.
const CALLS: usize = 16;

fn batch(count: usize) -> Value {
    let item = |n| json!({ "recipient": format!("r{n}"), "channel": "push", "content": "x" });
    Value::Array((0..count).map(item).collect())
}

async fn all_of_a_thousand_survive_a_kill(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::ok().after(Duration::from_millis(5))).await;
    let calls = CALLS.to_string();
    let mut system = System::start(&engine, &provider, &[("HERALD_DELIVERY_MAX_CALLS", &calls)]);
    let mut ids = system.client().notify(batch(COUNT)).await;
    provider.expect(COUNT / 4, SOON).await;
    system.kill();
    assert!(
        provider.requests().len() < COUNT,
        "killed too late to show anything"
    );
    system.resume();
    let mut received = provider.expect_notifications(COUNT, SOON).await;
    system.client().until_count("sent", COUNT as u64).await;
    let twice: usize = received.values().map(|times| times - 1).sum();
    // Outcomes are stored within 50 ms of the call: what came in that time comes again too.
    assert!(twice <= CALLS * 12, "{twice} came twice");
    ids.sort();
    assert!(ids.iter().all(|id| received.remove(id).is_some()));
    assert!(received.is_empty());
    assert_eq!(system.client().count(None).await, COUNT as u64);
    system.stop();
}

async fn what_is_in_the_queue_at_ctrl_c_goes_on_at_the_next_start(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::ok().after(Duration::from_millis(20))).await;
    let calls = CALLS.to_string();
    let mut system = System::start(&engine, &provider, &[("HERALD_DELIVERY_MAX_CALLS", &calls)]);
    system.client().notify(batch(400)).await;
    provider.expect(20, SOON).await;
    system.stop();
    assert!(
        provider.requests().len() < 400,
        "stopped too late to show anything"
    );
    system.resume();
    let received = provider.expect_notifications(400, SOON).await;
    system.client().until_count("sent", 400).await;
    assert!(
        received.values().all(|times| *times == 1),
        "an orderly stop repeats nothing"
    );
    system.stop();
}
