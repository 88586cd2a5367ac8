//! Producers in another language, which write to Kafka themselves: Python, with the Avro libraries
//! that its users have.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use herald_e2e::{Engine, Provider, SOON, Servers, System, python, python_script, workspace};
use serde_json::{Value, json};

herald_e2e::on_real_servers!(
    what_a_python_producer_sends_arrives_and_garbage_between_it_stops_nothing,
    without_a_registry_single_object_avro_is_read_and_confluents_is_not,
);

const DEVICES: usize = 4;
const ROUNDS: usize = 15;
/// A schema id that no registry gets to.
const UNKNOWN_ID: u32 = 2_000_000_000;

const JSON_SCHEMA: &str =
    r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}"#;

async fn what_a_python_producer_sends_arrives_and_garbage_between_it_stops_nothing(engine: Engine) {
    let Engine::Real(servers) = &engine else {
        return;
    };
    let Some(confluent) = producer("Python producer", servers, true) else {
        return;
    };
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[]);
    let topics = Topics::new(&system);
    let client = system.client();
    make_rule(&system).await;

    let garbage = garbage(&topics, servers).await;
    let mut items: Vec<Value> = Vec::new();
    for round in 0..ROUNDS {
        items.extend((0..DEVICES).flat_map(|device| topics.both(device, round)));
        items.extend(
            garbage
                .iter()
                .skip(round)
                .step_by(ROUNDS)
                .map(|one| one.item.clone()),
        );
    }
    let positions = produce(confluent, &items);
    let expected = DEVICES * ROUNDS * 2;
    provider.expect_notifications(expected, SOON).await;
    client.until_count("sent", expected as u64).await;

    let letters = client.dead_letters(garbage.len()).await;
    assert_eq!(letters.len(), garbage.len());
    for one in &garbage {
        let at = items.iter().position(|item| *item == one.item).unwrap();
        one.check(&letters, &positions[at]);
    }
    let failed = garbage.iter().filter(|one| one.is_notification);
    client.until_count("failed", failed.count() as u64).await;

    // The first ones again, now in the other framing, and then one more of each device.
    let again = (0..DEVICES).flat_map(|device| topics.both(device, 0));
    let more = (0..DEVICES).flat_map(|device| topics.both(device, ROUNDS));
    let single_object = producer("Python producer", servers, false).expect("as before");
    produce(single_object, &again.chain(more).collect::<Vec<_>>());
    let expected = DEVICES * (ROUNDS + 1) * 2;
    let times = provider.expect_notifications(expected, SOON).await;
    client.until_count("sent", expected as u64).await;
    assert!(
        times.values().all(|times| *times == 1),
        "the same id and time are the same notification: {times:?}"
    );
    check_requests(&provider);
    system.stop();
}

async fn without_a_registry_single_object_avro_is_read_and_confluents_is_not(engine: Engine) {
    let Engine::Real(servers) = &engine else {
        return;
    };
    let Some(single_object) = producer("Python producer", servers, false) else {
        return;
    };
    let provider = Provider::start().await;
    let mut system = System::start(&engine, &provider, &[("HERALD_SCHEMA_REGISTRY_URL", "")]);
    let topics = Topics::new(&system);
    make_rule(&system).await;
    let mut items = vec![topics.bytes("events", &[&[0, 0, 0, 0, 1][..], b"x"].concat())];
    items.extend(topics.both(0, 0));
    produce(single_object, &items);
    provider.expect_notifications(2, SOON).await;
    check_requests(&provider);
    let letters = system.client().dead_letters(1).await;
    let told = letters[0]["error_message"].as_str().unwrap();
    assert!(told.contains("schema id 1 is not known"), "{told}");
    system.stop();
}

async fn make_rule(system: &System) {
    let client = system.client();
    client.source("reading").await;
    let content = "{{device}}: {{n}}";
    let template = json!({ "name": "reading", "channel": "push", "content": content });
    let template = client.template(&template).await;
    let rule = json!({ "name": "all", "event": "reading", "template_id": template,
        "recipient": "{{device}}" });
    client.rule(&rule).await;
    let schema = json!({ "properties": { "n": { "type": "integer" } } });
    let checked = json!({ "name": "checked", "schema": schema });
    client
        .post("/api/v1/event-sources", &checked)
        .await
        .expect(201);
}

/// Each device's events and notifications came in their order, each with its own context.
fn check_requests(provider: &Provider) {
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for request in provider.requests() {
        let to = request.text("to").to_owned();
        let n = next.entry(to.clone()).or_default();
        assert_eq!(request.text("content"), format!("{to}: {n}"));
        assert_eq!(request.text("correlation_id"), format!("{to}/{n}"));
        assert_eq!(
            request.headers["x-correlation-id"],
            request.text("correlation_id")
        );
        assert_eq!(request.headers["traceparent"], traceparent(*n));
        *n += 1;
    }
}

