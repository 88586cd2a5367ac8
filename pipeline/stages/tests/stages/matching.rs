//! match: what each rule says of an event, and what an event that is none becomes.

use herald_schemas::{
    catalog::{Rule, SeedRecipient},
    codec::{Codec, Framing},
    ids::{NotificationId, TemplateId},
    records::{Event, EventMatched, NotificationRequested, StatusChanged},
    words::{Channel, Status},
};
use herald_stages::{Output, Source, Verdict, matching};
use serde_json::json;

use crate::samples::{TRACE, World, event, kinds, object, rule, some, source, template};

fn process(world: &World, event: &Event, source: &Source<'_>) -> Verdict {
    world.ask(|context| matching::process(event.clone(), source, context))
}

fn emitted(world: &World, event: &Event, source: &Source<'_>) -> Vec<Output> {
    match process(world, event, source) {
        Verdict::Emit(outputs) => outputs,
        other => panic!("not emitted: {other:?}"),
    }
}

fn requests<'a>(outputs: &'a [Output]) -> Vec<&'a NotificationRequested> {
    let request = |output: &'a Output| match output {
        Output::Request(request) => Some(request),
        _ => None,
    };
    outputs.iter().filter_map(request).collect()
}

fn statuses<'a>(outputs: &'a [Output]) -> Vec<&'a StatusChanged> {
    let status = |output: &'a Output| match output {
        Output::Status(status) => Some(status),
        _ => None,
    };
    outputs.iter().filter_map(status).collect()
}

fn matched(outputs: &[Output]) -> &EventMatched {
    match outputs.last() {
        Some(Output::Matched(matched)) => matched,
        other => panic!("what the rules said comes last, not {other:?}"),
    }
}

type Change = fn(&mut Rule);
/// The recipient, or how the reason starts.
type Said = Result<&'static str, &'static str>;

const ADA: Said = Ok("ada@example.com");

fn seed_recipient(field: Option<&str>, email: Option<&str>) -> Option<SeedRecipient> {
    Some(SeedRecipient {
        field: field.map(str::to_owned),
        email: email.map(str::to_owned),
        ..SeedRecipient::default()
    })
}

