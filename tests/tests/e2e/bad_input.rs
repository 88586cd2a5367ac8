//! What is refused, and that nothing of it is done.

use herald_e2e::{Engine, Provider, System};
use reqwest::Method;
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    bad_requests_are_refused_whole_with_every_fault_named,
    keys_routes_and_methods_are_checked,
);

async fn bad_requests_are_refused_whole_with_every_fault_named(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let good = json!({ "recipient": "me", "channel": "log", "content": "x" });
    let template = client
        .template(&json!({ "name": "t", "channel": "log", "content": "Hi {{ user.name }}" }))
        .await;
    let notifications = "/api/v1/notifications";
    let cases: [(&str, Value, &str, &str); 7] = [
        (
            notifications,
            json!({ "notifications": [good, { "recipient": "me", "channel": "fax", "content": "x" }] }),
            "notifications.1.channel",
            "The selected channel is invalid.",
        ),
        (
            notifications,
            json!({ "notifications": [good, { "recipient": "me", "channel": "log" }] }),
            "notifications.1.content",
            "Either content or template_id is required.",
        ),
        (
            notifications,
            json!({ "notifications": [{ "recipient": "me", "channel": "log", "template_id": template }] }),
            "notifications.0.variables.user.name",
            "user.name",
        ),
        (
            notifications,
            json!({ "notifications": vec![good.clone(); 1_001] }),
            "notifications",
            "1000",
        ),
        (
            "/api/events",
            json!({ "event": "unheard_of", "payload": {} }),
            "event",
            "The selected event is invalid.",
        ),
        (
            "/api/v1/templates",
            json!({ "name": "broken", "channel": "log", "content": "one\ntwo {{ name" }),
            "content",
            "line 2, column 5",
        ),
        (
            "/api/v1/templates",
            json!({ "name": "t", "channel": "log", "content": "x" }),
            "name",
            "The name has already been taken.",
        ),
    ];
    for (path, body, field, text) in cases {
        let answer = client.post(path, &body).await.expect(422);
        let told = answer["errors"][field][0].as_str();
        assert!(
            told.is_some_and(|told| told.contains(text)),
            "{field}: {answer:#}"
        );
        assert!(answer["message"].is_string());
    }
    let malformed = client
        .send(Method::POST, notifications, "{\"notifications\": [")
        .await;
    assert!(
        malformed.expect(400)["message"]
            .as_str()
            .unwrap()
            .contains("line 1")
    );
    let large = vec![b' '; 10 << 20];
    client
        .send(Method::POST, notifications, large)
        .await
        .expect(413);

    assert_eq!(client.count(None).await, 0);
    assert!(provider.requests().is_empty());
    system.stop();
}

async fn keys_routes_and_methods_are_checked(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    for key in ["", "wrong", "test-ke", "test-key2"] {
        let answer = client.with_key(key).get("/api/v1/notifications").await;
        assert!(answer.expect(401)["message"].is_string());
    }
    for (method, path, status) in [
        (Method::GET, "/api/v1/nothing", 404),
        (Method::DELETE, "/api/v1/notifications", 405),
        (Method::GET, "/api/v1/notifications/not-an-id", 404),
        (
            Method::GET,
            "/api/v1/notifications/01890000-0000-7000-8000-000000000000",
            404,
        ),
        (Method::GET, "/api/v1/notifications?status=lost", 422),
    ] {
        let answer = client.send(method, path, "").await;
        assert!(answer.expect(status)["message"].is_string(), "{path}");
    }
    let open = client.with_key("");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(open.get(path).await.expect(200)["status"], "ok");
    }
    let document = open.get("/openapi.json").await.expect(200);
    assert!(
        document["paths"]
            .as_object()
            .is_some_and(|paths| paths.len() > 5)
    );
    assert_eq!(open.get("/swagger").await.status, 200);
    system.stop();
}
