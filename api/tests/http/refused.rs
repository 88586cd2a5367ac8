//! What is refused: clearly, in JSON, and with nothing done.

use serde_json::{Value, json};

use crate::{NOTIFICATIONS, notification, served::Served};

#[tokio::test]
async fn what_is_no_good_request_is_told_so_in_json() {
    let api = Served::start().await;
    let path = NOTIFICATIONS;
    let head = "host: h\r\nconnection: close\r\n";
    let key = "x-api-key: good-key\r\n";
    let json = "content-type: application/json\r\n";
    let large = format!("\"{}\"", "x".repeat(10 << 20));
    let deep = "[".repeat(1_000);
    for (status, message, request) in [
        (
            401,
            "Unauthorized",
            format!("GET {path} HTTP/1.1\r\n{head}\r\n"),
        ),
        (
            401,
            "Unauthorized",
            format!("GET {path} HTTP/1.1\r\n{head}x-api-key: bad\r\n\r\n"),
        ),
        (
            404,
            "could not be found",
            format!("GET /api/v1/none HTTP/1.1\r\n{head}{key}\r\n"),
        ),
        (
            404,
            "could not be found",
            format!("GET /none HTTP/1.1\r\n{head}\r\n"),
        ),
        (
            404,
            "Notification not found.",
            format!("GET {path}/x HTTP/1.1\r\n{head}{key}\r\n"),
        ),
        (
            405,
            "DELETE method",
            format!("DELETE {path} HTTP/1.1\r\n{head}{key}\r\n"),
        ),
        (
            415,
            "must be JSON",
            format!("POST {path} HTTP/1.1\r\n{head}{key}content-length: 2\r\n\r\n{{}}"),
        ),
        (
            400,
            "line 1 column 18",
            format!(
                "POST {path} HTTP/1.1\r\n{head}{key}{json}content-length: 18\r\n\r\n\
                 {{\"notifications\":["
            ),
        ),
        (
            400,
            "recursion limit",
            format!(
                "POST {path} HTTP/1.1\r\n{head}{key}{json}content-length: {}\r\n\r\n{deep}",
                deep.len()
            ),
        ),
        (
            413,
            "larger than 4194304 bytes",
            format!(
                "POST {path} HTTP/1.1\r\n{head}{key}{json}content-length: {}\r\n\r\n{large}",
                large.len()
            ),
        ),
        (
            413,
            "larger than 4194304 bytes",
            format!(
                "POST {path} HTTP/1.1\r\n{head}{key}{json}transfer-encoding: chunked\r\n\r\n\
                 {:x}\r\n{large}\r\n0\r\n\r\n",
                large.len()
            ),
        ),
    ] {
        let line: String = request.lines().take(1).collect();
        let answer = api.raw(request.as_bytes()).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        let told = answer.body["message"].as_str().unwrap_or_default();
        assert!(told.contains(message), "{line}: {told}");
        if status == 401 {
            assert_eq!(answer.body, json!({ "message": "Unauthorized" }));
        }
    }
}

