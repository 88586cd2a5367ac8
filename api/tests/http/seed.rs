//! The first seed's paths and fields, on Herald's own objects.

use herald_schemas::{
    ids::{EventId, NotificationId},
    records::{Event, Failure, Identity},
    rows::{NotificationRow, RowWrite},
    words::{Channel, Priority, Status},
};
use herald_store::Store;
use serde_json::{Value, json};

use crate::served::Served;

/// What a creation answers under `data`.
async fn made(api: &Served, path: &str, body: &Value) -> Value {
    let answer = api.send("POST", path, body).await;
    assert_eq!(answer.status, 201, "{path}: {}", answer.body);
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.ends_with(" created successfully."), "{message}");
    answer.body["data"].clone()
}

async fn data(api: &Served, path: &str) -> Value {
    let answer = api.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body["data"].clone()
}

fn id(data: &Value) -> &str {
    data["id"].as_str().unwrap()
}

/// Whether `shown` has everything that was said, as it was said.
fn assert_says(shown: &Value, said: &Value) {
    for (field, value) in said.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}: {shown}");
    }
}

#[tokio::test]
async fn sources_and_templates_are_the_same_by_both_names() {
    let api = Served::start().await;
    let source = json!({ "name": "order_created", "description": "An order",
        "schema": { "required": ["order_id"] }, "is_active": true });
    let shown = made(&api, "/api/event-sources", &source).await;
    assert_says(&shown, &source);
    let at = format!("/api/event-sources/{}", id(&shown));
    assert_eq!(data(&api, &at).await, shown);
    assert_eq!(data(&api, "/api/event-sources").await, json!([shown]));
    let own = api
        .get(&format!("/api/v1/event-sources/{}", id(&shown)))
        .await;
    assert_eq!(own.body, shown);
    let changed = api.send("PUT", &at, &json!({ "is_active": false })).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(
        changed.body["message"],
        "Event source updated successfully."
    );
    assert_says(
        &changed.body["data"],
        &json!({ "is_active": false, "name": "order_created" }),
    );
    let again = api.send("POST", "/api/event-sources", &source).await;
    assert_eq!(again.status, 422);
    assert_eq!(
        again.body["errors"]["name"][0],
        "The name has already been taken."
    );

    let template = json!({ "name": "order", "channel": "email", "subject": "Order {{order_id}}",
        "body": "Thank you for {{order_id}}" });
    let shown = made(&api, "/api/notification-templates", &template).await;
    assert_says(&shown, &template);
    let at_template = format!("/api/notification-templates/{}", id(&shown));
    assert_eq!(data(&api, &at_template).await, shown);
    assert_eq!(
        data(&api, "/api/notification-templates").await,
        json!([shown])
    );
    let changed = api
        .send("PUT", &at_template, &json!({ "body": "Thanks" }))
        .await;
    assert_says(
        &changed.body["data"],
        &json!({ "body": "Thanks", "version": 2 }),
    );
    let own = api.get(&format!("/api/v1/templates/{}", id(&shown))).await;
    assert_says(
        &own.body,
        &json!({ "content": "Thanks", "subject": "Order {{order_id}}" }),
    );
    for (body, field) in [
        (json!({ "name": "x", "channel": "email" }), "body"),
        (
            json!({ "name": "x", "channel": "email", "body": "{{" }),
            "body",
        ),
        (
            json!({ "name": "x", "channel": "fax", "body": "x" }),
            "channel",
        ),
    ] {
        let refused = api.send("POST", "/api/notification-templates", &body).await;
        assert_eq!(refused.status, 422);
        assert!(refused.body["errors"][field].is_array(), "{}", refused.body);
    }
    for (at, what) in [
        (&at, "Event source"),
        (&at_template, "Notification template"),
    ] {
        let gone = api.ask("DELETE", at, "", "").await;
        assert_eq!(gone.status, 200);
        let message = format!("{what} deleted successfully.");
        assert_eq!(gone.body, json!({ "message": message }));
        assert_eq!(api.get(at).await.status, 404);
    }
}

