//! Events: one and many, sent again, checked against their schema, listed.

use futures_util::future::join_all;
use herald_schemas::{
    codec::{Codec, Framing},
    ids::EventId,
    records::Event,
};
use herald_store::Store;
use serde_json::{Value, json};

use crate::served::Served;

const EVENTS: &str = "/api/v1/events";

/// The events in the log, in the order in which they were written, with their keys.
fn written(api: &Served) -> Vec<(String, Event)> {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let batches = api.engines.producer.batches();
    let events = batches.iter().flatten();
    events
        .filter(|record| &*record.topic == "herald.events")
        .map(|record| {
            let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            (key, codec.decode(&record.value).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn an_event_carries_its_key_and_its_time() {
    let api = Served::start().await;
    api.source("order_created").await;
    let event = json!({ "event": "order_created", "payload": { "n": 1 }, "key": "customer-7",
        "occurred_at": "2026-01-31T14:00:00+02:00" });
    let answer = api.send("POST", EVENTS, &event).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.body["duplicate"], false);
    let plain = json!({ "event": "order_created", "payload": {} });
    let plain = api.send("POST", EVENTS, &plain).await.body;
    let written = written(&api);
    assert_eq!(written[0].0, "customer-7");
    assert_eq!(written[0].1.id.as_deref(), answer.body["id"].as_str());
    assert_eq!(written[0].1.occurred_at, 1_769_860_800_000);
    assert_eq!(written[1].0, plain["id"].as_str().unwrap());
}

#[tokio::test]
async fn an_event_that_is_sent_again_is_the_same_and_is_not_written_again() {
    let api = Served::start().await;
    api.source("order_created").await;
    let other = api.beside().await;
    let event = |id: &str, n: usize| {
        json!({ "event": "order_created", "payload": { "n": n },
        "id": id })
    };
    let first = api.send("POST", EVENTS, &event("order-7", 1)).await;
    assert_eq!(first.status, 202, "{}", first.body);
    for (api, path) in [(&api, EVENTS), (&other, EVENTS), (&other, "/api/events")] {
        let again = api.send("POST", path, &event("order-7", 2)).await;
        assert_eq!(again.status, 202, "{}", again.body);
        assert_eq!(again.body["id"], first.body["id"]);
        assert_eq!(again.body["duplicate"], true);
        assert_eq!(again.body["message"], "Event triggered successfully.");
    }
    let batch =
        json!({ "events": [event("order-8", 1), event("order-7", 3), event("order-8", 2)] });
    let batch = api.send("POST", EVENTS, &batch).await.body;
    assert_eq!(
        (&batch["accepted"], &batch["duplicates"]),
        (&json!(1), &json!(2))
    );
    let ids: Vec<&Value> = (0..3).map(|n| &batch["events"][n]["id"]).collect();
    assert_eq!((ids[1], ids[2]), (&first.body["id"], ids[0]));

    let written = written(&api);
    let payloads: Vec<&str> = written.iter().map(|(_, event)| &*event.payload).collect();
    assert_eq!(payloads, [r#"{"n":1}"#, r#"{"n":1}"#]);
}

#[tokio::test]
async fn an_event_that_is_sent_many_times_at_once_is_one_event() {
    let api = Served::start().await;
    api.source("order_created").await;
    let other = api.beside().await;
    let event = json!({ "event": "order_created", "payload": {}, "id": "order-7" });
    let sends = (0..20).map(|n| {
        let api = if n % 2 == 0 { &api } else { &other };
        api.send("POST", EVENTS, &event)
    });
    let answers = join_all(sends).await;
    let new = answers
        .iter()
        .filter(|answer| answer.body["duplicate"] == false);
    assert_eq!(new.count(), 1);
    for answer in &answers {
        assert_eq!(
            (answer.status, &answer.body["id"]),
            (202, &answers[0].body["id"])
        );
    }
    // Until the first is known to be in the log others may write it too: the same record.
    let written = written(&api);
    assert!(written.iter().all(|(_, event)| {
        event.id.as_deref() == answers[0].body["id"].as_str()
            && event.occurred_at == written[0].1.occurred_at
    }));
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let api = Served::start().await;
    api.source("order_created").await;
    let good = json!({ "event": "order_created", "payload": {} });
    let batch = json!({ "events": [
        good,
        { "event": "unheard_of", "payload": {} },
        { "event": "order_created" },
        { "event": "order_created", "payload": 7, "id": "x".repeat(129), "key": 1,
            "occurred_at": "tomorrow" },
        "order_created",
    ]});
    let refused = api.send("POST", EVENTS, &batch).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let errors = refused.body["errors"].as_object().unwrap();
    let fields: Vec<&str> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "events.1.event",
            "events.2.payload",
            "events.3.id",
            "events.3.key",
            "events.3.occurred_at",
            "events.3.payload",
            "events.4",
        ]
    );
    for (events, text) in [
        (json!([]), "The events field is required."),
        (json!(null), "The events field is required."),
        (json!({}), "The events field must be an array."),
        (
            json!(vec![good.clone(); 1_001]),
            "must not have more than 1000 items.",
        ),
    ] {
        let refused = api.send("POST", EVENTS, &json!({ "events": events })).await;
        assert_eq!(refused.status, 422);
        let told = refused.body["errors"]["events"][0].as_str().unwrap();
        assert!(told.ends_with(text), "{told}");
    }
    let large = json!({ "event": "order_created", "payload": { "text": "x".repeat(1 << 20) } });
    let refused = api
        .send("POST", EVENTS, &json!({ "events": [good, large] }))
        .await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.body["errors"]["events.1.payload"].is_array(),
        "{}",
        refused.body
    );
    assert!(written(&api).is_empty());

    let all = json!({ "events": vec![good; 1_000] });
    let accepted = api.send("POST", EVENTS, &all).await;
    assert_eq!(
        (accepted.status, &accepted.body["accepted"]),
        (202, &json!(1_000))
    );
    assert_eq!(accepted.body["message"], "Events triggered successfully.");
    assert_eq!(written(&api).len(), 1_000);
}

#[tokio::test]
async fn a_payload_is_held_against_the_schema_of_its_source() {
    let api = Served::start().await;
    let schema = json!({ "required": ["order_id"], "properties": {
        "order_id": { "type": "integer" }, "lines": { "items": { "type": "object" } } } });
    let source = json!({ "name": "order_created", "schema": schema });
    let source = api.make("/api/v1/event-sources", source).await;
    let bad = json!({ "event": "order_created", "payload": { "lines": [{}, 1] } });
    let refused = api.send("POST", "/api/events", &bad).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(
        refused.body["errors"],
        json!({
            "payload.order_id":
                ["The payload.order_id field is against the schema: \"order_id\" is a required property."],
            "payload.lines.1":
                ["The payload.lines.1 field is against the schema: 1 is not of type \"object\"."],
        })
    );
    let batch = json!({ "events": [{ "event": "order_created", "payload": [] }, bad] });
    let refused = api.send("POST", EVENTS, &batch).await;
    let errors = refused.body["errors"].as_object().unwrap();
    let fields: Vec<&str> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "events.0.payload.order_id",
            "events.1.payload.lines.1",
            "events.1.payload.order_id"
        ]
    );
    let all_wrong = json!({ "event": "order_created",
        "payload": { "order_id": 1, "lines": vec![1; 10_000] } });
    let refused = api
        .send("POST", EVENTS, &json!({ "events": vec![all_wrong; 60] }))
        .await;
    assert_eq!(refused.status, 422);
    let told = refused.body["errors"].as_object().unwrap().len();
    assert!(told <= 1_000, "{told}");

    let good = json!({ "event": "order_created", "payload": { "order_id": 1 } });
    assert_eq!(api.send("POST", "/api/events", &good).await.status, 202);
    let at = format!("/api/v1/event-sources/{source}");
    let off = api.send("PATCH", &at, &json!({ "schema": null })).await;
    assert_eq!((off.status, &off.body["schema"]), (200, &json!(null)));
    assert_eq!(api.send("POST", "/api/events", &bad).await.status, 202);
}

