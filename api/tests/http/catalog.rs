//! Event sources, templates and rules: what is known when, and what holds them together.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::{NOTIFICATIONS, served::Served};

/// However soon the next request comes, it sees the change: thrice each, as luck may help once.
#[tokio::test]
async fn what_is_made_works_for_the_very_next_request() {
    let api = Served::start().await;
    for n in 0..3 {
        let event = format!("event_{n}");
        let sent = json!({ "event": event, "payload": { "id": 7 } });
        let refused = api.send("POST", "/api/events", &sent).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        let source = api.source(&event).await;
        let template = api.template(&event).await;
        let rule = json!({ "name": event, "event": event, "template_id": template,
            "recipient": "{{ id }}" });
        api.make("/api/v1/rules", rule).await;

        let accepted = api.send("POST", "/api/events", &sent).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        assert_eq!(accepted.body["message"], "Event triggered successfully.");
        assert_eq!(accepted.body["payload"], json!({ "id": 7 }));

        let path = format!("/api/v1/event-sources/{source}");
        let off = json!({ "is_active": false });
        let off = api.send("PATCH", &path, &off).await;
        assert_eq!(off.status, 200, "{}", off.body);
        assert_eq!(api.send("POST", "/api/events", &sent).await.status, 422);
    }
}

/// The other process has just looked at the catalog, and looks again before it refuses.
#[tokio::test]
async fn what_another_process_has_just_made_is_known_here() {
    let api = Served::start().await;
    let other = api.beside().await;
    for n in 0..3 {
        let event = format!("event_{n}");
        let sent = json!({ "event": event, "payload": {} });
        let look = async || other.send("POST", "/api/events", &sent).await;
        assert_eq!(look().await.status, 422);
        api.source(&event).await;
        assert_eq!(look().await.status, 202);

        let template = api.template(&event).await;
        let rule = json!({ "name": event, "event": event, "template_id": template,
            "recipient": "me" });
        other.make("/api/v1/rules", rule).await;

        look().await;
        let template = api.template(&format!("{event}, too")).await;
        let notification = json!({ "recipient": "me", "channel": "log",
            "template_id": template, "variables": { "id": n } });
        let body = json!({ "notifications": [notification] });
        let accepted = other.send("POST", NOTIFICATIONS, &body).await;
        assert_eq!(accepted.status, 201, "{}", accepted.body);
    }
}

#[tokio::test]
async fn a_change_that_was_made_is_answered_so_though_it_cannot_be_read_again() {
    let api = Served::start().await;
    let fails = &api.engines.store.fails;
    fails.store(true, Ordering::SeqCst);
    let template = api.template("order").await;
    let listed = api.get("/api/v1/templates").await;
    assert_eq!(listed.status, 503, "{}", listed.body);
    assert!(listed.head.contains("retry-after: "));
    fails.store(false, Ordering::SeqCst);

    let at = format!("/api/v1/templates/{template}");
    assert_eq!(api.get(&at).await.status, 200);
}

#[tokio::test]
async fn what_is_in_use_keeps_its_name_and_stays() {
    let api = Served::start().await;
    let template = api.template("order").await;
    let source = api.source("order_created").await;
    let rule = json!({ "name": "tell", "event": "order_created", "template_id": template,
        "recipient": "me", "conditions": { "a.b": 1 }, "when": "payload.total > 5" });
    let rule = api.make("/api/v1/rules", rule).await;

    let template = format!("/api/v1/templates/{template}");
    let source = format!("/api/v1/event-sources/{source}");
    let rule = format!("/api/v1/rules/{rule}");
    for at in [&template, &source] {
        let used = api.ask("DELETE", at, "", "").await;
        assert_eq!(used.status, 409, "{at}");
        let told = used.body["message"].as_str().unwrap();
        assert!(told.ends_with("is used by the rules \"tell\"."), "{told}");
    }
    let renamed = json!({ "name": "other" });
    let refused = api.send("PUT", &source, &renamed).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(
        refused.body["errors"]["name"][0],
        "The name is used by the rules \"tell\"."
    );

    assert_eq!(api.ask("DELETE", &rule, "", "").await.status, 204);
    assert_eq!(api.send("PUT", &source, &renamed).await.status, 200);
    assert_eq!(api.ask("DELETE", &source, "", "").await.status, 204);
    let gone = api.ask("DELETE", &template, "", "").await;
    assert_eq!(gone.status, 200);
    assert_eq!(gone.body, json!({ "message": "Template deleted." }));
    for at in [&template, &source, &rule] {
        assert_eq!(api.get(at).await.status, 404, "{at}");
    }
}

#[tokio::test]
async fn a_template_is_changed_by_the_field_and_listed_by_the_page() {
    let api = Served::start().await;
    let template = api.template("order").await;
    let again = json!({ "name": "order", "channel": "log", "content": "x" });
    let taken = api.send("POST", "/api/v1/templates", &again).await;
    assert_eq!(taken.status, 422);
    assert_eq!(
        taken.body["errors"]["name"][0],
        "The name has already been taken."
    );

    let at = format!("/api/v1/templates/{template}");
    let change = json!({ "content": "Order {{id}}, updated" });
    let newer = api.send("PATCH", &at, &change).await;
    assert_eq!((newer.status, &newer.body["version"]), (200, &json!(2)));
    assert_eq!(newer.body["name"], "order");

    api.template("later").await;
    let list = api.get("/api/v1/templates?per_page=1&page=2").await;
    let meta = json!({ "current_page": 2, "per_page": 1, "total": 2 });
    assert_eq!(list.body["meta"], meta);
    assert_eq!(list.body["data"][0]["content"], "Order {{id}}, updated");
}