#[tokio::test]
async fn a_rule_comes_back_as_it_was_said() {
    let api = Served::start().await;
    let source = api.source("order_created").await;
    let other_source = api.source("user_signup").await;
    let template = api.template("order").await;
    let rule = |more: Value| {
        let mut rule = json!({ "event_source_id": source, "notification_template_id": template,
            "channel": "email", "conditions": {}, "recipient_field": null, "recipient_email": null,
            "recipient_phone": null, "recipient_slack_webhook": null, "is_active": true });
        for (key, value) in more.as_object().unwrap() {
            rule[key] = value.clone();
        }
        rule
    };
    let rules = [
        rule(
            json!({ "recipient_field": "customer.e-mail", "recipient_email": "a@example.com",
            "recipient_phone": "+905551234567", "conditions": { "order.paid": true } }),
        ),
        rule(json!({ "recipient_field": "phone", "channel": "sms", "is_active": false })),
        rule(json!({ "channel": "slack",
            "recipient_slack_webhook": "https://hooks.slack.com/services/x" })),
        rule(json!({ "event_source_id": other_source })),
    ];
    let mut shown = Vec::new();
    for rule in &rules {
        let made = made(&api, "/api/notification-rules", rule).await;
        assert_says(&made, rule);
        let at = format!("/api/notification-rules/{}", id(&made));
        assert_eq!(data(&api, &at).await, made);
        shown.insert(0, made);
    }
    assert_eq!(data(&api, "/api/notification-rules").await, json!(shown));
    let [none, slack, sms, email] = &shown[..] else {
        panic!("{shown:?}")
    };
    for (query, expected) in [
        ("channel=email", json!([none, email])),
        ("is_active=0", json!([sms])),
        ("is_active=true&channel=slack", json!([slack])),
        (&format!("event_source_id={other_source}"), json!([none])),
        ("per_page=1&page=2", json!([slack])),
    ] {
        let listed = data(&api, &format!("/api/notification-rules?{query}")).await;
        assert_eq!(listed, expected, "{query}");
    }
    for query in ["channel=fax", "is_active=maybe", "event_source_id=7"] {
        let refused = api.get(&format!("/api/notification-rules?{query}")).await;
        assert_eq!(refused.status, 422, "{query}");
    }

    let at = format!("/api/notification-rules/{}", id(email));
    let change = json!({ "recipient_field": null, "recipient_email": "b@example.com" });
    let changed = api.send("PUT", &at, &change).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let mut expected = rules[0].clone();
    expected["recipient_field"] = json!(null);
    expected["recipient_email"] = json!("b@example.com");
    assert_says(&changed.body["data"], &expected);

    let event = json!({ "event": "order_created",
        "payload": { "id": 7, "phone": "+905551234567", "order": { "paid": true } } });
    let asked = api.send("POST", "/api/v1/rules/test", &event).await.body;
    let sent: Vec<(&str, &str)> = asked["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| {
            let sent = &rule["notification"];
            Some((sent["channel"].as_str()?, sent["recipient"].as_str()?))
        })
        .collect();
    assert_eq!(
        sent,
        [
            ("email", "b@example.com"),
            ("slack", "https://hooks.slack.com/services/x")
        ]
    );

    let gone = api.ask("DELETE", &at, "", "").await;
    assert_eq!(
        gone.body["message"],
        "Notification rule deleted successfully."
    );
    assert_eq!(api.get(&at).await.status, 404);
}

#[tokio::test]
async fn a_rule_with_faults_is_refused_with_all_of_them() {
    let api = Served::start().await;
    let nobody = "01890000-0000-7000-8000-000000000000";
    let rule = json!({ "event_source_id": nobody, "notification_template_id": "x",
        "channel": "fax", "conditions": 7, "recipient_field": 7, "recipient_email": "x@",
        "recipient_phone": "0555", "recipient_slack_webhook": "no one", "is_active": "maybe" });
    let refused = api.send("POST", "/api/notification-rules", &rule).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    for field in rule.as_object().unwrap().keys() {
        assert!(
            refused.body["errors"][field].is_array(),
            "{field}: {}",
            refused.body
        );
    }
    let refused = api
        .send("POST", "/api/notification-rules", &json!({}))
        .await;
    for field in ["event_source_id", "notification_template_id", "channel"] {
        let told = format!("The {field} field is required.");
        assert_eq!(refused.body["errors"][field][0], told);
    }
}

