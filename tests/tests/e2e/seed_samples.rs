//! The REST contract as its first clients know it: each request of its examples, and each answer of
//! its samples, key for key. More keys may be there. Its metrics and its health are in
//! `figures`.

use herald_e2e::{Answer, Client, Engine, Provider, Reply, SOON, System};
use reqwest::Method;
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    notifications_and_batches_are_answered_as_in_the_samples,
    dead_letters_are_answered_as_in_the_samples,
    templates_are_answered_as_in_the_samples,
    errors_are_answered_as_in_the_samples,
);

const SAMPLE_KEY: &str = "local-dev-key";
const NOTIFICATIONS: &str = "/api/v1/notifications";
const FAR: &str = "2099-12-31T23:59:59+00:00";

fn start(engine: &Engine, provider: &Provider) -> (System, Client) {
    let system = System::start(engine, provider, &[("API_KEYS", SAMPLE_KEY)]);
    let client = Client::new(system.address(), SAMPLE_KEY);
    (system, client)
}

/// The contract's first example: two notifications of one batch.
fn batch(key: &str) -> Value {
    json!({
        "batch": { "idempotency_key": key },
        "notifications": [
            { "recipient": "+905551234567", "channel": "sms", "content": "Flash sale!",
              "priority": "high" },
            { "recipient": "user@example.com", "channel": "email", "content": "Welcome!" },
        ],
    })
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = [8, 4, 4, 4, 12];
    parts.len() == 5 && parts.iter().zip(digits).all(|(part, n)| is_hex(part, n))
}

/// Holds an answer against a sample: its keys are all there, with values as the sample's. In its
/// place may stand what kind of a text there is.
fn assert_like(answer: &Value, sample: &Value, place: &str) {
    match (sample, answer) {
        (Value::Object(sample), Value::Object(_)) => {
            for (key, value) in sample {
                assert_like(&answer[key], value, &format!("{place}.{key}"));
            }
        }
        (Value::Array(sample), Value::Array(items)) => {
            assert_eq!(items.len(), sample.len(), "{place}: {answer:#}");
            for (index, (item, sample)) in items.iter().zip(sample).enumerate() {
                assert_like(item, sample, &format!("{place}[{index}]"));
            }
        }
        (Value::String(sample), Value::String(text)) => {
            let is_so = match sample.as_str() {
                "<uuid>" => is_uuid(text),
                "<trace>" => is_hex(text, 32),
                "<span>" => is_hex(text, 16),
                exactly => text == exactly,
            };
            assert!(is_so, "{place}: {text:?} is not {sample:?}");
        }
        _ => assert_eq!(answer, sample, "{place}"),
    }
}

/// The answer, which has this status and is like the sample.
fn like(answer: Answer, status: u16, sample: &Value) -> Value {
    let body = answer.expect(status);
    assert_like(&body, sample, "");
    body
}

fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer).and_then(Value::as_str).unwrap()
}

fn shown(channel: &str, priority: &str, status: &str) -> Value {
    json!({
        "id": "<uuid>", "batch_id": "<uuid>", "channel": channel, "priority": priority,
        "status": status,
    })
}

