//! What carries a key is made once, however often and by however many it is sent.

use std::collections::{BTreeMap, BTreeSet};

use herald_e2e::{Answer, Client, Engine, Provider, SOON, System, at_once};
use reqwest::Method;
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    of_fifty_with_one_notifications_key_one_creates,
    of_fifty_with_one_batchs_key_one_creates,
    fifty_with_one_requests_key_are_answered_alike,
    keys_seen_before_are_left_out_of_a_batch_and_counted,
    a_batch_keeps_its_order_whatever_has_a_key,
    all_that_has_a_key_is_made_once_through_a_kill_and_again,
);

const NOTIFICATIONS: &str = "/api/v1/notifications";
/// How many send the same at the same time.
const CLIENTS: usize = 50;

fn item(content: &str, key: Option<&str>) -> Value {
    json!({ "recipient": content, "channel": "push", "content": content, "idempotency_key": key })
}

/// Sends it by all of these clients at once, [`CLIENTS`] times.
async fn by_all(clients: &[Client], body: &Value) -> Vec<Answer> {
    let senders = clients.iter().cycle().take(CLIENTS).cloned();
    let senders: Vec<Client> = senders.collect();
    at_once(CLIENTS, senders, |client| {
        let body = body.clone();
        async move { client.post(NOTIFICATIONS, &body).await }
    })
    .await
}

/// The one that created, and what all others were told.
fn one_created(answers: Vec<Answer>) -> (Value, Vec<Value>) {
    let (created, others): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|one| one.status == 201);
    assert_eq!((created.len(), others.len()), (1, CLIENTS - 1));
    let others = others.into_iter().map(|one| one.expect(409)).collect();
    (created[0].body.clone(), others)
}

async fn items_key(clients: &[Client], provider: &Provider) {
    let body = json!({ "notifications": [item("a", Some("notif-1"))] });
    let (created, others) = one_created(by_all(clients, &body).await);
    let expected = json!({
        "message": "Notification idempotency key already exists.",
        "idempotency_key": "notif-1",
        "notification_id": created["notifications"][0]["id"],
    });
    assert!(others.iter().all(|told| *told == expected), "{others:#?}");
    clients[0].until_count("sent", 1).await;
    assert_eq!(clients[0].count(None).await, 1);
    assert_eq!(provider.requests().len(), 1);
}

async fn of_fifty_with_one_notifications_key_one_creates(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    items_key(&[system.client()], &provider).await;
    system.stop();
}

async fn batchs_key(clients: &[Client], provider: &Provider) {
    let body = json!({
        "batch": { "idempotency_key": "batch-1" },
        "notifications": [item("b", None), item("c", None)],
    });
    let (created, others) = one_created(by_all(clients, &body).await);
    assert_eq!(created["created"], 2);
    let expected = json!({
        "message": "Batch idempotency key already exists.",
        "batch_id": created["batch_id"],
        "duplicates": 2,
    });
    assert!(others.iter().all(|told| *told == expected), "{others:#?}");
    let received = provider.expect_notifications(2, SOON).await;
    clients[0].until_count("sent", 2).await;
    assert_eq!(clients[0].count(None).await, 2);
    assert!(received.values().all(|times| *times == 1));
}

async fn of_fifty_with_one_batchs_key_one_creates(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    batchs_key(&[system.client()], &provider).await;
    system.stop();
}

async fn requests_key(clients: &[Client], provider: &Provider) {
    let keyed: Vec<Client> = clients
        .iter()
        .map(|client| client.with_header("idempotency-key", "request-1"))
        .collect();
    let body = json!({ "notifications": [item("d", None), item("e", None)] });
    let answers = by_all(&keyed, &body).await;
    let replayed = answers
        .iter()
        .filter(|one| one.headers.get("idempotency-replayed").is_some());
    let replayed: Vec<&Answer> = replayed.collect();
    assert_eq!(replayed.len(), CLIENTS - 1);
    assert!(
        replayed
            .iter()
            .all(|one| one.headers["idempotency-replayed"] == "true")
    );
    for one in &answers {
        assert_eq!((one.status, &one.body), (201, &answers[0].body));
    }
    let other = json!({ "notifications": [item("f", None)] });
    let told = keyed[0].post(NOTIFICATIONS, &other).await.expect(422);
    assert!(told["errors"]["Idempotency-Key"].is_array(), "{told:#}");
    provider.expect_notifications(2, SOON).await;
    clients[0].until_count("sent", 2).await;
    assert_eq!(clients[0].count(None).await, 2);
    assert_eq!(provider.requests().len(), 2);
}

async fn fifty_with_one_requests_key_are_answered_alike(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    requests_key(&[system.client()], &provider).await;
    system.stop();
}

async fn keys_seen_before_are_left_out_of_a_batch_and_counted(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    client.notify(json!([item("first", Some("seen"))])).await;
    let body = json!({ "notifications": [
        item("again", Some("seen")),
        item("none", None),
        item("new", Some("new")),
        item("twice", Some("new")),
    ]});
    let answer = client.post(NOTIFICATIONS, &body).await.expect(201);
    assert_eq!(
        (&answer["created"], &answer["duplicates"]),
        (&json!(2), &json!(2))
    );
    let path = format!("/api/v1/batches/{}", answer["batch_id"].as_str().unwrap());
    let shown = client.get(&path).await.expect(200);
    assert_eq!(shown["total_count"], 2);
    assert_eq!(contents(&answer), ["none", "new"]);
    assert_eq!(contents(&shown), ["none", "new"]);
    client.until_count("sent", 3).await;
    let received = provider.requests();
    let mut sent: Vec<&str> = received.iter().map(|one| one.text("content")).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["first", "new", "none"]);
    system.stop();
}

