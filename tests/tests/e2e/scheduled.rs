//! What is to be sent later comes when it is due.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, FixedOffset};
use herald_e2e::{Engine, Provider, Received, SOON, System};
use serde_json::json;

herald_e2e::on_both_engines!(
    what_is_scheduled_comes_when_it_is_due,
    what_was_due_long_ago_is_sent_at_once,
    what_is_scheduled_survives_a_stop_and_a_kill,
);

/// How much later than due something may come on a busy machine.
const LATE: Duration = Duration::from_secs(5);
/// Times are told in whole milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// The time on the wall, as a client with this offset writes it.
fn written(at: SystemTime, offset_hours: i32) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap();
    let utc = DateTime::from_timestamp_millis(since.as_millis() as i64).unwrap();
    let offset = FixedOffset::east_opt(offset_hours * 3_600 + 1_800).unwrap();
    utc.with_timezone(&offset).to_rfc3339()
}

/// A time from now, by our clock and on the wall.
pub(crate) fn from_now(after: Duration, offset_hours: i32) -> (Instant, String) {
    let (now, wall) = (Instant::now(), SystemTime::now());
    (now + after, written(wall + after, offset_hours))
}

fn assert_in_time(received: &Received, due: Instant) {
    assert!(received.at + TICK >= due, "{:?} early", due - received.at);
    let late = received.at.saturating_duration_since(due);
    assert!(late <= LATE, "{late:?} late");
}

async fn what_is_scheduled_comes_when_it_is_due(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let (first, east) = from_now(Duration::from_millis(2_000), 5);
    let (second, west) = from_now(Duration::from_millis(3_000), -4);
    let ids = client
        .notify(json!([
            { "recipient": "later", "channel": "push", "content": "x", "scheduled_at": west },
            { "recipient": "soon", "channel": "push", "content": "x", "scheduled_at": east },
            { "recipient": "now", "channel": "push", "content": "x" },
        ]))
        .await;
    let shown = client.notification(&ids[0]).await;
    assert_eq!(shown["status"], "scheduled");
    let told = DateTime::parse_from_rfc3339(shown["scheduled_at"].as_str().unwrap()).unwrap();
    assert_eq!(told, DateTime::parse_from_rfc3339(&west).unwrap());

    let received = provider.expect(3, SOON).await;
    let order: Vec<&str> = received.iter().map(|one| one.text("to")).collect();
    assert_eq!(order, ["now", "soon", "later"]);
    assert_in_time(&received[1], first);
    assert_in_time(&received[2], second);
    client.until_count("sent", 3).await;
    assert_eq!(provider.requests().len(), 3);
    system.stop();
}

async fn what_was_due_long_ago_is_sent_at_once(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let times = [
        written(SystemTime::now() - Duration::from_secs(1), 5),
        "2001-01-01T00:00:00Z".to_owned(),
        "2001-01-01".to_owned(),
    ];
    for (number, at) in times.iter().enumerate() {
        let item = json!([{
            "recipient": "me", "channel": "push", "content": "x", "scheduled_at": at,
        }]);
        let ids = client.notify(item).await;
        provider.expect(number + 1, LATE).await;
        client.with_status(&ids[0], "sent").await;
    }
    system.stop();
}

async fn what_is_scheduled_survives_a_stop_and_a_kill(engine: Engine) {
    let provider = Provider::start().await;
    let before = Instant::now();
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    // Not due before the kill, however slow the machine.
    let (due, at) = from_now(Duration::from_secs(3) + before.elapsed() * 2, 5);
    let item = |n: usize| {
        json!({
            "recipient": format!("r{n}"), "channel": "push", "content": "x", "scheduled_at": at,
        })
    };
    let ids = client.notify((0..50).map(item).collect()).await;
    system.stop();
    system.resume();
    system.kill();
    assert!(Instant::now() < due, "killed too late to show anything");
    system.resume();
    let ready = Instant::now();
    let received = provider.expect(ids.len(), SOON).await;
    for one in &received {
        assert!(one.at + TICK >= due, "{:?} early", due - one.at);
    }
    // A worker that was killed keeps its place in its group for a while.
    let late = received[ids.len() - 1]
        .at
        .saturating_duration_since(ready.max(due));
    assert!(late <= SOON / 2, "{late:?} late");
    client.until_count("sent", ids.len() as u64).await;
    assert!(provider.by_id().values().all(|times| *times == 1));
    assert_eq!(provider.by_id().len(), ids.len());
    system.stop();
}