const RULES: &[(&str, Change, Said)] = &[
    ("without conditions it holds", |_| {}, ADA),
    (
        "a condition on a nested path",
        |r| r.conditions = object(json!({"customer.vip": true})),
        ADA,
    ),
    (
        "a condition on a list's item",
        |r| r.conditions = object(json!({"order.lines.0.sku": "a"})),
        ADA,
    ),
    (
        "a condition on a whole list",
        |r| r.conditions = object(json!({"order.lines": [{"sku": "a"}]})),
        ADA,
    ),
    (
        "17 is 17.0",
        |r| r.conditions = object(json!({"order.id": 17.0})),
        ADA,
    ),
    (
        "17 is not \"17\"",
        |r| r.conditions = object(json!({"order.id": "17"})),
        Err("order.id is 17, not \"17\""),
    ),
    (
        "null is null",
        |r| r.conditions = object(json!({"note": null})),
        ADA,
    ),
    (
        "null is not what is missing",
        |r| r.conditions = object(json!({"nothing": null})),
        Err("nothing is missing, not null"),
    ),
    (
        "a path that goes on after a number",
        |r| r.conditions = object(json!({"order.id.x": 1})),
        Err("order.id.x is missing, not 1"),
    ),
    (
        "a list's item that is not there",
        |r| r.conditions = object(json!({"order.lines.1.sku": "a"})),
        Err("order.lines.1.sku is missing, not \"a\""),
    ),
    (
        "all conditions must hold",
        |r| r.conditions = object(json!({"customer.vip": true, "order.total": 1})),
        Err("order.total is 99.5, not 1"),
    ),
    (
        "the first seed's field goes first",
        |r| {
            r.channel = Some(Channel::Email);
            r.seed_recipient = seed_recipient(Some("customer.email"), Some("ops@example.com"));
        },
        ADA,
    ),
    (
        "else the first seed's own recipient",
        |r| {
            r.channel = Some(Channel::Email);
            r.seed_recipient = seed_recipient(Some("customer.phone"), Some("ops@example.com"));
        },
        Ok("ops@example.com"),
    ),
    (
        "else it, where the field is blank",
        |r| {
            r.channel = Some(Channel::Email);
            r.seed_recipient = seed_recipient(Some("blank"), Some("ops@example.com"));
        },
        Ok("ops@example.com"),
    ),
    (
        "a field and nothing else",
        |r| r.seed_recipient = seed_recipient(Some("customer.phone"), None),
        Err("no recipient: customer.phone is missing"),
    ),
    (
        "the first seed's recipient of another channel",
        |r| {
            r.channel = Some(Channel::Sms);
            r.seed_recipient = seed_recipient(None, Some("ops@example.com"));
        },
        Err("no recipient: the rule names none"),
    ),
    (
        "a when that is true",
        |r| r.when = some("payload.order.total > 50.0 && event == 'order_created'"),
        ADA,
    ),
    (
        "a when that is false",
        |r| r.when = some("payload.order.total > 100.0"),
        Err("when is false"),
    ),
    (
        "a when about what is missing",
        |r| r.when = some("payload.order.weight > 1"),
        Err("when: "),
    ),
    (
        "a when that compares what cannot be compared",
        |r| r.when = some("payload.name > 1"),
        Err("when: "),
    ),
    (
        "a when that divides by zero",
        |r| r.when = some("1 / 0 == 1"),
        Err("when: "),
    ),
    (
        "a when that is no yes or no",
        |r| r.when = some("payload.name"),
        Err("when: neither true nor false"),
    ),
    (
        "a when that does not compile",
        |r| r.when = some("payload."),
        Err("when does not compile: "),
    ),
    (
        "conditions are asked before the when",
        |r| {
            r.conditions = object(json!({"customer.vip": false}));
            r.when = some("payload.");
        },
        Err("customer.vip is true, not false"),
    ),
    (
        "an inactive rule is asked nothing",
        |r| {
            r.is_active = false;
            r.when = some("payload.");
        },
        Err("the rule is not active"),
    ),
    (
        "a fixed recipient",
        |r| r.recipient = "ops@example.com".to_owned(),
        Ok("ops@example.com"),
    ),
    (
        "white space around a recipient",
        |r| r.recipient = "  ops@example.com ".to_owned(),
        Ok("ops@example.com"),
    ),
    (
        "a recipient made of several values",
        |r| r.recipient = "{{order.id}}@{{customer.email | upper}}.example.com".to_owned(),
        Err("recipient \"17@ADA@EXAMPLE.COM.example.com\" is no e-mail address"),
    ),
    (
        "a recipient's path that is missing",
        |r| r.recipient = "{{customer.phone}}".to_owned(),
        Err("no recipient: customer.phone is missing"),
    ),
    (
        "a recipient's path that is null",
        |r| r.recipient = "{{note}}".to_owned(),
        Err("no recipient: note is missing"),
    ),
    (
        "a recipient's path that is an object",
        |r| r.recipient = "{{customer}}".to_owned(),
        Err("no recipient: customer is {"),
    ),
    (
        "a recipient's template with a missing variable",
        |r| r.recipient = "{{customer.phone}}@example.com".to_owned(),
        Err("no recipient: variable \"customer.phone\" is missing"),
    ),
    (
        "a recipient that is blank",
        |r| r.recipient = "{{blank}}".to_owned(),
        Err("no recipient: it is empty"),
    ),
    (
        "a number is no e-mail address",
        |r| r.recipient = "{{order.id}}".to_owned(),
        Err("recipient \"17\" is no e-mail address"),
    ),
    (
        "a template that is not there",
        |r| r.template_id = TemplateId::first_at(0),
        Err("there is no template 00000000-"),
    ),
];