fn traceparent(n: usize) -> String {
    format!("00-{:032x}-{:016x}-01", n + 1, n + 1)
}

/// The topics of a system, and records for them.
struct Topics {
    prefix: String,
    /// The time of every record: who sends one again sends that again.
    at: u128,
}

impl Topics {
    fn new(system: &System) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            prefix: system.topics_prefix().to_owned(),
            at: since.as_millis(),
        }
    }

    fn item(&self, topic: &str, key: &str, schema: &str, record: Value) -> Value {
        let topic = format!("{}{topic}", self.prefix);
        json!({ "topic": topic, "key": key, "schema": schema, "record": record })
    }

    fn bytes(&self, topic: &str, bytes: &[u8]) -> Value {
        let topic = format!("{}{topic}", self.prefix);
        json!({ "topic": topic, "key": "device-0", "bytes": BASE64_STANDARD.encode(bytes) })
    }

    fn event(&self, id: &str, event: &str, payload: &str) -> Value {
        let record =
            json!({ "id": id, "event": event, "payload": payload, "occurred_at": self.at as u64 });
        self.item("events", "device-0", "event", record)
    }

    /// A notification with fields that differ from those of a good one.
    fn notification(&self, id: &str, to: &str, more: Value) -> Value {
        let mut record = json!({ "id": id, "recipient": to, "channel": "push", "content": id,
            "created_at": self.at as u64 });
        for (name, value) in more.as_object().into_iter().flatten() {
            record[name] = value.clone();
        }
        self.item("notifications.high", to, "notification_requested", record)
    }

    /// An event of a device and a notification for its owner, the nth of each.
    fn both(&self, device: usize, n: usize) -> [Value; 2] {
        let (device, owner) = (format!("device-{device}"), format!("owner-{device}"));
        let payload = json!({ "device": device, "n": n }).to_string();
        let mut event = self.event(&format!("{device}/{n}"), "reading", &payload);
        event["key"] = json!(device);
        let content = json!({ "content": format!("{owner}: {n}") });
        let notification = self.notification(&format!("{owner}/{n}"), &owner, content);
        [(event, device), (notification, owner)].map(|(mut item, of)| {
            let correlation_id = format!("{of}/{n}");
            item["headers"] =
                json!({ "correlation-id": correlation_id, "traceparent": traceparent(n) });
            item
        })
    }
}

/// A record that cannot be processed, and what its dead letter says.
struct Garbage {
    item: Value,
    code: &'static str,
    told: String,
    /// Whether it is still a notification, one that fails.
    is_notification: bool,
}

impl Garbage {
    fn new(item: Value, code: &'static str, told: impl Into<String>) -> Self {
        Self {
            item,
            code,
            told: told.into(),
            is_notification: false,
        }
    }

    fn failing(self) -> Self {
        Self {
            is_notification: true,
            ..self
        }
    }

    /// Its letter is among these, with the bytes that were sent.
    fn check(&self, letters: &[Value], sent: &Value) {
        let of_record = |letter: &&Value| {
            letter["source_topic"] == sent["topic"]
                && letter["source_partition"] == sent["partition"]
                && letter["source_offset"] == sent["offset"]
        };
        let letter = letters.iter().find(of_record);
        let letter = letter.unwrap_or_else(|| panic!("no letter of {sent}: {letters:#?}"));
        let kept = letter["value"].as_str().unwrap().trim_end_matches('=');
        let bytes = sent["bytes"].as_str().unwrap().trim_end_matches('=');
        if self.code == "too_large" {
            // Only the beginning is kept; its last character may stand for fewer bits.
            assert!(kept.len() < bytes.len());
            assert_eq!(kept[..kept.len() - 1], bytes[..kept.len() - 1]);
        } else {
            assert_eq!(kept, bytes);
        }
        assert_eq!(letter["error_type"], "poison");
        assert_eq!(letter["error_code"], self.code, "{letter:#}");
        let told = letter["error_message"].as_str().unwrap();
        assert!(told.contains(&self.told), "{}: {told}", self.told);
        assert_eq!(
            letter["notification_id"].is_string(),
            self.is_notification,
            "{letter:#}"
        );
    }
}