#[tokio::test]
async fn a_schema_that_is_none_or_reaches_outside_is_refused() {
    let api = Served::start().await;
    for (schema, text) in [
        (json!({ "type": "objekt" }), "type: "),
        (
            json!({ "$ref": "https://127.0.0.1:1/x" }),
            "no JSON pointer",
        ),
        (json!({ "$ref": "#" }), "refers to itself"),
        (json!({ "pattern": "(?=a)" }), "regex"),
        (json!("type"), "must be an object"),
    ] {
        let source = json!({ "name": "s", "schema": schema });
        let refused = api.send("POST", "/api/v1/event-sources", &source).await;
        assert_eq!(refused.status, 422, "{schema}");
        let told = refused.body["errors"]["schema"][0].as_str().unwrap();
        assert!(told.contains(text), "{told}");
    }
}

#[tokio::test]
async fn events_are_listed_newest_first_by_page_and_by_cursor() {
    let api = Served::start().await;
    let start = 1_769_860_800_000;
    let event = |n: i64| Event {
        id: None,
        event: format!("kind_{}", n % 2),
        payload: "{}".to_owned(),
        occurred_at: start + n,
        catalog_version: 0,
        correlation_id: Some(format!("c{}", n % 3)),
        traceparent: None,
    };
    let hour = 3_600_000;
    let rows: Vec<(EventId, Event)> = (0..48)
        .map(|n| (EventId::first_at(start + n * hour), event(n)))
        .collect();
    api.engines.store.write_events(&rows).await.unwrap();
    let times = |body: &Value| -> Vec<String> {
        let data = body["data"].as_array().unwrap();
        let time = |one: &Value| one["accepted_at"].as_str().unwrap()[..13].to_owned();
        data.iter().map(time).collect()
    };

    let first = api.get("/api/v1/events?per_page=2").await.body;
    assert_eq!(times(&first), ["2026-02-02T11", "2026-02-02T10"]);
    let meta = &first["meta"];
    assert_eq!(
        (&meta["total"], &meta["current_page"]),
        (&json!(48), &json!(1))
    );
    let cursor = meta["next_cursor"].as_str().unwrap();
    let second = api
        .get(&format!("/api/v1/events?per_page=2&cursor={cursor}"))
        .await
        .body;
    let by_page = api.get("/api/v1/events?per_page=2&page=2").await.body;
    assert_eq!(times(&second), ["2026-02-02T09", "2026-02-02T08"]);
    assert_eq!(second["data"], by_page["data"]);

    for (query, total) in [
        ("event=kind_1", 24),
        ("event=kind_1&correlation_id=c0", 8),
        ("from=2026-02-01", 36),
        ("from=2026-02-01&to=2026-02-01", 24),
        ("to=2026-01-31T12:00:00Z", 1),
        ("event=unheard_of", 0),
    ] {
        let list = api.get(&format!("/api/v1/events?{query}")).await.body;
        assert_eq!(list["meta"]["total"], total, "{query}");
        assert_eq!(list["meta"]["total_at_least"], false);
    }
    for query in [
        "per_page=101",
        "page=0",
        "page=101&per_page=100",
        "cursor=x",
        "from=x",
        "to=y",
    ] {
        let refused = api.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!(refused.status, 422, "{query}");
    }
}
