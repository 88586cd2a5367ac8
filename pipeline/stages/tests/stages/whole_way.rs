//! One event's whole way through the stages, as what each of them says.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use herald_schemas::{
    catalog::Rule,
    ids::NotificationId,
    records::{Attempt, DeliveryReady, StatusChanged},
    rows::NotificationRow,
};
use herald_stages::{
    Output, Verdict,
    deliver::{Plan, Settled, plan, settle},
    matching,
    materialize::{Batch, fold},
    render, retry,
};
use serde_json::{Value, json};

use crate::samples::{NOW, TRACE, World, event, failure, object, rule, some, source};

/// What was said, and the statuses among it, in order.
#[derive(Default)]
struct Log {
    text: String,
    statuses: Vec<StatusChanged>,
    /// What was told of the identity last: only what differs is told again.
    identity: BTreeMap<String, Value>,
}

impl Log {
    fn note(&mut self, who: &str, outputs: &[Output]) {
        for output in outputs {
            let (topic, record) = match output {
                Output::Request(record) => ("notifications".to_owned(), json!(record)),
                Output::Schedule(record) => ("scheduled".to_owned(), json!(record)),
                Output::Deliver(record) => ("deliveries".to_owned(), json!(record)),
                Output::Retry { tier, delivery } => (format!("retries {tier}"), json!(delivery)),
                Output::Batch(record) => ("batches".to_owned(), json!(record)),
                Output::Matched(record) => ("matches".to_owned(), json!(record)),
                Output::DeadLetter(record) => ("dead-letters".to_owned(), json!(record)),
                Output::Status(record) => {
                    self.statuses.push(record.clone());
                    ("status".to_owned(), json!(record))
                }
            };
            self.say(&format!("{who} → {topic}"), &record);
        }
    }

    /// A field a line, without those that are empty.
    fn say(&mut self, title: &str, record: &Value) {
        writeln!(self.text, "{title}").unwrap();
        for (name, value) in record.as_object().unwrap() {
            let Value::Object(parts) = value else {
                if !is_empty(value) {
                    writeln!(self.text, "    {name}: {value}").unwrap();
                }
                continue;
            };
            for (part, value) in parts.iter().filter(|(_, value)| !is_empty(value)) {
                if name == "identity" {
                    let told = self.identity.insert(part.clone(), value.clone());
                    if told.as_ref() == Some(value) {
                        continue;
                    }
                }
                writeln!(self.text, "    {name}.{part}: {value}").unwrap();
            }
        }
        self.text.push('\n');
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn emitted(verdict: Verdict) -> Vec<Output> {
    match verdict {
        Verdict::Emit(outputs) => outputs,
        other => panic!("not emitted: {other:?}"),
    }
}

fn delivery_in(outputs: &[Output]) -> DeliveryReady {
    let delivery = outputs.iter().find_map(|output| match output {
        Output::Deliver(delivery) | Output::Retry { delivery, .. } => Some(delivery.clone()),
        _ => None,
    });
    delivery.unwrap()
}

fn row(row: &NotificationRow) -> Value {
    json!({
        "identity": row.identity, "message": row.message, "status": row.status,
        "attempts": row.attempts, "updated_at": row.updated_at, "sent_at": row.sent_at,
        "provider_message_id": row.provider_message_id, "last_error": row.last_error,
    })
}

/// An event on its way.
struct Way {
    log: Log,
    world: World,
}

impl Way {
    /// Match and render: up to the first delivery.
    fn start() -> (Self, DeliveryReady) {
        let mut world = World::new();
        let refused = Rule {
            conditions: object(json!({"customer.vip": false})),
            ..rule("newcomers")
        };
        world.catalog.rules.push(refused);
        let mut event = event();
        event.correlation_id = some("demo-123");
        event.traceparent = some(TRACE);
        let mut log = Log::default();
        log.say("events", &json!(event));
        let matched = emitted(
            world.ask(|context| matching::process(event, &source("herald.events"), context)),
        );
        log.note("match", &matched);
        let Output::Request(request) = &matched[0] else {
            panic!("{matched:?}");
        };
        let from = source("herald.notifications.high");
        let rendered =
            emitted(world.ask(|context| render::process(request.clone(), &from, context)));
        log.note("render", &rendered);
        let delivery = delivery_in(&rendered);
        (Self { log, world }, delivery)
    }

    fn attempt(&mut self, delivery: &DeliveryReady, code: Option<&str>) -> Vec<Output> {
        let from = source("herald.deliveries.email.high");
        let planned = self.world.ask(|context| plan(delivery, &from, context));
        let Plan::Send { attempt } = planned else {
            panic!("{planned:?}");
        };
        let call = Attempt {
            number: attempt,
            step: 0,
            provider: "primary".to_owned(),
            started_at: self.world.now,
            latency_ms: 12,
            error: code.map(|code| failure("transient", code)),
            response: None,
        };
        let settled = Settled {
            attempt,
            at: self.world.now + 12,
            seed: self.world.seed,
            provider_message_id: code.is_none().then(|| "m-1".to_owned()),
            accepted: code.is_none(),
            calls: vec![call],
            retry_after_ms: None,
        };
        let outputs = settle(delivery, &settled, &from, &self.world.settings);
        self.log
            .note(&format!("deliver, attempt {attempt}"), &outputs);
        outputs
    }

    /// Waits on the rung until it is due.
    fn wait(&mut self, waiting: DeliveryReady) -> DeliveryReady {
        let from = source("herald.retries.1m");
        let ask =
            |world: &World| world.ask(|context| retry::process(waiting.clone(), &from, context));
        let Verdict::Defer(due_at) = ask(&self.world) else {
            panic!("due at once");
        };
        self.world.now = due_at;
        let outputs = emitted(ask(&self.world));
        let waited = due_at - NOW;
        self.log
            .note(&format!("retry, {waited} ms after the start"), &outputs);
        delivery_in(&outputs)
    }

    /// What materialize makes of it all.
    fn end(mut self) -> String {
        let mut rows: HashMap<NotificationId, NotificationRow> = HashMap::new();
        let Batch { writes, counts, .. } = fold(&mut rows, &self.log.statuses);
        for write in &writes {
            self.log.say("materialize → row", &row(&write.row));
        }
        for (cell, change) in counts {
            let title = format!("materialize → counts {change:+}");
            self.log.say(&title, &json!(cell));
        }
        self.log.text
    }
}

#[test]
fn an_event_becomes_a_delivered_notification() {
    let (mut way, delivery) = Way::start();
    way.attempt(&delivery, None);
    insta::assert_snapshot!(way.end());
}

#[test]
fn a_provider_that_is_busy_is_asked_again() {
    let (mut way, delivery) = Way::start();
    // What was said up to here stands in the other snapshot.
    way.log.text.clear();
    let outputs = way.attempt(&delivery, Some("http_503"));
    let again = way.wait(delivery_in(&outputs));
    way.attempt(&again, None);
    insta::assert_snapshot!(way.end());
}

#[test]
fn a_provider_that_stays_busy_ends_in_a_dead_letter() {
    let (mut way, mut delivery) = Way::start();
    for attempt in 1..=3 {
        let outputs = way.attempt(&delivery, Some("http_503"));
        delivery = way.wait(delivery_in(&outputs));
        assert_eq!(delivery.attempts, attempt);
    }
    // The first three are as in the other snapshot.
    way.log.text.clear();
    way.attempt(&delivery, Some("http_503"));
    insta::assert_snapshot!(way.end());
}
