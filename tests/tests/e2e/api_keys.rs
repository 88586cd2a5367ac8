//! API keys, as an operator hands them out.

use herald_e2e::{Client, Engine, Provider, SOON, System, eventually};
use reqwest::Method;
use serde_json::{Value, json};

herald_e2e::on_both_engines!(a_key_works_until_it_is_revoked_and_over_a_kill);

const KEYS: &str = "/api/v1/api-keys";

async fn make(client: &Client, key: Value) -> (String, Client) {
    let made = client.post(KEYS, &key).await.expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    (id, client.with_key(made["key"].as_str().unwrap()))
}

async fn a_key_works_until_it_is_revoked_and_over_a_kill(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let (id, sender) = make(&client, json!({ "name": "app", "scopes": ["send"] })).await;
    let (_, slow) = make(
        &client,
        json!({ "name": "slow", "scopes": ["read"], "rate_limit_per_minute": 1 }),
    )
    .await;
    let item = json!([{ "recipient": "+905551234567", "channel": "sms", "content": "x" }]);
    let body = json!({ "notifications": item });
    sender
        .post("/api/v1/notifications", &body)
        .await
        .expect(201);
    sender.get("/api/v1/notifications").await.expect(403);
    slow.get("/api/v1/notifications").await.expect(200);
    slow.get("/api/v1/notifications").await.expect(429);

    system.kill();
    system.resume();
    sender
        .post("/api/v1/notifications", &body)
        .await
        .expect(201);
    client.until_count("sent", 2).await;
    eventually(SOON, async || {
        let key = client.get(&format!("{KEYS}/{id}")).await.expect(200);
        let used = key["last_used_at"].is_string();
        used.then_some(()).ok_or_else(|| key.to_string())
    })
    .await;
    let path = format!("{KEYS}/{id}");
    assert_eq!(client.send(Method::DELETE, &path, "").await.status, 204);
    let refused = sender.post("/api/v1/notifications", &body).await;
    assert_eq!(refused.expect(401), json!({ "message": "Unauthorized" }));
    system.stop();
}