async fn notifications_and_batches_are_answered_as_in_the_samples(engine: Engine) {
    let provider = Provider::start().await;
    let (mut system, client) = start(&engine, &provider);
    let demo = client.with_header("x-correlation-id", "demo-123");
    let answer = demo.post(NOTIFICATIONS, &batch("batch-1")).await;
    assert_eq!(answer.headers["x-correlation-id"], "demo-123");
    assert!(answer.headers.contains_key("traceparent"));
    let created = like(
        answer,
        201,
        &json!({
            "batch_id": "<uuid>", "trace_id": "<trace>", "span_id": "<span>",
            "metadata": { "trace_id": "<trace>", "span_id": "<span>" },
            "created": 2, "duplicates": 0,
            "notifications": [shown("sms", "high", "pending"), shown("email", "normal", "pending")],
        }),
    );
    for key in ["trace_id", "span_id"] {
        assert_eq!(created[key], created["metadata"][key]);
    }
    let sms = text(&created, "/notifications/0/id");
    client.until_count("sent", 2).await;
    let one = format!("{NOTIFICATIONS}/{sms}");
    let shown_one = like(client.get(&one).await, 200, &shown("sms", "high", "sent"));
    assert_eq!(shown_one["id"], sms);
    assert_eq!(shown_one["correlation_id"], "demo-123");
    let query = format!("{NOTIFICATIONS}?status=sent&channel=sms&per_page=20");
    like(
        client.get(&query).await,
        200,
        &json!({
            "data": [shown("sms", "high", "sent")],
            "meta": { "current_page": 1, "per_page": 20, "total": 1 },
        }),
    );
    like(
        client.get(NOTIFICATIONS).await,
        200,
        &json!({
            "data": [shown("email", "normal", "sent"), shown("sms", "high", "sent")],
            "meta": { "current_page": 1, "per_page": 25, "total": 2 },
        }),
    );

    // Far ahead, so that they are still there to be looked at and cancelled.
    let mut later = batch("batch-2");
    later["batch"]["metadata"] = json!({ "source": "api" });
    for item in later["notifications"].as_array_mut().unwrap() {
        item["scheduled_at"] = json!(FAR);
    }
    let created = client.post(NOTIFICATIONS, &later).await.expect(201);
    let path = format!("/api/v1/batches/{}", text(&created, "/batch_id"));
    like(
        client.get(&path).await,
        200,
        &json!({
            "batch_id": created["batch_id"], "status": "pending", "total_count": 2,
            "trace_id": created["trace_id"], "span_id": created["span_id"],
            "metadata": { "source": "api" },
            "notifications": [shown("sms", "high", "scheduled"), shown("email", "normal", "scheduled")],
        }),
    );
    let answer = client.post(&format!("{path}/cancel"), &Value::Null).await;
    like(
        answer,
        200,
        &json!({
            "message": "Batch cancelled.", "batch_id": created["batch_id"], "cancelled_count": 2,
        }),
    );
    assert_eq!(client.get(&path).await.expect(200)["status"], "cancelled");

    later["batch"] = json!({});
    let created = client.post(NOTIFICATIONS, &later).await.expect(201);
    let path = format!(
        "{NOTIFICATIONS}/{}/cancel",
        text(&created, "/notifications/0/id")
    );
    // As curl -X POST sends it: no body at all.
    let answer = client.send(Method::POST, &path, "").await;
    like(
        answer,
        200,
        &json!({
            "message": "Notification cancelled.",
            "notification": shown("sms", "high", "cancelled"),
        }),
    );
    system.stop();
}

async fn dead_letters_are_answered_as_in_the_samples(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::status(400)).await;
    let (mut system, client) = start(&engine, &provider);
    let item = json!({ "recipient": "+905551234567", "channel": "sms", "content": "x" });
    let ids = client.notify(json!([item])).await;
    client.dead_letters(1).await;
    let letter = json!({
        "id": "<uuid>", "notification_id": ids[0], "channel": "sms",
        "error_type": "permanent", "error_code": "http_400",
    });
    let list = like(
        client.get("/api/v1/dead-letter").await,
        200,
        &json!({
            "data": [letter],
            "meta": { "current_page": 1, "per_page": 25, "total": 1 },
        }),
    );
    let path = format!("/api/v1/dead-letter/{}", text(&list, "/data/0/id"));
    like(client.get(&path).await, 200, &letter);

    let one = format!("{path}/requeue?priority=high&delay_seconds=30");
    let answer = client.send(Method::POST, &one, "").await;
    let requeued = like(
        answer,
        201,
        &json!({
            "message": "Dead-letter notification requeued.", "notification_id": "<uuid>",
        }),
    );
    let new = client
        .notification(text(&requeued, "/notification_id"))
        .await;
    assert_eq!(
        (&new["priority"], &new["status"]),
        (&json!("high"), &json!("scheduled"))
    );

    // Of two letters, one was requeued: the other is left for all at once, and then none is.
    client.notify(json!([item])).await;
    client.dead_letters(2).await;
    let many = "/api/v1/dead-letter/requeue?limit=100&channel=sms&priority=low&delay_seconds=60";
    for requeued in [1, 0] {
        let answer = client.send(Method::POST, many, "").await;
        like(
            answer,
            200,
            &json!({
                "message": "Dead-letter requeue completed.",
                "requested": 100, "requeued": requeued, "skipped": 100 - requeued,
            }),
        );
    }
    system.stop();
}

