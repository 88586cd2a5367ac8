//! A notification's way to the provider: what is sent, what is tried again, what is given up.

use herald_e2e::{Engine, Provider, Reply, SOON, System};
use serde_json::json;

herald_e2e::on_both_engines!(
    a_notification_reaches_the_provider_and_its_status_the_client,
    the_longest_keys_that_are_accepted_are_delivered,
    what_fails_for_now_is_tried_again,
    what_fails_for_good_becomes_a_dead_letter,
    what_fails_too_often_is_given_up,
    the_fallback_is_asked_in_the_same_attempt,
    a_template_is_rendered_when_it_is_accepted,
    a_channel_has_a_provider_and_a_fallback_of_its_own,
);

/// Rungs short enough to be waited for.
const LADDER: (&str, &str) = ("HERALD_RETRY_DELAYS", "100ms,200ms");

async fn a_notification_reaches_the_provider_and_its_status_the_client(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let ids = client
        .notify(json!([{
            "recipient": "+905551234567", "channel": "sms", "content": "Flash sale!",
            "priority": "high", "subject": "Sale", "metadata": { "campaign": 7 },
            "correlation_id": "demo-123",
        }]))
        .await;
    let received = provider.expect(1, SOON).await.remove(0);
    assert_eq!(received.text("to"), "+905551234567");
    assert_eq!(received.text("channel"), "sms");
    assert_eq!(received.text("content"), "Flash sale!");
    assert_eq!(received.text("id"), ids[0]);
    assert_eq!(received.text("idempotency_key"), ids[0]);
    assert_eq!(received.text("subject"), "Sale");
    assert_eq!(received.text("priority"), "high");
    assert_eq!(received.text("correlation_id"), "demo-123");
    assert_eq!(received.body["attempt"], 1);
    assert_eq!(received.body["metadata"]["campaign"], 7);
    assert_eq!(received.headers["x-idempotency-key"], ids[0]);
    assert_eq!(received.headers["x-correlation-id"], "demo-123");
    assert_eq!(
        received.headers["traceparent"],
        received.text("traceparent")
    );

    let shown = client.with_status(&ids[0], "sent").await;
    assert_eq!(shown["provider_message_id"], "message-1");
    assert_eq!(shown["attempts"], 1);
    assert_eq!(shown["attempt_log"].as_array().unwrap().len(), 1);
    assert_eq!(client.count(Some("sent")).await, 1);
    assert_eq!(client.count(None).await, 1);
    system.stop();
}

/// Characters are what the API counts, and each of these is four bytes.
async fn the_longest_keys_that_are_accepted_are_delivered(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let long = "😀".repeat(128);
    let ids = client
        .notify(json!([{
            "recipient": "me@example.com", "channel": "email", "content": "x",
            "idempotency_key": long, "correlation_id": long,
        }]))
        .await;
    let received = provider.expect(1, SOON).await.remove(0);
    assert_eq!(received.text("idempotency_key"), long);
    assert_eq!(received.text("correlation_id"), long);
    client.with_status(&ids[0], "sent").await;
    system.stop();
}

async fn what_fails_for_now_is_tried_again(engine: Engine) {
    let provider = Provider::scripted(|request| match request.body["attempt"].as_i64() {
        Some(1) => Reply::status(503),
        Some(2) => Reply::reset(),
        _ => Reply::ok(),
    })
    .await;
    let mut system = System::start(&engine, &provider, &[LADDER]);
    let client = system.client();
    let item = json!([{ "recipient": "a@example.com", "channel": "email", "content": "x" }]);
    let ids = client.notify(item).await;
    let shown = client.with_status(&ids[0], "sent").await;
    assert_eq!(shown["attempts"], 3);
    let log = shown["attempt_log"].as_array().unwrap();
    let codes: Vec<&str> = log
        .iter()
        .map(|call| call["error_code"].as_str().unwrap_or("none"))
        .collect();
    assert_eq!(codes, ["http_503", "connection_error", "none"]);
    let requests = provider.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests
            .iter()
            .all(|request| request.text("idempotency_key") == ids[0])
    );
    system.stop();
}

async fn what_fails_for_good_becomes_a_dead_letter(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::status(400)).await;
    let mut system = System::start(&engine, &provider, &[LADDER]);
    let client = system.client();
    let item = json!([{ "recipient": "a@example.com", "channel": "email", "content": "x" }]);
    let ids = client.notify(item).await;
    let shown = client.with_status(&ids[0], "failed").await;
    assert_eq!(
        (&shown["attempts"], &shown["error_code"]),
        (&json!(1), &json!("http_400"))
    );
    let letters = client.dead_letters(1).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["notification_id"], ids[0].as_str());
    assert_eq!(letters[0]["error_type"], "permanent");
    assert_eq!(provider.requests().len(), 1);
    system.stop();
}