/// Everything that is wrong with one field, and what is said of it.
#[tokio::test]
async fn a_fault_is_told_with_its_field_and_nothing_is_done() {
    let api = Served::start().await;
    let needs_id = api.template("needs id").await;
    let blank = json!({ "name": "blank", "channel": "log", "content": "{{id}}" });
    let blank = api.make("/api/v1/templates", blank).await;
    let one = |item: Value| json!({ "notifications": [notification(), item] });
    let without = |field: &str, value: Value| {
        let mut item = notification();
        item[field] = value;
        one(item)
    };
    let templated = |template: &str, variables: Value| {
        one(
            json!({ "recipient": "me", "channel": "log", "template_id": template,
            "variables": variables }),
        )
    };
    let event = |event: &str, payload: Value| json!({ "event": event, "payload": payload });
    let content = "Either content or template_id is required.";
    for (path, body, field, text) in [
        (
            NOTIFICATIONS,
            without("content", json!("")),
            "notifications.1.content",
            content,
        ),
        (
            NOTIFICATIONS,
            without("content", json!(" \n ")),
            "notifications.1.content",
            content,
        ),
        (
            NOTIFICATIONS,
            without("content", json!(null)),
            "notifications.1.content",
            content,
        ),
        (
            NOTIFICATIONS,
            without("channel", json!("fax")),
            "notifications.1.channel",
            "The selected channel is invalid.",
        ),
        (
            NOTIFICATIONS,
            one(json!(7)),
            "notifications.1",
            "The notifications.1 must be an object.",
        ),
        (
            NOTIFICATIONS,
            templated(&needs_id, json!({})),
            "notifications.1.variables.id",
            "The variables.id field is required by the template.",
        ),
        (
            NOTIFICATIONS,
            templated(&blank, json!({ "id": " " })),
            "notifications.1.variables",
            "The template makes no text of these variables.",
        ),
        (
            NOTIFICATIONS,
            json!({ "notifications": vec![json!({}); 1_001] }),
            "notifications",
            "The notifications field must not have more than 1000 items.",
        ),
        (
            NOTIFICATIONS,
            json!({}),
            "notifications",
            "The notifications field is required.",
        ),
        (
            "/api/events",
            event("unheard_of", json!({})),
            "event",
            "The selected event is invalid.",
        ),
        (
            "/api/events",
            json!(7),
            "body",
            "The body must be an object.",
        ),
    ] {
        let answer = api.send("POST", path, &body).await;
        assert_eq!(answer.status, 422, "{field}: {}", answer.body);
        let errors = json!({ field: [text] });
        assert_eq!(answer.body, json!({ "message": text, "errors": errors }));
    }
    assert!(api.engines.producer.batches().is_empty());
}

#[tokio::test]
async fn all_faults_of_a_request_are_told_at_once() {
    let api = Served::start().await;
    let body = json!({ "notifications": [notification(), { "channel": "fax", "content": "" }] });
    let answer = api.send("POST", NOTIFICATIONS, &body).await;
    assert_eq!(answer.status, 422);
    let errors = answer.body["errors"].as_object().unwrap();
    let fields: Vec<&str> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "notifications.1.channel",
            "notifications.1.content",
            "notifications.1.recipient"
        ]
    );
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.ends_with("(and 2 more errors)"), "{message}");
}

#[tokio::test]
async fn one_that_is_too_large_for_its_topic_takes_the_whole_request_with_it() {
    let api = Served::start().await;
    api.source("order_created").await;
    let of_size = |bytes: usize| {
        let mut item = notification();
        item["metadata"] = json!({ "x": "x".repeat(bytes) });
        json!({ "notifications": [notification(), item] })
    };
    let answer = api.send("POST", NOTIFICATIONS, &of_size(2 << 20)).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(
        answer.body["errors"]["notifications.1"][0],
        "The notification exceeds 2097152 bytes."
    );
    let event = json!({ "event": "order_created", "payload": { "x": "x".repeat(1 << 20) } });
    let answer = api.send("POST", "/api/events", &event).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(
        answer.body["errors"]["payload"][0],
        "The event exceeds 1048576 bytes."
    );

    // The largest there may be, and with it all that is written of it.
    let largest = of_size((2 << 20) - 1_024);
    let answer = api.send("POST", NOTIFICATIONS, &largest).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

#[tokio::test]
async fn what_does_not_compile_is_refused_with_its_place() {
    let api = Served::start().await;
    for (field, content) in [
        ("content", "Hello\n  {{name"),
        ("html", "<p>\n  {{ if x }}"),
    ] {
        let mut bad = json!({ "name": "t", "channel": "log", "content": "x" });
        bad[field] = json!(content);
        let template = api.send("POST", "/api/v1/templates", &bad).await;
        assert_eq!(template.status, 422);
        let told = template.body["errors"][field][0].as_str().unwrap();
        assert!(told.contains("line 2, column 3"), "{told}");
    }

    let bad = json!({ "name": "r", "event": "none", "recipient": "{{x", "conditions": [1],
        "template_id": "00000000-0000-7000-8000-000000000000", "when": "payload.(" });
    let rule = api.send("POST", "/api/v1/rules", &bad).await;
    let errors = rule.body["errors"].as_object().unwrap();
    let fields: Vec<&str> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        ["conditions", "event", "recipient", "template_id", "when"]
    );
}
