//! What failed is sent once more, as a new notification.

use std::time::{Duration, Instant};

use herald_e2e::{Client, Engine, Provider, Reply, SOON, System};
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    what_failed_is_requeued_once_as_a_new_notification,
    many_are_requeued_by_channel_and_limit_and_none_twice,
);

async fn failed(client: &Client, channel: &str, recipients: &[&str]) -> Vec<String> {
    let item = |to: &&str| json!({ "recipient": to, "channel": channel, "content": "x" });
    client.notify(recipients.iter().map(item).collect()).await
}

async fn what_failed_is_requeued_once_as_a_new_notification(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::status(400)).await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let old = client
        .notify(json!([{
            "recipient": "a@example.com", "channel": "email", "content": "Hi", "subject": "S",
            "priority": "low", "metadata": { "campaign": 7 }, "idempotency_key": "once",
            "correlation_id": "c-1",
        }]))
        .await
        .remove(0);
    let letter = client.dead_letters(1).await.remove(0);
    assert_eq!(letter["requeued_as"], Value::Null);
    let path = format!("/api/v1/dead-letter/{}", letter["id"].as_str().unwrap());
    for wrong in ["priority=urgent", "delay_seconds=-1", "delay_seconds=soon"] {
        let wrong = format!("{path}/requeue?{wrong}");
        client.post(&wrong, &Value::Null).await.expect(422);
    }

    provider.rescript(|_| Reply::ok());
    let asked = Instant::now();
    let requeue = format!("{path}/requeue?priority=high&delay_seconds=2");
    let answer = client.post(&requeue, &Value::Null).await.expect(201);
    let new = answer["notification_id"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    let shown = client.notification(&new).await;
    assert_eq!(shown["status"], "scheduled");
    assert_eq!(shown["requeued_from"], old.as_str());

    let received = provider.expect(2, SOON).await.remove(1);
    // Times are told in whole milliseconds.
    assert!(received.at - asked >= Duration::from_millis(1_999));
    assert_eq!(received.text("id"), new);
    assert_eq!(received.text("idempotency_key"), new);
    assert_eq!(received.text("priority"), "high");
    assert_eq!(received.text("content"), "Hi");
    assert_eq!(received.text("subject"), "S");
    assert_eq!(received.text("correlation_id"), "c-1");
    assert_eq!(received.body["metadata"]["campaign"], 7);
    assert_eq!(received.body["attempt"], 1);
    client.with_status(&new, "sent").await;

    let again = client.post(&requeue, &Value::Null).await.expect(409);
    assert_eq!(again["notification_id"], new.as_str());
    let letter = client.get(&path).await.expect(200);
    assert_eq!(letter["requeued_as"], new.as_str());
    let before = client.notification(&old).await;
    assert_eq!(before["status"], "failed");
    assert_eq!(before["requeued_from"], Value::Null);
    assert_eq!(client.count(None).await, 2);
    assert_eq!(provider.requests().len(), 2);
    system.stop();
}

async fn many_are_requeued_by_channel_and_limit_and_none_twice(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::status(400)).await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let mails = ["a@example.com", "b@example.com", "c@example.com"];
    let tokens = ["t1", "t2", "t3", "t4", "t5"];
    failed(&client, "email", &mails).await;
    failed(&client, "push", &tokens).await;
    client.dead_letters(8).await;
    let requests = provider.expect(8, SOON).await.len();
    provider.rescript(|_| Reply::ok());

    let bulk = "/api/v1/dead-letter/requeue";
    let only_mails = format!("{bulk}?limit=100&channel=email&priority=high");
    // The parameters may stand in the query or in the body.
    for (path, body, requested, requeued) in [
        (only_mails.as_str(), Value::Null, 100, 3),
        (only_mails.as_str(), Value::Null, 100, 0),
        (bulk, json!({ "limit": 2, "channel": "push" }), 2, 2),
        (bulk, Value::Null, 100, 3),
        (bulk, Value::Null, 100, 0),
    ] {
        let answer = client.post(path, &body).await.expect(200);
        let expected = json!({
            "message": "Dead-letter requeue completed.",
            "requested": requested, "requeued": requeued, "skipped": requested - requeued,
        });
        assert_eq!(answer, expected, "{path} {body}");
    }
    client.until_count("sent", 8).await;
    assert_eq!(client.count(Some("failed")).await, 8);
    let received = provider.requests().split_off(requests);
    let mut to: Vec<&str> = received.iter().map(|one| one.text("to")).collect();
    to.sort_unstable();
    assert_eq!(to, [&mails[..], &tokens[..]].concat());
    for one in &received {
        let lane = if one.text("channel") == "email" {
            "high"
        } else {
            "normal"
        };
        assert_eq!(one.text("priority"), lane);
    }
    system.stop();
}
