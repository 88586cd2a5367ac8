//! Events, the rules asked about them, and the notifications that follow.

use herald_e2e::{Engine, Provider, SOON, System};
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    an_event_becomes_a_notification_for_each_rule_that_matches,
    a_rule_works_for_the_very_next_event,
);

fn rule(name: &str, template: &str, more: &Value) -> Value {
    let mut rule = json!({
        "name": name, "event": "order_created", "template_id": template,
        "recipient": "{{customer.email}}",
    });
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    rule
}

async fn an_event_becomes_a_notification_for_each_rule_that_matches(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    client.source("order_created").await;
    let template = client
        .template(&json!({
            "name": "order", "channel": "email", "subject": "Order {{order.id}}",
            "content": "Dear {{customer.name}}, order {{order.id}} is on its way.",
        }))
        .await;
    for (name, more) in [
        ("always", json!({})),
        (
            "equal",
            json!({ "conditions": { "order.paid": true }, "priority": "high" }),
        ),
        ("unequal", json!({ "conditions": { "order.paid": "true" } })),
        ("large", json!({ "when": "payload.order.total > 100.0" })),
        ("small", json!({ "when": "payload.order.total < 100.0" })),
        ("inactive", json!({ "is_active": false })),
        ("nobody", json!({ "recipient": "{{customer.phone}}" })),
    ] {
        client.rule(&rule(name, &template, &more)).await;
    }
    let payload = json!({
        "customer": { "name": "Ada", "email": "ada@example.com" },
        "order": { "id": 17, "paid": true, "total": 250.5 },
    });
    let id = client.event("order_created", &payload).await;
    let requests = provider.expect(3, SOON).await;
    for request in &requests {
        assert_eq!(request.text("to"), "ada@example.com");
        assert_eq!(request.text("content"), "Dear Ada, order 17 is on its way.");
        assert_eq!(request.text("subject"), "Order 17");
    }
    let event = client.matched_event(&id).await;
    let rules = event["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 7, "{event:#}");
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        let matched = ["always", "equal", "large"].contains(&name);
        assert_eq!(rule["matched"], matched, "{rule:#}");
        assert_eq!(rule["reason"].is_string(), !matched, "{rule:#}");
        if let Some(notification) = rule["notification_id"].as_str() {
            let shown = client.with_status(notification, "sent").await;
            assert_eq!(shown["event_id"], id.as_str());
        }
    }
    assert_eq!(client.count(None).await, 3);
    system.stop();
}

async fn a_rule_works_for_the_very_next_event(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    client.source("order_created").await;
    let template = client
        .template(&json!({ "name": "t", "channel": "log", "content": "{{n}}" }))
        .await;
    let more = json!({ "recipient": "me" });
    for round in 1..=10 {
        client
            .rule(&rule(&format!("rule {round}"), &template, &more))
            .await;
        let id = client.event("order_created", &json!({ "n": round })).await;
        let event = client.matched_event(&id).await;
        assert_eq!(event["rules"].as_array().unwrap().len(), round, "{event:#}");
    }
    system.stop();
}
