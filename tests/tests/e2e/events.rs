//! Events, the rules asked about them, and the notifications that follow.

use herald_e2e::{Engine, Provider, Received, SOON, System, eventually};
use serde_json::{Value, json};

herald_e2e::on_both_engines!(
    an_event_becomes_a_notification_for_each_rule_that_matches,
    a_rule_works_for_the_very_next_event,
    an_event_that_is_sent_again_makes_no_second_notification,
    a_client_of_the_first_seed_gets_its_way,
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
    let event = json!({ "event": "order_created", "payload": payload });
    let tested = client.post("/api/v1/rules/test", &event).await.expect(200);
    assert_eq!(tested["matched"], 3, "{tested:#}");
    let id = client.event("order_created", &payload).await;
    let requests = provider.expect(3, SOON).await;
    for request in &requests {
        assert_eq!(request.text("to"), "ada@example.com");
        assert_eq!(request.text("content"), "Dear Ada, order 17 is on its way.");
        assert_eq!(request.text("subject"), "Order 17");
    }
    assert_agrees(&tested, &requests[0]);
    let event = client.matched_event(&id).await;
    let rules = event["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 7, "{event:#}");
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        let matched = ["always", "equal", "large"].contains(&name);
        assert_eq!(rule["matched"], matched, "{rule:#}");
        assert_eq!(rule["reason"].is_string(), !matched, "{rule:#}");
        let tested = tested["rules"].as_array().unwrap();
        let tested = tested.iter().find(|tested| tested["name"] == name);
        assert_eq!(tested.unwrap()["reason"], rule["reason"]);
        assert_eq!(tested.unwrap()["matched"], rule["matched"]);
        if let Some(notification) = rule["notification_id"].as_str() {
            let shown = client.with_status(notification, "sent").await;
            assert_eq!(shown["event_id"], id.as_str());
        }
    }
    assert_eq!(client.count(None).await, 3);
    system.stop();
}

/// What was said beforehand is what the provider got.
fn assert_agrees(tested: &Value, sent: &Received) {
    let rules = tested["rules"].as_array().unwrap();
    let said = rules.iter().map(|rule| &rule["notification"]);
    for said in said.filter(|said| said.is_object()) {
        for (field, got) in [
            ("recipient", "to"),
            ("channel", "channel"),
            ("content", "content"),
            ("subject", "subject"),
        ] {
            assert_eq!(said[field], sent.body[got], "{said:#}");
        }
    }
}

async fn an_event_that_is_sent_again_makes_no_second_notification(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    client.source("order_created").await;
    let template = json!({ "name": "t", "channel": "push", "content": "{{n}}" });
    let template = client.template(&template).await;
    let more = json!({ "recipient": "me" });
    client.rule(&rule("first", &template, &more)).await;
    let event = |n: usize| json!({ "event": "order_created", "payload": { "n": n }, "id": "a 1" });
    let send = async |n| client.post("/api/v1/events", &event(n)).await.expect(202);
    let first = send(1).await;
    let id = first["id"].as_str().unwrap();
    client.matched_event(id).await;
    // Not for a rule that is made afterwards either.
    client.rule(&rule("second", &template, &more)).await;
    let again = send(2).await;
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let other = client.event("order_created", &json!({ "n": 3 })).await;
    client.matched_event(&other).await;
    client.until_count("sent", 3).await;
    let mut texts: Vec<String> = provider
        .expect(3, SOON)
        .await
        .iter()
        .map(|request| request.text("content").to_owned())
        .collect();
    texts.sort();
    assert_eq!(texts, ["1", "3", "3"]);
    let list = client.get("/api/v1/events").await.expect(200);
    let listed: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!(listed, [other.as_str(), id]);
    system.stop();
}

/// As its README and its routes have it, with a key.
async fn a_client_of_the_first_seed_gets_its_way(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let make = async |path: &str, body: Value| {
        let made = client.post(path, &body).await.expect(201);
        made["data"]["id"].as_str().unwrap().to_owned()
    };
    let source = make("/api/event-sources", json!({ "name": "order_created" })).await;
    let template = make(
        "/api/notification-templates",
        json!({ "name": "order", "channel": "email", "subject": "Order {{order_id}}",
            "body": "Order {{order_id}}: {{total}}" }),
    )
    .await;
    let rule = make(
        "/api/notification-rules",
        json!({ "event_source_id": source, "notification_template_id": template,
            "channel": "email", "conditions": { "order_id": 444 },
            "recipient_field": "customer_email", "recipient_email": "sales@example.com" }),
    )
    .await;
    let payload = json!({ "order_id": 444, "customer_email": "john@example.com", "total": 99.99 });
    let event = json!({ "event": "order_created", "payload": payload });
    let answer = client.post("/api/events", &event).await.expect(202);
    assert_eq!(answer["message"], "Event triggered successfully.");
    assert_eq!(
        (&answer["event"], &answer["payload"]),
        (&event["event"], &payload)
    );

    let request = &provider.expect(1, SOON).await[0];
    assert_eq!(request.text("to"), "john@example.com");
    assert_eq!(request.text("content"), "Order 444: 99.99");
    let log = eventually(SOON, async || {
        let logs = client.get("/api/notification-logs?status=sent").await;
        let logs = logs.expect(200)["data"].clone();
        logs.get(0).cloned().ok_or_else(|| format!("{logs:#}"))
    })
    .await;
    for (field, value) in [
        ("event_source_id", json!(source)),
        ("notification_rule_id", json!(rule)),
        ("channel", json!("email")),
        ("payload", payload),
        ("recipient", json!("john@example.com")),
        ("status", json!("sent")),
        ("error_message", json!(null)),
        ("attempts", json!(1)),
    ] {
        assert_eq!(log[field], value, "{field}: {log:#}");
    }
    assert!(log["sent_at"].is_string());
    let path = format!("/api/notification-logs/{}", log["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await.expect(200)["data"], log);
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