/// Of the notifications that an answer shows.
fn contents(answer: &Value) -> Vec<&str> {
    let shown = answer["notifications"].as_array().unwrap().iter();
    shown.map(|one| one["content"].as_str().unwrap()).collect()
}

async fn a_batch_keeps_its_order_whatever_has_a_key(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let texts: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    // Every third has a key of its own, and all go to one recipient.
    let items = texts.iter().enumerate().map(|(n, text)| {
        let mut item = item(text, (n % 3 == 0).then_some(text));
        item["recipient"] = json!("one");
        item
    });
    let body = json!({
        "batch": { "idempotency_key": "ordered" },
        "notifications": items.collect::<Vec<Value>>(),
    });
    let made = client.post(NOTIFICATIONS, &body).await.expect(201);
    assert_eq!(contents(&made), texts);
    let path = format!("/api/v1/batches/{}", made["batch_id"].as_str().unwrap());
    assert_eq!(contents(&client.get(&path).await.expect(200)), texts);
    let received = provider.expect(texts.len(), SOON).await;
    let sent: Vec<&str> = received.iter().map(|one| one.text("content")).collect();
    assert_eq!(sent, texts);
    client.until_count("sent", texts.len() as u64).await;
    system.stop();
}

mod two_apis {
    use super::*;

    herald_e2e::on_real_servers!(of_those_who_send_one_key_to_two_apis_one_creates);

    async fn of_those_who_send_one_key_to_two_apis_one_creates(engine: Engine) {
        for kind in 0..3 {
            let provider = Provider::start().await;
            let mut system = System::start(&engine, &provider, &[]);
            let clients = [system.client(), system.another_api()];
            match kind {
                0 => items_key(&clients, &provider).await,
                1 => batchs_key(&clients, &provider).await,
                _ => requests_key(&clients, &provider).await,
            }
            system.stop();
        }
    }
}

/// How many requests are made around the kill.
const REQUESTS: usize = 240;
/// As many calls as a worker makes at once; what is stored of them comes 50 ms later at the most, so
/// that a dozen times as many may be made again after a kill.
const CALLS: usize = 16;

/// A request whose notifications are made once: by their own keys, the batch's or the request's.
async fn post(client: &Client, n: usize) -> Option<Answer> {
    let (a, b) = (format!("{n}-a"), format!("{n}-b"));
    let key = format!("key-{n}");
    let (client, body) = match n % 3 {
        0 => (
            client.clone(),
            json!({ "notifications": [item(&a, Some(&a)), item(&b, Some(&b))] }),
        ),
        1 => (
            client.clone(),
            json!({
                "batch": { "idempotency_key": key },
                "notifications": [item(&a, None), item(&b, None)],
            }),
        ),
        _ => (
            client.with_header("idempotency-key", &key),
            json!({ "notifications": [item(&a, None), item(&b, None)] }),
        ),
    };
    client
        .try_send(Method::POST, NOTIFICATIONS, body.to_string())
        .await
        .ok()
}

async fn all_that_has_a_key_is_made_once_through_a_kill_and_again(engine: Engine) {
    let provider = Provider::start().await;
    let calls = CALLS.to_string();
    let mut system = System::start(&engine, &provider, &[("HERALD_DELIVERY_MAX_CALLS", &calls)]);
    let client = system.client();
    let posting = tokio::spawn({
        let client = client.clone();
        async move {
            at_once(8, 0..REQUESTS, |n| {
                let client = client.clone();
                async move { post(&client, n).await }
            })
            .await
        }
    });
    provider.expect(REQUESTS / 2, SOON).await;
    system.kill_and_resume_api();
    let answers = posting.await.unwrap();
    let answered = answers.iter().flatten().count();
    assert!(
        (1..REQUESTS).contains(&answered),
        "{answered}: killed at the wrong time to show anything"
    );

    let again = at_once(8, 0..REQUESTS, |n| {
        let client = client.clone();
        async move { post(&client, n).await }
    })
    .await;
    for (n, (first, again)) in answers.iter().zip(again).enumerate() {
        let again = again.unwrap_or_else(|| panic!("{n}: no answer"));
        assert!([201, 409].contains(&again.status), "{n}: {:#}", again.body);
        let Some(first) = first else { continue };
        if first.status == 503 {
            // It had been started again and was not ready: nothing was promised.
            continue;
        }
        assert_eq!(first.status, 201, "{n}: {:#}", first.body);
        match n % 3 {
            0 => assert_eq!(again.body["duplicates"], 2, "{n}: {:#}", again.body),
            1 => assert_eq!(again.body["batch_id"], first.body["batch_id"]),
            _ => assert_eq!(again.body, first.body),
        }
    }

    let count = REQUESTS * 2;
    provider.expect_notifications(count, SOON).await;
    client.until_count("sent", count as u64).await;
    assert_eq!(client.count(None).await, count as u64);
    // Where it was not the worker that was killed, no call is made again.
    let twice: usize = provider.by_id().values().map(|times| times - 1).sum();
    let most = if matches!(engine, Engine::Real(_)) {
        0
    } else {
        CALLS * 12
    };
    assert!(twice <= most, "{twice} came twice");
    let mut by_content: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in provider.requests() {
        let ids = by_content
            .entry(one.text("content").to_owned())
            .or_default();
        ids.insert(one.text("id").to_owned());
    }
    assert_eq!(by_content.len(), count);
    for (content, ids) in by_content {
        assert_eq!(ids.len(), 1, "{content} was made as {ids:?}");
    }
    system.stop();
}