#[test]
fn a_rule_notifies_or_says_why_not() {
    for (name, change, expected) in RULES {
        let mut world = World::new();
        change(&mut world.catalog.rules[0]);
        let outputs = emitted(&world, &event(), &source("herald.events"));
        let outcome = &matched(&outputs).rules[0];
        match expected {
            Ok(recipient) => {
                assert_eq!(kinds(&outputs), ["request", "status", "matched"], "{name}");
                assert_eq!(requests(&outputs)[0].recipient, *recipient, "{name}");
                let id = Some(statuses(&outputs)[0].identity.id);
                assert_eq!(
                    (outcome.notification_id, &outcome.reason),
                    (id, &None),
                    "{name}"
                );
            }
            Err(start) => {
                assert_eq!(kinds(&outputs), ["matched"], "{name}");
                let reason = outcome.reason.as_deref().unwrap_or_default();
                assert!(reason.starts_with(start), "{name}: {reason}");
                assert_eq!(outcome.notification_id, None, "{name}");
            }
        }
    }
}

#[test]
fn every_rule_of_the_event_is_told_about_and_no_other() {
    let mut world = World::new();
    let other = Rule {
        event: "order_cancelled".to_owned(),
        ..rule("other")
    };
    let refused = Rule {
        conditions: object(json!({"order.id": 18})),
        ..rule("refused")
    };
    world.catalog.rules.extend([other, refused, rule("also")]);
    let outputs = emitted(&world, &event(), &source("herald.events"));
    assert_eq!(
        kinds(&outputs),
        ["request", "status", "request", "status", "matched"]
    );
    let told: Vec<_> = matched(&outputs)
        .rules
        .iter()
        .map(|told| {
            (
                told.rule.as_str(),
                told.notification_id,
                told.reason.as_deref(),
            )
        })
        .collect();
    let event_id = matched(&outputs).event_id;
    let id = |name: &str| Some(NotificationId::of_rule(event_id, rule(name).id));
    assert_eq!(
        told,
        [
            ("thanks", id("thanks"), None),
            ("refused", None, Some("order.id is 17, not 18")),
            ("also", id("also"), None),
        ]
    );
}

#[test]
fn an_event_that_no_rule_is_for_says_so_and_nothing_else() {
    let mut world = World::new();
    world.catalog.rules.clear();
    let outputs = emitted(&world, &event(), &source("herald.events"));
    assert_eq!(kinds(&outputs), ["matched"]);
    assert_eq!(matched(&outputs).rules, []);
}

#[test]
fn beyond_a_thousand_rules_the_notifications_are_made_and_the_rest_is_counted() {
    let mut world = World::new();
    world.catalog.rules = (0..1_003).map(|i| rule(&i.to_string())).collect();
    let outputs = emitted(&world, &event(), &source("herald.events"));
    assert_eq!(requests(&outputs).len(), 1_003);
    let matched = matched(&outputs);
    assert_eq!((matched.rules.len(), matched.omitted), (1_000, 3));
}

/// A record that its topic does not take would stop the stage.
#[test]
fn what_the_rules_say_fits_its_topic_whatever_the_payload_holds() {
    let event = Event {
        payload: json!({"long": "\u{7f}".repeat(900_000), "a": [1]}).to_string(),
        ..event()
    };
    let mut world = World::new();
    let told: [(&str, Change); 5] = [
        ("recipient", |r| r.recipient = "{{long}}".to_owned()),
        ("template", |r| r.recipient = "{{long | json}}x".to_owned()),
        ("condition", |r| {
            r.conditions = object(json!({"long": "x".repeat(10_000)}));
        }),
        ("when", |r| r.when = some("payload + 1 == 2")),
        ("key", |r| r.when = some("payload[payload.long] == 2")),
    ];
    world.catalog.rules = (0..1_000)
        .map(|number| {
            let mut rule = rule(&format!("{number} {}", "n".repeat(250)));
            told[if number < 20 { number % 5 } else { 2 }].1(&mut rule);
            rule
        })
        .collect();
    let outputs = emitted(&world, &event, &source("herald.events"));
    assert_eq!(kinds(&outputs), ["matched"]);
    for outcome in &matched(&outputs).rules {
        let reason = outcome.reason.as_deref().unwrap();
        assert!(
            reason.len() < 2_000,
            "{}: {} bytes",
            outcome.rule,
            reason.len()
        );
    }
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let bytes = codec.encode(matched(&outputs)).unwrap();
    assert!(bytes.len() < 3 << 20, "{} bytes", bytes.len());
}

