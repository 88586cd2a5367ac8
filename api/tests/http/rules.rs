//! Rules: what they would make of an event.

use serde_json::{Value, json};

use crate::served::Served;

async fn rule(api: &Served, name: &str, template: &str, more: Value) -> String {
    let mut rule = json!({ "name": name, "event": "order_created", "template_id": template,
        "recipient": "{{customer.email}}" });
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    api.make("/api/v1/rules", rule).await
}

#[tokio::test]
async fn rules_are_asked_about_an_event_and_nothing_is_sent() {
    let api = Served::start().await;
    api.source("order_created").await;
    let template = json!({ "name": "order", "channel": "email", "subject": "Order {{id}}",
        "content": "Dear {{customer.name}}" });
    let template = api.make("/api/v1/templates", template).await;
    let id = rule(&api, "matches", &template, json!({ "priority": "high" })).await;
    rule(
        &api,
        "another channel",
        &template,
        json!({ "channel": "log" }),
    )
    .await;
    let needy = json!({ "name": "needy", "channel": "log", "content": "{{missing}}" });
    let needy = api.make("/api/v1/templates", needy).await;
    rule(&api, "fails", &needy, json!({})).await;
    for (name, more) in [
        ("condition", json!({ "conditions": { "id": 8 } })),
        ("when", json!({ "when": "payload.id > 7" })),
        ("inactive", json!({ "is_active": false })),
        ("nobody", json!({ "recipient": "{{customer.phone}}" })),
    ] {
        rule(&api, name, &template, more).await;
    }
    let event = json!({ "event": "order_created",
        "payload": { "id": 7, "customer": { "name": "Ada", "email": "ada@example.com" } } });
    let asked = api.send("POST", "/api/v1/rules/test", &event).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    assert_eq!(
        (&asked.body["matched"], &asked.body["error"]),
        (&json!(3), &json!(null))
    );
    assert_eq!(asked.body["payload"], event["payload"]);
    let of = |name: &str| {
        let rules = asked.body["rules"].as_array().unwrap();
        rules
            .iter()
            .find(|rule| rule["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        of("matches"),
        json!({ "id": id, "name": "matches", "matched": true, "reason": null, "error": null,
            "notification": { "recipient": "ada@example.com", "channel": "email",
                "priority": "high", "subject": "Order 7", "content": "Dear Ada", "html": null,
                "template_id": template, "template_version": 1 } })
    );
    assert_eq!(of("another channel")["notification"]["channel"], "log");
    let failed = of("fails");
    assert_eq!(
        (&failed["matched"], &failed["notification"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(failed["error"]["code"], "missing_variable");
    for (name, reason) in [
        ("condition", "id is 7, not 8"),
        ("when", "when is false"),
        ("inactive", "the rule is not active"),
        ("nobody", "no recipient: customer.phone is missing"),
    ] {
        let rule = of(name);
        assert_eq!(
            (&rule["matched"], &rule["reason"]),
            (&json!(false), &json!(reason))
        );
    }
    assert!(api.engines.producer.batches().is_empty());
    for (body, field) in [
        (json!({ "event": "unheard_of", "payload": {} }), "event"),
        (json!({ "event": "order_created" }), "payload"),
        (json!([]), "body"),
    ] {
        let refused = api.send("POST", "/api/v1/rules/test", &body).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert!(refused.body["errors"][field].is_array(), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_rule_is_tested_as_it_was_just_changed() {
    let api = Served::start().await;
    let other = api.beside().await;
    api.source("order_created").await;
    let template = api.template("order").await;
    let id = rule(&api, "r", &template, json!({ "recipient": "me" })).await;
    let event = json!({ "event": "order_created", "payload": { "id": 7 } });
    for active in [false, true] {
        let change = json!({ "is_active": active });
        api.send("PATCH", &format!("/api/v1/rules/{id}"), &change)
            .await;
        let asked = other.send("POST", "/api/v1/rules/test", &event).await.body;
        assert_eq!(asked["rules"][0]["matched"], active, "{asked}");
    }
}