async fn what_fails_too_often_is_given_up(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::status(503)).await;
    let mut system = System::start(&engine, &provider, &[LADDER]);
    let client = system.client();
    let item = json!([{ "recipient": "a@example.com", "channel": "email", "content": "x" }]);
    let ids = client.notify(item).await;
    let shown = client.with_status(&ids[0], "failed").await;
    assert_eq!(shown["attempts"], 3, "one more than the delays");
    assert_eq!(client.dead_letters(1).await[0]["attempts"], 3);
    assert_eq!(provider.requests().len(), 3);
    system.stop();
}

async fn the_fallback_is_asked_in_the_same_attempt(engine: Engine) {
    let provider = Provider::scripted(|_| Reply::status(500)).await;
    let fallback = Provider::start().await;
    let settings = [("NOTIFICATION_PROVIDER_FALLBACK_WEBHOOK_URL", fallback.url())];
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    let item = json!([{ "recipient": "token", "channel": "push", "content": "x" }]);
    let ids = client.notify(item).await;
    let shown = client.with_status(&ids[0], "sent").await;
    assert_eq!(shown["attempts"], 1);
    let log = shown["attempt_log"].as_array().unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(
        (&log[0]["error_code"], &log[1]["error_code"]),
        (&json!("http_500"), &json!(null))
    );
    assert_eq!(
        (provider.requests().len(), fallback.requests().len()),
        (1, 1)
    );
    system.stop();
}

async fn a_template_is_rendered_when_it_is_accepted(engine: Engine) {
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let client = system.client();
    let template = json!({
        "name": "welcome", "channel": "sms", "content": "Hello {{name}}",
        "default_variables": { "name": "Guest" },
    });
    let id = client.template(&template).await;
    let body = json!({ "notifications": [
        { "recipient": "+905551234567", "channel": "sms", "template_id": id,
          "variables": { "name": "Ada" } },
        { "recipient": "+905551234567", "channel": "sms", "template_id": id },
    ]});
    let answer = client
        .post("/api/v1/notifications", &body)
        .await
        .expect(201);
    assert_eq!(answer["created"], 2);
    assert!(answer["batch_id"].is_string());
    assert_eq!(answer["notifications"][0]["content"], "Hello Ada");
    let requests = provider.expect(2, SOON).await;
    let texts: Vec<&str> = requests
        .iter()
        .map(|request| request.text("content"))
        .collect();
    // One recipient's notifications arrive in their order.
    assert_eq!(texts, ["Hello Ada", "Hello Guest"]);
    system.stop();
}

/// Slack, by the name that the first seed had for its webhook.
async fn a_channel_has_a_provider_and_a_fallback_of_its_own(engine: Engine) {
    let provider = Provider::start().await;
    let slack = Provider::scripted(|message| match message.text("text") {
        "to Slack" => Reply::ok(),
        _ => Reply::status(500),
    })
    .await;
    let settings = [
        ("SLACK_DEFAULT_WEBHOOK", slack.url()),
        ("HERALD_CHANNELS_SLACK_FALLBACK", "provider"),
    ];
    let mut system = System::start(&engine, &provider, &settings);
    let client = system.client();
    let to = |channel: &str, recipient: &str, content: &str| json!({ "channel": channel, "recipient": recipient, "content": content });
    let ids = client
        .notify(json!([
            to("slack", "#general", "to Slack"),
            to("slack", "#random", "past Slack"),
            to("sms", "+905551234567", "a text message"),
        ]))
        .await;
    let mut names = Vec::new();
    for id in &ids {
        let shown = client.with_status(id, "sent").await;
        let calls = shown["attempt_log"].as_array().unwrap().clone();
        let of_call = |call: &serde_json::Value| call["provider"].as_str().unwrap().to_owned();
        names.push(calls.iter().map(of_call).collect::<Vec<_>>());
    }
    assert_eq!(names[0], ["slack_webhook"]);
    assert_eq!(names[1], ["slack_webhook", "primary"]);
    assert_eq!(names[2], ["primary"]);
    assert_eq!(slack.requests().len(), 2);
    let mut received: Vec<_> = provider
        .requests()
        .iter()
        .map(|request| request.text("content").to_owned())
        .collect();
    received.sort();
    assert_eq!(received, ["a text message", "past Slack"]);
    system.stop();
}