type Spoil = fn(&mut World, &mut Event);

const REFUSED: &[(&str, Spoil, &str, &str)] = &[
    (
        "an event that nobody defined",
        |_, event| event.event = "order_lost".to_owned(),
        "unknown_event",
        "there is no event source \"order_lost\"",
    ),
    (
        "an event source that is switched off",
        |world, _| world.catalog.sources[0].is_active = false,
        "inactive_event",
        "the event source \"order_created\" is not active",
    ),
    (
        "a payload that is no JSON",
        |_, event| event.payload = "{\"order\": ".to_owned(),
        "invalid_payload",
        "the payload is no JSON object: EOF",
    ),
    (
        "an empty payload",
        |_, event| event.payload = String::new(),
        "invalid_payload",
        "the payload is no JSON object: EOF",
    ),
    (
        "a payload that is a list",
        |_, event| event.payload = "[1]".to_owned(),
        "invalid_payload",
        "the payload is no JSON object: invalid type: sequence",
    ),
    (
        "a payload with something after it",
        |_, event| event.payload = "{} {}".to_owned(),
        "invalid_payload",
        "the payload is no JSON object: trailing characters",
    ),
    (
        "a payload that nests without end",
        |_, event| event.payload = format!("{{\"a\":{}", "[".repeat(100_000)),
        "invalid_payload",
        "the payload is no JSON object: recursion limit exceeded",
    ),
    (
        "a number that is too large to be one",
        |_, event| event.payload = "{\"a\": 1e999}".to_owned(),
        "invalid_payload",
        "the payload is no JSON object: number out of range",
    ),
    (
        "a payload that is one long text of what cannot be printed",
        |_, event| event.payload = format!("\"{}\"", "\u{7f}".repeat(1_000_000)),
        "invalid_payload",
        "the payload is no JSON object: invalid type: string \"\\u{7f}",
    ),
    (
        "a name as long as a record",
        |_, event| event.event = "\u{1}".repeat(1_000_000),
        "unknown_event",
        "there is no event source \"\\u{1}",
    ),
    (
        "a payload that is against the schema of its source",
        |world, _| {
            let properties = json!({ "customer": { "required": ["phone"] },
                "name": { "type": "integer" } });
            world.catalog.sources[0].schema = Some(json!({ "properties": properties }));
        },
        "schema_violation",
        "payload.customer.phone: \"phone\" is a required property; payload.name: \"Ada <3\" is not",
    ),
    (
        "a schema that is none, from a time when nobody looked",
        |world, _| world.catalog.sources[0].schema = Some(json!({ "type": "objekt" })),
        "schema_violation",
        "payload: the event source's schema does not compile: type: ",
    ),
    (
        "a correlation id as long as a record",
        |_, event| event.correlation_id = Some("c".repeat(1_000_000)),
        "invalid_event",
        "correlation_id is longer than 512 bytes",
    ),
    (
        "a trace context as long as a record",
        |_, event| event.traceparent = Some("t".repeat(1_000_000)),
        "invalid_event",
        "traceparent is longer than 512 bytes",
    ),
];

#[test]
fn an_event_that_cannot_be_matched_is_a_dead_letter_and_says_so() {
    for (name, spoil, code, message) in REFUSED {
        let (mut world, mut event) = (World::new(), event());
        spoil(&mut world, &mut event);
        let Verdict::DeadLetter(outputs) = process(&world, &event, &source("herald.events")) else {
            panic!("{name}: no dead letter");
        };
        let [Output::DeadLetter(letter), Output::Matched(matched)] = outputs.as_slice() else {
            panic!("{name}: {outputs:?}");
        };
        assert_eq!(letter.error.code, *code, "{name}");
        assert!(
            letter.error.message.starts_with(message),
            "{name}: {}",
            letter.error.message
        );
        assert!(
            letter.error.message.len() < 8_000,
            "{name}: it must fit its topic"
        );
        assert_eq!(letter.value, b"as it was", "{name}");
        assert_eq!(letter.event_id, Some(matched.event_id), "{name}");
        assert_eq!((&letter.identity, letter.attempts), (&None, 0), "{name}");
        assert_eq!(matched.error.as_ref(), Some(&letter.error), "{name}");
        assert_eq!(matched.rules, [], "{name}");
    }
}