#[tokio::test]
async fn heralds_own_rules_are_shown_as_far_as_the_fields_go_and_lose_nothing() {
    let api = Served::start().await;
    let source = api.source("order_created").await;
    let template = json!({ "name": "t", "channel": "email", "content": "x" });
    let template = api.make("/api/v1/templates", template).await;
    for (recipient, field, email) in [
        ("{{ customer.email }}", json!("customer.email"), json!(null)),
        ("ops@example.com", json!(null), json!("ops@example.com")),
        ("{{ name }}@example.com", json!(null), json!(null)),
    ] {
        let rule = json!({ "name": recipient, "event": "order_created", "template_id": template,
            "recipient": recipient, "when": "payload.total > 5.0", "priority": "high" });
        let id = api.make("/api/v1/rules", rule.clone()).await;
        let at = format!("/api/notification-rules/{id}");
        assert_says(
            &data(&api, &at).await,
            &json!({ "event_source_id": source, "notification_template_id": template,
                "channel": "email", "recipient_field": field, "recipient_email": email,
                "recipient": recipient, "when": "payload.total > 5.0", "priority": "high" }),
        );
        let changed = api.send("PUT", &at, &json!({ "is_active": false })).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        let own = api.get(&format!("/api/v1/rules/{id}")).await.body;
        assert_says(&own, &rule);
        // And by Herald's own name again: then the seed's fields follow.
        let own = json!({ "recipient": "{{ other }}" });
        api.send("PATCH", &format!("/api/v1/rules/{id}"), &own)
            .await;
        assert_eq!(data(&api, &at).await["recipient_field"], "other");
    }
}

fn row(n: i64, status: Status, event: EventId) -> RowWrite {
    let at = 1_769_860_800_000 + n;
    let row = NotificationRow {
        identity: Identity {
            id: NotificationId::derived(at, &[&n.to_be_bytes()]),
            recipient: "me".to_owned(),
            channel: Channel::Log,
            priority: Priority::Normal,
            batch_id: None,
            event_id: (n % 2 == 0).then_some(event),
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: None,
            correlation_id: None,
            traceparent: None,
            created_at: at,
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            source: None,
        },
        message: None,
        status,
        attempts: 2,
        updated_at: at,
        sent_at: (status == Status::Sent).then_some(at),
        cancelled_at: None,
        provider_message_id: None,
        last_error: (status == Status::Failed).then(|| Failure {
            kind: "permanent".to_owned(),
            code: "http_400".to_owned(),
            message: "HTTP 400".to_owned(),
        }),
        delivery_status: None,
    };
    RowWrite {
        row,
        is_new: true,
        writes_message: true,
        calls: Vec::new(),
    }
}

#[tokio::test]
async fn logs_are_the_notifications_in_the_first_seeds_words() {
    let api = Served::start().await;
    let source = api.source("order_created").await;
    let store = &api.engines.store;
    let event = EventId::random();
    let happened = Event {
        id: None,
        event: "order_created".to_owned(),
        payload: r#"{"n":1}"#.to_owned(),
        occurred_at: 7,
        catalog_version: 0,
        correlation_id: None,
        traceparent: None,
    };
    store.write_events(&[(event, happened)]).await.unwrap();
    let rows: Vec<RowWrite> = (0..70)
        .map(|n| row(n, Status::ALL[n as usize % Status::ALL.len()], event))
        .collect();
    store.write_notifications(&rows, 1).await.unwrap();

    for (query, expected) in [
        ("status=pending", 40),
        ("status=sent", 10),
        ("status=failed", 10),
        ("status=retrying", 10),
        ("", 70),
    ] {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/notification-logs?per_page=7&{query}{cursor}");
            let page = api.get(&path).await;
            assert_eq!(page.status, 200, "{}", page.body);
            for log in page.body["data"].as_array().unwrap() {
                let word = query.strip_prefix("status=").unwrap_or_default();
                let says = log["status"].as_str().unwrap();
                assert!(
                    word.is_empty() || says == word || word == "retrying",
                    "{log}"
                );
                ids.push(id(log).to_owned());
            }
            match page.body["meta"]["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(ids.len(), expected, "{query}");
        assert!(ids.is_sorted_by(|a, b| a > b), "{query}");
        let path = format!("/api/notification-logs?per_page=7&page=2&{query}");
        let second = data(&api, &path).await;
        let second: Vec<&str> = second.as_array().unwrap().iter().map(id).collect();
        assert_eq!(second, ids[7..14.min(ids.len())], "{query}");
    }
    let failed = rows
        .iter()
        .find(|one| one.row.status == Status::Failed && one.row.identity.event_id.is_some());
    let failed = failed.unwrap().row.id();
    let log = data(&api, &format!("/api/notification-logs/{failed}")).await;
    assert_says(
        &log,
        &json!({ "event_source_id": source, "event_id": event.to_string(), "channel": "log",
            "payload": { "n": 1 }, "recipient": "me", "status": "failed",
            "error_message": "HTTP 400", "attempts": 2, "sent_at": null }),
    );
    for path in ["?status=lost", "?cursor=x", "?per_page=0"] {
        let refused = api.get(&format!("/api/notification-logs{path}")).await;
        assert_eq!(refused.status, 422, "{path}");
    }
}