/// Everything that can be wrong with a record.
async fn garbage(topics: &Topics, servers: &Servers) -> Vec<Garbage> {
    let framed = |id: u32, datum: &[u8]| [&[0][..], &id.to_be_bytes(), datum].concat();
    let subject = |name: &str| format!("{}{name}", topics.prefix);
    let stranger = r#"{"type":"record","name":"Reading","namespace":"com.example","fields":[]}"#;
    let stranger = register(servers, &subject("stranger"), "AVRO", stranger).await;
    let json_schema = register(servers, &subject("json"), "JSON", JSON_SCHEMA).await;
    let mut other = topics.notification("other", "device-0", json!({}));
    other["topic"] = topics.bytes("events", b"")["topic"].clone();
    let mut cut_event = topics.event("cut", "reading", "{}");
    cut_event["cut"] = json!(3);
    let mut cut_notification = topics.notification("cut", "owner-0", json!({}));
    cut_notification["cut"] = json!(4);

    let bytes =
        |value: &[u8], told: &str| Garbage::new(topics.bytes("events", value), "undecodable", told);
    let event = |event: &str, payload: &str, code, told: &str| {
        Garbage::new(topics.event(told, event, payload), code, told)
    };
    let notification = |more: Value, code, told: &str| {
        Garbage::new(topics.notification(told, "owner-0", more), code, told)
    };
    let nobody = "01890000-0000-7000-8000-000000000000";
    vec![
        bytes(b"{\"event\":\"reading\"}", "first byte 0x7b"),
        bytes(b"", "empty value"),
        bytes(&[0, 0, 1], "3 bytes are too few"),
        bytes(
            &[0xc3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9],
            "fingerprint 0807060504030201",
        ),
        bytes(
            &framed(UNKNOWN_ID, b"x"),
            "schema id 2000000000 is not known",
        ),
        bytes(&framed(stranger, b""), "found com.example.Reading"),
        bytes(&framed(json_schema, b"{}"), "is not Avro"),
        Garbage::new(
            other,
            "undecodable",
            "found herald.v1.NotificationRequested",
        ),
        Garbage::new(cut_event, "undecodable", ""),
        event(
            "reading",
            "{\"device\":",
            "invalid_payload",
            "no JSON object",
        ),
        event(
            "reading",
            "[1, 2]",
            "invalid_payload",
            "no JSON object: invalid type",
        ),
        event("unheard_of", "{}", "unknown_event", "\"unheard_of\""),
        // Compressed, it is small enough for Kafka.
        event(
            "reading",
            &json!({ "device": "d".repeat(3_000_000) }).to_string(),
            "too_large",
            "its first 65536 are kept",
        ),
        event(
            "checked",
            "{\"n\":\"x\"}",
            "schema_violation",
            "payload.n: \"x\" is not of type",
        ),
        Garbage::new(
            topics.bytes("notifications.low", b"\xff"),
            "undecodable",
            "0xff",
        ),
        Garbage::new(cut_notification, "undecodable", ""),
        notification(json!({ "template_id": "thanks" }), "undecodable", "UUID"),
        notification(json!({ "channel": "fax" }), "unknown_channel", "fax"),
        notification(
            json!({ "priority": "urgent" }),
            "unknown_priority",
            "urgent",
        ),
        notification(
            json!({ "content": null }),
            "invalid_request",
            "content or template_id",
        )
        .failing(),
        notification(
            json!({ "channel": "sms" }),
            "invalid_recipient",
            "\"owner-0\"",
        )
        .failing(),
        notification(
            json!({ "content": null, "template_id": nobody }),
            "unknown_template",
            nobody,
        )
        .failing(),
    ]
}

/// Registers a schema as somebody else would who uses the same registry.
async fn register(servers: &Servers, subject: &str, kind: &str, schema: &str) -> u32 {
    let url = format!("{}/subjects/{subject}/versions", servers.registry());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({ "schemaType": kind, "schema": schema }).to_string();
    let request = client.post(url).body(body);
    let request = request.header("content-type", "application/vnd.schemaregistry.v1+json");
    let answer = request.send().await.unwrap().bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let id = answer["id"].as_u64().unwrap_or_else(|| panic!("{answer}"));
    u32::try_from(id).unwrap()
}

/// The script that writes what it is given; none where Python cannot be had.
fn producer(test: &str, servers: &Servers, with_registry: bool) -> Option<Command> {
    let mut command = python(test)?;
    command.arg(python_script("producer.py"));
    command.args(["--brokers", servers.kafka()]);
    command.arg("--schemas").arg(workspace().join("schemas"));
    if with_registry {
        command.args(["--registry", servers.registry()]);
    }
    Some(command)
}

/// Where each item was written, and its bytes.
fn produce(mut command: Command, items: &[Value]) -> Vec<Value> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
    // It writes nothing before it has read everything.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let output = tokio::task::block_in_place(|| child.wait_with_output()).unwrap();
    assert!(output.status.success(), "{}", output.status);
    let written = String::from_utf8(output.stdout).unwrap();
    let positions: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(positions.len(), items.len());
    positions
}
