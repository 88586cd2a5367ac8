//! API keys: what each opens, how often, and until when.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    NOTIFICATIONS, notification,
    served::{Answer, Served, request},
};

const KEYS: &str = "/api/v1/api-keys";

/// Asks with another key.
async fn by(api: &Served, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let request = request(method, path, "", &body);
    let request = request.replace("x-api-key: good-key", &format!("x-api-key: {key}"));
    api.raw(request.as_bytes()).await
}

/// Makes a key; answers its id and the key.
async fn key(api: &Served, asked: Value) -> (String, String) {
    let made = api.send("POST", KEYS, &asked).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let text = |field: &str| made.body[field].as_str().unwrap().to_owned();
    assert!(text("key").starts_with(&text("prefix")), "{}", made.body);
    (text("id"), text("key"))
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_say_and_nothing_else() {
    let api = Served::start().await;
    let template = api.template("thanks").await;
    let template = format!("/api/v1/templates/{template}");
    let send = json!({ "notifications": [notification()] });
    let test = json!({ "event": "none", "payload": {} });
    let cancel = format!("{NOTIFICATIONS}/none/cancel");
    let requeue = "/api/v1/dead-letter/none/requeue";
    // Who may come through, and what is said to those who may.
    let requests = [
        ("POST", NOTIFICATIONS, &send, "send", 201),
        ("POST", &cancel, &Value::Null, "send", 404),
        ("POST", "/api/events", &test, "send", 422),
        ("POST", "/api/v1/events", &test, "send", 422),
        ("GET", NOTIFICATIONS, &Value::Null, "read", 200),
        ("GET", &template, &Value::Null, "read", 200),
        ("GET", "/api/event-sources", &Value::Null, "read", 200),
        ("POST", "/api/v1/rules/test", &test, "read", 422),
        ("PATCH", &template, &json!({ "name": "thx" }), "manage", 200),
        ("POST", requeue, &Value::Null, "manage", 404),
        ("POST", "/api/event-sources", &json!({}), "manage", 422),
        ("GET", KEYS, &Value::Null, "admin", 200),
        ("POST", KEYS, &json!({}), "admin", 422),
    ];
    for scope in ["send", "read", "manage", "admin"] {
        let (_, key) = key(&api, json!({ "name": scope, "scopes": [scope] })).await;
        for (method, path, body, needed, expected) in &requests {
            let answer = by(&api, &key, method, path, body).await;
            let what = format!("{method} {path} by {scope}: {}", answer.body);
            if scope == *needed || scope == "admin" {
                assert_eq!(answer.status, *expected, "{what}");
            } else {
                assert_eq!(answer.status, 403, "{what}");
                let told = format!("The API key lacks the scope {needed}.");
                assert_eq!(answer.body, json!({ "message": told }), "{what}");
            }
        }
        let health = by(&api, &key, "GET", "/api/v1/health", &Value::Null).await;
        assert_eq!(health.status, 200, "any good key");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_its_use_is_noted() {
    let api = Served::start().await;
    let asked = json!({ "name": "checkout", "scopes": ["send", "read"],
        "rate_limit_per_minute": 600, "expires_at": "2100-01-01T00:00:00+02:00" });
    let (id, key) = key(&api, asked).await;
    let path = format!("{KEYS}/{id}");
    let shown = api.get(&path).await;
    assert_eq!(shown.status, 200);
    let text = shown.body.to_string();
    assert!(!text.contains(&key), "{text}");
    assert_eq!(shown.body["name"], "checkout");
    assert_eq!(shown.body["scopes"], json!(["send", "read"]));
    assert_eq!(shown.body["rate_limit_per_minute"], 600);
    assert_eq!(shown.body["expires_at"], "2099-12-31T22:00:00.000+00:00");
    assert_eq!(shown.body["last_used_at"], Value::Null);

    let used = by(&api, &key, "GET", NOTIFICATIONS, &Value::Null).await;
    assert_eq!(used.status, 200);
    let until = Instant::now() + Duration::from_secs(10);
    while api.get(&path).await.body["last_used_at"].is_null() {
        assert!(Instant::now() < until, "the use is not noted");
        sleep(Duration::from_millis(10)).await;
    }
    let list = api.get(KEYS).await;
    assert_eq!(list.body["meta"]["total"], 1);
    assert_eq!(list.body["data"][0]["id"], json!(id));
    assert!(list.body["data"][0]["last_used_at"].is_string());
    assert!(!list.body.to_string().contains(&key));
}

#[tokio::test]
async fn a_key_that_expires_or_is_revoked_opens_nothing_at_any_process() {
    let api = Served::start().await;
    let other = api.beside().await;
    for end in ["expire", "revoke"] {
        let (id, key) = key(&api, json!({ "name": end, "scopes": ["read"] })).await;
        let look = async |api: &Served| by(api, &key, "GET", NOTIFICATIONS, &Value::Null).await;
        assert_eq!(look(&api).await.status, 200);
        let path = format!("{KEYS}/{id}");
        if end == "expire" {
            let later = json!({ "expires_at": "2100-01-01" });
            let ended = api.send("POST", &format!("{path}/expire"), &later).await;
            assert_eq!(ended.status, 200, "{}", ended.body);
            assert_eq!(look(&api).await.status, 200, "not yet");
            let ended = api.ask("POST", &format!("{path}/expire"), "", "").await;
            assert_eq!(ended.status, 200, "{}", ended.body);
            let again = api.ask("POST", &format!("{path}/expire"), "", "").await;
            assert_eq!(again.status, 409, "{}", again.body);
        } else {
            assert_eq!(api.ask("DELETE", &path, "", "").await.status, 204);
            assert_eq!(api.get(&path).await.status, 404);
        }
        let refused = look(&api).await;
        assert_eq!(refused.status, 401, "at once where it was ended");
        assert_eq!(refused.body, json!({ "message": "Unauthorized" }));
        let until = Instant::now() + Duration::from_secs(10);
        while look(&other).await.status != 401 {
            assert!(Instant::now() < until, "the other process lets it in still");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn one_request_too_many_in_a_minute_is_told_when_to_come_again() {
    let api = Served::start().await;
    let asked = json!({ "name": "slow", "scopes": ["read"], "rate_limit_per_minute": 2 });
    let (_, slow) = key(&api, asked).await;
    let (_, other) = key(&api, json!({ "name": "other", "scopes": ["read"] })).await;
    let look = async |key: &str| by(&api, key, "GET", NOTIFICATIONS, &Value::Null).await;
    assert_eq!(look(&slow).await.status, 200);
    assert_eq!(look(&slow).await.status, 200);
    let limited = look(&slow).await;
    assert_eq!(limited.status, 429);
    let told = json!({ "message": "Rate limit exceeded", "limit": 2 });
    assert_eq!(limited.body, told);
    let (_, wait) = limited.head.split_once("retry-after: ").unwrap();
    let wait: u64 = wait.split("\r\n").next().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(look(&other).await.status, 200);
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_what_is_wrong_with_a_new_one_is_told() {
    let api = Served::start().await;
    let (_, key) = key(&api, json!({ "name": "one", "scopes": ["read"] })).await;
    let (prefix, _) = key.split_at(17);
    let other = format!("{prefix}{}", "0".repeat(48));
    for wrong in [
        "hrld_",
        prefix,
        &key[..64],
        &other,
        "hrld_ééééééééééééé",
        "",
    ] {
        let answer = by(&api, wrong, "GET", NOTIFICATIONS, &Value::Null).await;
        assert_eq!(answer.status, 401, "{wrong}");
    }
    let long = "x".repeat(256);
    for (asked, field) in [
        (json!({ "scopes": ["read"] }), "name"),
        (json!({ "name": "one", "scopes": ["read"] }), "name"),
        (json!({ "name": long, "scopes": ["read"] }), "name"),
        (json!({ "name": "x" }), "scopes"),
        (json!({ "name": "x", "scopes": [] }), "scopes"),
        (json!({ "name": "x", "scopes": "read" }), "scopes"),
        (
            json!({ "name": "x", "scopes": ["read", "all"] }),
            "scopes.1",
        ),
        (
            json!({ "name": "x", "scopes": ["read", "read"] }),
            "scopes.1",
        ),
        (
            json!({ "name": "x", "scopes": ["read"], "rate_limit_per_minute": 0 }),
            "rate_limit_per_minute",
        ),
        (
            json!({ "name": "x", "scopes": ["read"], "expires_at": "2020-01-01" }),
            "expires_at",
        ),
    ] {
        let answer = api.send("POST", KEYS, &asked).await;
        assert_eq!(answer.status, 422, "{asked}");
        assert!(answer.body["errors"][field].is_array(), "{}", answer.body);
    }
}

/// Whoever has a key of the configuration can still ask what the catalog is not needed for.
#[tokio::test]
async fn a_store_that_is_away_keeps_no_configured_key_out() {
    let api = Served::start().await;
    let (_, key) = key(&api, json!({ "name": "one", "scopes": ["read"] })).await;
    api.engines.store.fails.store(true, Ordering::SeqCst);
    sleep(Duration::from_millis(60)).await;
    let health = async |key: &str| by(&api, key, "GET", "/api/v1/health", &Value::Null).await;
    assert_eq!(health("good-key").await.status, 200);
    assert_eq!(health(&key).await.status, 503, "it may have been revoked");
    assert_eq!(health("bad-key").await.status, 401);
}
