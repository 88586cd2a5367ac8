//! What operators do while everything runs: hold back, let go, move the provider, stop and start.

use std::time::{Duration, Instant};

use herald_e2e::{Client, Engine, Provider, SOON, System, eventually};
use serde_json::{Value, json};
use tokio::time::sleep;

herald_e2e::on_both_engines!(
    what_is_paused_waits_over_a_kill_and_can_be_cancelled,
    the_provider_can_be_moved_while_everything_runs,
    stages_are_stopped_and_started,
);

fn item(channel: &str, priority: &str, content: &str) -> Value {
    let recipient = match channel {
        "sms" => "+905551234567",
        _ => "somebody@example.com",
    };
    json!([{ "recipient": recipient, "channel": channel, "content": content, "priority": priority }])
}

async fn send(client: &Client, channel: &str, priority: &str, content: &str) -> String {
    client
        .notify(item(channel, priority, content))
        .await
        .remove(0)
}

/// What operators set works within two seconds.
async fn let_it_work() {
    sleep(Duration::from_secs(2)).await;
}

fn contents(provider: &Provider) -> Vec<String> {
    let requests = provider.requests();
    let mut contents: Vec<String> = requests
        .iter()
        .map(|one| one.text("content").to_owned())
        .collect();
    contents.sort_unstable();
    // Whatever was in hand at a kill may come twice.
    contents.dedup();
    contents
}

async fn until_it_has(provider: &Provider, expected: &[&str]) {
    eventually(SOON, async || match contents(provider) {
        has if has == expected => Ok(()),
        has => Err(format!("{has:?}")),
    })
    .await;
}

async fn what_is_paused_waits_over_a_kill_and_can_be_cancelled(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let paused = client
        .post("/api/v1/pause", &json!({ "channel": "sms" }))
        .await
        .expect(200);
    assert_eq!(paused["paused"]["channels"], json!(["sms"]));
    client
        .post("/api/v1/pause", &json!({ "priority": "low" }))
        .await
        .expect(200);
    let_it_work().await;
    let withdrawn = send(&client, "sms", "high", "withdrawn").await;
    send(&client, "sms", "high", "sms").await;
    send(&client, "email", "low", "low").await;
    send(&client, "email", "high", "mail").await;
    client.until_count("sent", 1).await;
    system.kill();
    system.resume();
    send(&client, "email", "normal", "more mail").await;
    until_it_has(&provider, &["mail", "more mail"]).await;
    let path = format!("/api/v1/notifications/{withdrawn}/cancel");
    client.post(&path, &Value::Null).await.expect(200);

    let left = client
        .post("/api/v1/resume", &json!({ "channel": "sms" }))
        .await
        .expect(200);
    assert_eq!(left["paused"]["channels"], json!([]));
    assert_eq!(left["paused"]["priorities"], json!(["low"]));
    until_it_has(&provider, &["mail", "more mail", "sms"]).await;
    client
        .post("/api/v1/resume", &Value::Null)
        .await
        .expect(200);
    client.until_count("sent", 4).await;
    until_it_has(&provider, &["low", "mail", "more mail", "sms"]).await;

    client.post("/api/v1/pause", &Value::Null).await.expect(200);
    let_it_work().await;
    send(&client, "email", "high", "at last").await;
    let all = client.get("/api/v1/controls").await.expect(200);
    assert_eq!(all["paused"]["everything"], true);
    assert!(!contents(&provider).contains(&"at last".to_owned()));
    client
        .post("/api/v1/resume", &Value::Null)
        .await
        .expect(200);
    client.until_count("sent", 5).await;
    system.stop();
}

async fn the_provider_can_be_moved_while_everything_runs(engine: Engine) {
    let (old, new) = (Provider::start().await, Provider::start().await);
    let mut system = System::start(&engine, &old, &[]);
    let client = system.client();
    send(&client, "sms", "high", "old").await;
    old.expect(1, SOON).await;
    let urls = json!({ "provider": { "url": new.url() } });
    client.patch("/api/v1/controls", &urls).await.expect(200);
    let_it_work().await;
    send(&client, "sms", "high", "new").await;
    client.until_count("sent", 2).await;
    system.kill();
    system.resume();
    send(&client, "sms", "high", "new again").await;
    until_it_has(&new, &["new", "new again"]).await;
    let back = json!({ "provider": null });
    client.patch("/api/v1/controls", &back).await.expect(200);
    let_it_work().await;
    send(&client, "sms", "high", "old again").await;
    old.expect(2, SOON).await;
    for wrong in [
        json!({ "provider": { "url": "ftp://x" } }),
        json!({ "provider": {} }),
        json!({ "rate_limits": { "fax": 1 } }),
        json!({ "rate_limits": { "sms": -1 } }),
    ] {
        client.patch("/api/v1/controls", &wrong).await.expect(422);
    }
    assert_eq!(
        (contents(&old), contents(&new)),
        (
            vec!["old".to_owned(), "old again".to_owned()],
            vec!["new".to_owned(), "new again".to_owned()],
        )
    );
    system.stop();
}

async fn stages_are_stopped_and_started(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let worker = until_deliver_is(&client, "running").await;
    let path = |what: &str| format!("/api/v1/workers/{worker}/{what}");
    let deliver = json!({ "stages": ["deliver"] });
    client.post(&path("stop"), &deliver).await.expect(202);
    until_deliver_is(&client, "stopped").await;
    send(&client, "sms", "high", "waits").await;
    sleep(Duration::from_millis(500)).await;
    assert!(provider.requests().is_empty());
    // As it is to be, and so no reason not to be ready.
    let probe = system.admin().pop().unwrap();
    let ready = probe.get("/readyz").await.expect(200);
    assert_eq!(
        (&ready["stages"]["deliver"], &ready["stages"]["render"]),
        (&json!("stopped"), &json!("ok"))
    );
    client.post(&path("start"), &deliver).await.expect(202);
    provider.expect(1, SOON).await;
    let ready = probe.get("/readyz").await.expect(200);
    assert_eq!(ready["stages"]["deliver"], "ok");
    client
        .post(&path("restart"), &Value::Null)
        .await
        .expect(202);
    let asked = Instant::now();
    send(&client, "sms", "high", "after the restart").await;
    provider.expect(2, SOON).await;
    println!(
        "delivered {:?} after a restart of all stages",
        asked.elapsed()
    );
    client.until_count("sent", 2).await;
    let none = client
        .post(&path("stop"), &json!({ "stages": ["none"] }))
        .await;
    none.expect(422);
    client
        .post("/api/v1/workers/none/stop", &Value::Null)
        .await
        .expect(404);
    system.stop();
}

/// The worker's id, once its stage deliver is so.
async fn until_deliver_is(client: &Client, status: &str) -> String {
    eventually(SOON, async || {
        let workers = client.get("/api/v1/workers").await.expect(200);
        let worker = &workers["data"][0];
        let stages = worker["stages"].as_array().into_iter().flatten();
        let deliver = stages.clone().find(|stage| stage["stage"] == "deliver");
        match deliver {
            Some(stage) if stage["status"] == status => {
                Ok(worker["id"].as_str().unwrap().to_owned())
            }
            _ => Err(workers.to_string()),
        }
    })
    .await
}