async fn templates_are_answered_as_in_the_samples(engine: Engine) {
    let provider = Provider::start().await;
    let (mut system, client) = start(&engine, &provider);
    let new = json!({
        "name": "welcome", "channel": "sms", "content": "Hello {{name}}",
        "default_variables": { "name": "Guest" },
    });
    let mut sample = json!({
        "id": "<uuid>", "name": "welcome", "channel": "sms", "content": "Hello {{name}}",
    });
    let created = like(client.post("/api/v1/templates", &new).await, 201, &sample);
    let id = text(&created, "/id");
    sample["id"] = json!(id);
    like(
        client.get("/api/v1/templates").await,
        200,
        &json!({
            "data": [sample],
            "meta": { "current_page": 1, "per_page": 25, "total": 1 },
        }),
    );
    let path = format!("/api/v1/templates/{id}");
    like(client.get(&path).await, 200, &sample);

    let preview = json!({ "template_id": id, "variables": { "name": "Ada" } });
    let answer = client.post("/api/v1/templates/preview", &preview).await;
    like(
        answer,
        200,
        &json!({
            "template_id": id, "content": "Hello Ada", "variables": { "name": "Ada" },
        }),
    );
    let send = json!({ "notifications": [{
        "recipient": "+905551234567", "channel": "sms", "template_id": id,
        "variables": { "name": "Ada" },
    }]});
    client.post(NOTIFICATIONS, &send).await.expect(201);
    let received = provider.expect(1, SOON).await.remove(0);
    assert_eq!(received.text("content"), "Hello Ada");

    let change = json!({ "content": "Hello {{name}}, updated!" });
    sample["content"] = change["content"].clone();
    let answer = client.send(Method::PATCH, &path, change.to_string()).await;
    like(answer, 200, &sample);
    like(client.get(&path).await, 200, &sample);
    let answer = client.send(Method::DELETE, &path, "").await;
    like(answer, 200, &json!({ "message": "Template deleted." }));
    client.get(&path).await.expect(404);
    system.stop();
}

async fn errors_are_answered_as_in_the_samples(engine: Engine) {
    let provider = Provider::start().await;
    let (mut system, client) = start(&engine, &provider);
    for key in ["", "another"] {
        let answer = client
            .with_key(key)
            .post(NOTIFICATIONS, &batch("none"))
            .await;
        assert_eq!(answer.expect(401), json!({ "message": "Unauthorized" }));
    }
    let answer = client.post(NOTIFICATIONS, &json!({})).await;
    assert_eq!(
        answer.expect(422),
        json!({
            "message": "The notifications field is required.",
            "errors": { "notifications": ["The notifications field is required."] },
        })
    );

    let created = client
        .post(NOTIFICATIONS, &batch("batch-1"))
        .await
        .expect(201);
    let again = client.post(NOTIFICATIONS, &batch("batch-1")).await;
    assert_eq!(
        again.expect(409),
        json!({
            "message": "Batch idempotency key already exists.",
            "batch_id": created["batch_id"], "duplicates": 2,
        })
    );
    let keyed = json!({ "notifications": [{
        "recipient": "+905551234567", "channel": "sms", "content": "x",
        "idempotency_key": "notif-123",
    }]});
    let created = client.post(NOTIFICATIONS, &keyed).await.expect(201);
    let id = text(&created, "/notifications/0/id");
    let again = client.post(NOTIFICATIONS, &keyed).await;
    assert_eq!(
        again.expect(409),
        json!({
            "message": "Notification idempotency key already exists.",
            "idempotency_key": "notif-123", "notification_id": id,
        })
    );
    client.with_status(id, "sent").await;
    let path = format!("{NOTIFICATIONS}/{id}/cancel");
    let answer = client.send(Method::POST, &path, "").await;
    assert_eq!(
        answer.expect(409),
        json!({
            "message": "Notification cannot be cancelled.", "status": "sent",
        })
    );
    system.stop();
}
