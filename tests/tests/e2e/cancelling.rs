//! Cancelling: what was answered holds, whichever way.

use std::{collections::BTreeMap, time::Duration};

use herald_e2e::{Client, Engine, Provider, Reply, SOON, System, at_once};
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    what_is_scheduled_far_ahead_is_cancelled_for_good,
    what_was_sent_cannot_be_cancelled,
    a_batch_is_cancelled_as_far_as_it_was_not_sent,
    a_cancel_against_a_running_pipeline_is_kept_either_way,
);

const FAR: &str = "2099-12-31T23:59:59+00:00";

async fn cancel(client: &Client, id: &str) -> herald_e2e::Answer {
    let path = format!("/api/v1/notifications/{id}/cancel");
    client.post(&path, &Value::Null).await
}

fn item(recipient: &str, scheduled_at: Option<&str>) -> Value {
    json!({
        "recipient": recipient, "channel": "push", "content": "x", "scheduled_at": scheduled_at,
    })
}

async fn what_is_scheduled_far_ahead_is_cancelled_for_good(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let ids = client.notify(json!([item("a", Some(FAR))])).await;
    let id = ids[0].as_str();
    assert_eq!(client.notification(id).await["status"], "scheduled");
    let answer = cancel(&client, id).await.expect(200);
    assert_eq!(answer["notification"]["status"], "cancelled");
    assert!(answer["notification"]["cancelled_at"].is_string());

    let again = cancel(&client, id).await.expect(409);
    assert_eq!(again["status"], "cancelled");
    system.stop();
    system.resume();
    // What comes later goes the same way, past what was cancelled.
    client.notify(json!([item("a", None)])).await;
    client.until_count("sent", 1).await;
    assert_eq!(client.notification(id).await["status"], "cancelled");
    assert!(!provider.by_id().contains_key(id));
    assert_eq!(client.count(Some("cancelled")).await, 1);
    system.stop();
}

async fn what_was_sent_cannot_be_cancelled(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let ids = client.notify(json!([item("a", None)])).await;
    client.with_status(&ids[0], "sent").await;
    let answer = cancel(&client, &ids[0]).await.expect(409);
    let expected = json!({ "message": "Notification cannot be cancelled.", "status": "sent" });
    assert_eq!(answer, expected);
    assert_eq!(client.notification(&ids[0]).await["status"], "sent");
    for missing in ["01890000-0000-7000-8000-000000000000", "none"] {
        cancel(&client, missing).await.expect(404);
    }
    system.stop();
}

async fn a_batch_is_cancelled_as_far_as_it_was_not_sent(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let far = |recipient| item(recipient, Some(FAR));
    let body = json!({
        "batch": { "metadata": { "source": "test" } },
        "notifications": [item("now", None), far("a"), far("b"), far("c")],
    });
    let made = client
        .post("/api/v1/notifications", &body)
        .await
        .expect(201);
    let id = |index: usize| made["notifications"][index]["id"].as_str().unwrap();
    let batch = format!("/api/v1/batches/{}", made["batch_id"].as_str().unwrap());
    client.with_status(id(0), "sent").await;
    cancel(&client, id(1)).await.expect(200);

    let path = format!("{batch}/cancel");
    for count in [2, 0] {
        let answer = client.post(&path, &Value::Null).await.expect(200);
        assert_eq!(answer["cancelled_count"], count);
    }
    let shown = client.get(&batch).await.expect(200);
    assert_eq!(shown["status"], "completed");
    let statuses: Vec<&str> = shown["notifications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["sent", "cancelled", "cancelled", "cancelled"]);
    assert_eq!(provider.requests().len(), 1);
    system.stop();
}

/// How many there are in all, every second of which somebody tries to cancel.
const COUNT: usize = 600;

async fn a_cancel_against_a_running_pipeline_is_kept_either_way(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::ok().after(Duration::from_millis(100))).await;
    let settings = [("HERALD_DELIVERY_MAX_CALLS", "16")];
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    let items = (0..COUNT).map(|n| item(&format!("r{n}"), None));
    let ids = client.notify(items.collect()).await;
    provider.expect(16, SOON).await;

    // From the last to the first: in the middle they meet what is being sent.
    let asked: Vec<String> = ids.iter().skip(1).step_by(2).rev().cloned().collect();
    let answers = at_once(8, asked.clone(), |id| {
        let client = client.clone();
        async move {
            let answer = cancel(&client, &id).await;
            let shown = client.notification(&id).await;
            match answer.status {
                200 => assert_eq!(shown["status"], "cancelled", "{shown:#}"),
                409 => assert_ne!(shown["status"], "cancelled", "{:#}", answer.body),
                other => panic!("{other}: {:#}", answer.body),
            }
            answer.status == 200
        }
    })
    .await;
    let promised: BTreeMap<String, bool> = asked.into_iter().zip(answers).collect();
    let cancelled = promised.values().filter(|yes| **yes).count();
    assert!(
        (1..promised.len()).contains(&cancelled),
        "{cancelled} of {}: too few of one kind to show anything",
        promised.len()
    );

    client.until_count("sent", (COUNT - cancelled) as u64).await;
    assert_eq!(client.count(Some("cancelled")).await, cancelled as u64);
    assert_eq!(client.count(None).await, COUNT as u64);
    let received = provider.by_id();
    for id in &ids {
        let times = received.get(id).copied().unwrap_or_default();
        let was_cancelled = promised.get(id).copied().unwrap_or_default();
        assert_eq!(times, usize::from(!was_cancelled), "{id}: {was_cancelled}");
    }
    system.stop();
}
