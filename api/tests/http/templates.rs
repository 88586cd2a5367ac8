//! Templates: previews and versions.

use serde_json::{Value, json};

use crate::served::Served;

const TEMPLATES: &str = "/api/v1/templates";

async fn preview(api: &Served, body: Value) -> Value {
    let answer = api.send("POST", "/api/v1/templates/preview", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[tokio::test]
async fn a_preview_is_what_would_be_sent() {
    let api = Served::start().await;
    let template = json!({ "name": "welcome", "channel": "email", "content": "Hello {{name}}",
        "subject": "For {{name}}", "html": "<p>{{name}}</p>",
        "default_variables": { "name": "Guest" } });
    let id = api.make(TEMPLATES, template).await;

    let shown = preview(
        &api,
        json!({ "template_id": id, "variables": { "name": "<Ada>" } }),
    )
    .await;
    assert_eq!(
        shown,
        json!({ "template_id": id, "version": 1, "content": "Hello <Ada>", "subject": "For <Ada>",
            "html": "<p>&lt;Ada&gt;</p>", "variables": { "name": "<Ada>" } })
    );
    let shown = preview(&api, json!({ "template_id": id })).await;
    assert_eq!(shown["content"], "Hello Guest");

    // What is being written goes before what is kept, and needs nothing kept.
    let edited = json!({ "template_id": id, "content": "Bye {{name}}" });
    let shown = preview(&api, edited).await;
    assert_eq!(
        (&shown["content"], &shown["subject"]),
        (&json!("Bye Guest"), &json!("For Guest"))
    );
    let unsaved = json!({ "content": "Bye {{name}}", "variables": { "name": "Ada" } });
    let shown = preview(&api, unsaved).await;
    assert_eq!(
        (&shown["content"], &shown["template_id"]),
        (&json!("Bye Ada"), &json!(null))
    );

    let unknown = "01890000-0000-7000-8000-000000000000";
    for (body, field, text) in [
        (
            json!({}),
            "content",
            "Either content or template_id is required.",
        ),
        (
            json!({ "template_id": unknown }),
            "template_id",
            "The selected template_id is invalid.",
        ),
        (
            json!({ "template_id": "x" }),
            "template_id",
            "must be a valid UUID.",
        ),
        (
            json!({ "template_id": id, "version": 2 }),
            "template_id",
            "is invalid.",
        ),
        (
            json!({ "template_id": id, "version": "one" }),
            "version",
            "must be an integer above 0.",
        ),
        (json!({ "content": "{{ a" }), "content", "line 1, column 1"),
        (
            json!({ "content": "{{ a.b }}", "variables": { "a": {} } }),
            "variables.a.b",
            "The variables.a.b field is required by the template.",
        ),
        (
            json!({ "content": "{{ a }}", "variables": { "a": [] } }),
            "variables",
            "is a list",
        ),
        (
            json!({ "content": "x".repeat(1_601), "channel": "sms" }),
            "content",
            "Content exceeds 1600 characters for sms.",
        ),
    ] {
        let refused = api.send("POST", "/api/v1/templates/preview", &body).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
        let told = refused.body["errors"][field][0]
            .as_str()
            .unwrap_or_default();
        assert!(told.contains(text), "{body}: {}", refused.body);
    }
    assert!(api.engines.producer.batches().is_empty());
}

#[tokio::test]
async fn every_version_of_a_template_stays_readable() {
    let api = Served::start().await;
    let id = api.template("order").await;
    let at = format!("{TEMPLATES}/{id}");
    for (method, content) in [("PATCH", "two {{id}}"), ("PUT", "three {{id}}")] {
        let changed = api.send(method, &at, &json!({ "content": content })).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
    let listed = async || {
        let list = api.get(&format!("{at}/versions")).await;
        assert_eq!(list.status, 200, "{}", list.body);
        assert_eq!(list.body["meta"]["total"], 3);
        let data = list.body["data"].as_array().unwrap().clone();
        let content = |one: Value| (one["version"].clone(), one["content"].clone());
        data.into_iter().map(content).collect::<Vec<_>>()
    };
    let expected = [(3, "three {{id}}"), (2, "two {{id}}"), (1, "Order {{id}}")]
        .map(|(version, content)| (json!(version), json!(content)));
    assert_eq!(listed().await, expected);
    let old = json!({ "template_id": id, "version": 1, "variables": { "id": 7 } });
    assert_eq!(preview(&api, old.clone()).await["content"], "Order 7");

    assert_eq!(api.ask("DELETE", &at, "", "").await.status, 200);
    assert_eq!(api.get(&at).await.status, 404);
    assert_eq!(listed().await, expected);
    let second = api.get(&format!("{at}/versions/2")).await;
    assert_eq!(
        (second.status, &second.body["content"]),
        (200, &json!("two {{id}}"))
    );
    assert_eq!(preview(&api, old).await["version"], 1);
    for none in ["versions/4", "versions/0", "versions/x"] {
        assert_eq!(api.get(&format!("{at}/{none}")).await.status, 404, "{none}");
    }
    let unknown = "01890000-0000-7000-8000-000000000000/versions";
    assert_eq!(api.get(&format!("{TEMPLATES}/{unknown}")).await.status, 404);
}