#[test]
fn a_notification_carries_what_the_event_and_the_rule_say() {
    let outputs = emitted(&World::new(), &event(), &source("herald.events"));
    let (request, status) = (requests(&outputs)[0], statuses(&outputs)[0]);
    assert_eq!(request.id, Some(status.identity.id.to_string()));
    assert_eq!(request.accepted_by.as_deref(), Some("match"));
    assert_eq!(
        (request.channel.as_str(), request.priority.as_str()),
        ("email", "high")
    );
    assert_eq!(
        request.template_version,
        Some(2),
        "the newest at the time of the event"
    );
    assert_eq!(request.variables, Some(event().payload));
    assert_eq!(request.catalog_version, 7);
    assert_eq!((status.status, status.attempts), (Status::Pending, 0));
    assert_eq!(status.identity.channel, Channel::Email);
    assert_eq!(status.identity.template_id, Some(template().id));
    assert_eq!(
        status.identity.source.as_deref(),
        Some("herald.events/3/17")
    );
}

#[test]
fn trace_and_correlation_are_the_events_own_else_the_headers() {
    let headers: Vec<(&str, &[u8])> = vec![
        ("correlation-id", b"older"),
        ("correlation-id", b"of the header"),
        ("traceparent", TRACE.as_bytes()),
    ];
    for (name, own, headers, expected) in [
        ("neither", None, vec![], None),
        (
            "the header's last",
            None,
            headers.clone(),
            Some("of the header"),
        ),
        ("the event's", some("own"), headers, Some("own")),
        (
            "no text",
            None,
            vec![("correlation-id", &b"\xFF"[..])],
            None,
        ),
        (
            "two lines",
            None,
            vec![("correlation-id", &b"a\nb"[..])],
            None,
        ),
        (
            "too long",
            None,
            vec![("correlation-id", &[b'x'; 129][..])],
            None,
        ),
    ] {
        let traced = headers.len() > 1;
        let source = Source {
            headers,
            ..source("herald.events")
        };
        let event = Event {
            correlation_id: own,
            ..event()
        };
        let outputs = emitted(&World::new(), &event, &source);
        let (request, status) = (requests(&outputs)[0], statuses(&outputs)[0]);
        assert_eq!(request.correlation_id.as_deref(), expected, "{name}");
        assert_eq!(
            status.identity.correlation_id.as_deref(),
            expected,
            "{name}"
        );
        assert_eq!(
            request.traceparent.as_deref(),
            traced.then_some(TRACE),
            "{name}"
        );
    }
}

#[test]
fn a_replay_makes_the_same_notifications_whenever_it_happens() {
    let first = emitted(&World::new(), &event(), &source("herald.events"));
    let later = World {
        now: World::new().now + 1_000_000,
        seed: 99,
        ..World::new()
    };
    let again = emitted(&later, &event(), &source("herald.events"));
    assert_eq!(first[..2], again[..2], "request and status");
    assert_eq!(matched(&first).rules, matched(&again).rules);
}

#[test]
fn an_event_sent_again_makes_no_second_notification() {
    let first = emitted(&World::new(), &event(), &source("herald.events"));
    let elsewhere = Source {
        partition: 4,
        offset: 99,
        timestamp: 5,
        ..source("herald.events")
    };
    let again = emitted(&World::new(), &event(), &elsewhere);
    assert_eq!(requests(&first)[0].id, requests(&again)[0].id);
    // Without an id of the producer's, a record is an event.
    let nameless = Event {
        id: None,
        ..event()
    };
    let one = emitted(&World::new(), &nameless, &source("herald.events"));
    let same = emitted(&World::new(), &nameless, &source("herald.events"));
    let other = emitted(&World::new(), &nameless, &elsewhere);
    assert_eq!(requests(&one)[0].id, requests(&same)[0].id);
    assert_ne!(requests(&one)[0].id, requests(&other)[0].id);
}
