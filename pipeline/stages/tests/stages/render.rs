//! render: what becomes of a requested notification.

use herald_schemas::{
    ids::{NotificationId, TemplateId},
    records::{DeliveryReady, NotificationRequested},
    words::{Priority, Status},
};
use herald_stages::{Output, Source, Verdict, render};

use crate::samples::{HOUR, NOW, World, kinds, request, some, source};

const TOPIC: &str = "herald.notifications.normal";

fn process(world: &World, request: NotificationRequested) -> Verdict {
    world.ask(|context| render::process(request, &source(TOPIC), context))
}

/// The delivery of a request that nobody accepted before, and its first status before it.
fn delivered(name: &str, verdict: Verdict) -> DeliveryReady {
    let Verdict::Emit(outputs) = verdict else {
        panic!("{name}: {verdict:?}");
    };
    match <[Output; 2]>::try_from(outputs) {
        Ok([Output::Status(status), Output::Deliver(delivery)]) => {
            assert_eq!(status.status, Status::Pending, "{name}");
            assert_eq!(status.message.as_ref(), Some(&delivery.message), "{name}");
            assert_eq!(status.identity, delivery.identity, "{name}");
            delivery
        }
        other => panic!("{name}: {other:?}"),
    }
}

type Change = fn(&mut NotificationRequested);

/// The content, the subject and the HTML part.
type Said = (&'static str, Option<&'static str>, Option<&'static str>);

const RENDERED: &[(&str, Change, Said)] = &[
    (
        "the newest version, values over defaults, HTML escaped",
        |_| {},
        (
            "Hello Ada <3, your order 17 at Herald",
            Some("Order 17"),
            Some("<p>Ada &lt;3</p>"),
        ),
    ),
    (
        "the version it was accepted with, though it is retired",
        |r| r.template_version = Some(1),
        ("Dear Ada <3", Some("Order 17"), Some("<p>Ada &lt;3</p>")),
    ),
    (
        "what is given goes before a default",
        |r| r.variables = some(r#"{"name": "Bo", "order": {"id": 1}, "shop": "Elsewhere"}"#),
        (
            "Hello Bo, your order 1 at Elsewhere",
            Some("Order 1"),
            Some("<p>Bo</p>"),
        ),
    ),
    (
        "the request's own subject and HTML go before the template's",
        |r| {
            r.subject = some("{{as it is}}");
            r.html = some("<b>{{as it is}}</b>");
        },
        (
            "Hello Ada <3, your order 17 at Herald",
            Some("{{as it is}}"),
            Some("<b>{{as it is}}</b>"),
        ),
    ),
    (
        "a content of its own is no template",
        |r| r.content = some("Hi {{name}}"),
        ("Hi {{name}}", None, None),
    ),
    (
        "an empty content is one",
        |r| {
            r.content = some("");
            r.template_id = None;
        },
        ("", None, None),
    ),
];

#[test]
fn a_request_becomes_a_message() {
    for (name, change, (content, subject, html)) in RENDERED {
        let mut request = request();
        change(&mut request);
        let delivery = delivered(name, process(&World::new(), request));
        let message = &delivery.message;
        assert_eq!(message.content, *content, "{name}");
        assert_eq!(message.subject.as_deref(), *subject, "{name}");
        assert_eq!(message.html.as_deref(), *html, "{name}");
        assert_eq!(
            (delivery.attempts, delivery.message_known),
            (0, true),
            "{name}"
        );
    }
}

/// The code and how the message starts.
const GIVEN_UP: &[(&str, Change, &str, &str)] = &[
    (
        "a missing variable",
        |r| r.variables = some(r#"{"name": "Ada"}"#),
        "missing_variable",
        "variable \"order.id\" is missing (line 1, column 28)",
    ),
    (
        "no variables at all",
        |r| r.variables = None,
        "missing_variable",
        "variable \"name\" is missing (line 1, column 7)",
    ),
    (
        "a variable that is null",
        |r| r.variables = some(r#"{"name": null, "order": {"id": 1}}"#),
        "missing_variable",
        "variable \"name\" is missing",
    ),
    (
        "an object where a text belongs",
        |r| r.variables = some(r#"{"name": {}, "order": {"id": 1}}"#),
        "wrong_variable",
        "variable \"name\" is an object",
    ),
    (
        "variables that are no object",
        |r| r.variables = some("[]"),
        "invalid_request",
        "variables is no JSON object",
    ),
    (
        "metadata that is no object",
        |r| r.metadata = some("1"),
        "invalid_request",
        "metadata is no JSON object",
    ),
    (
        "a template that nobody made",
        |r| r.template_id = Some(TemplateId::first_at(0)),
        "unknown_template",
        "there is no template 00000000-0000-0000-0000-000000000000",
    ),
    (
        "a version that is not there",
        |r| r.template_version = Some(3),
        "unknown_template",
        "there is no template 018bcfe5-6800-7",
    ),
    (
        "neither content nor template",
        |r| r.template_id = None,
        "invalid_request",
        "either content or template_id is required",
    ),
    (
        "a recipient of another channel",
        |r| r.channel = "sms".to_owned(),
        "invalid_recipient",
        "recipient \"ada@example.com\" is no phone number",
    ),
    (
        "no recipient",
        |r| r.recipient = String::new(),
        "invalid_recipient",
        "recipient \"\" is empty",
    ),
    (
        "a recipient with a line break",
        |r| r.recipient = "a@b\r\nBcc: c@d".to_owned(),
        "invalid_recipient",
        "recipient \"a@b\\r\\nBcc: c@d\" has control characters",
    ),
    (
        "a message that fits no topic",
        |r| r.metadata = Some(format!("{{\"a\": \"{}\"}}", "m".repeat(2_000_000))),
        "content_too_long",
        "The message exceeds 2000000 bytes in all.",
    ),
];

#[test]
fn what_cannot_be_rendered_is_a_dead_letter_and_its_status_says_so() {
    for (name, change, code, message) in GIVEN_UP {
        let mut request = request();
        change(&mut request);
        let Verdict::DeadLetter(outputs) = process(&World::new(), request) else {
            panic!("{name}: no dead letter");
        };
        let [Output::DeadLetter(letter), Output::Status(status)] = outputs.as_slice() else {
            panic!("{name}: {outputs:?}");
        };
        assert_eq!(letter.error.code, *code, "{name}");
        assert!(
            letter.error.message.starts_with(message),
            "{name}: {}",
            letter.error.message
        );
        assert_eq!(letter.identity.as_ref(), Some(&status.identity), "{name}");
        assert_eq!(letter.value, b"as it was", "{name}");
        assert_eq!(status.error.as_ref(), Some(&letter.error), "{name}");
        assert_eq!(
            (status.status, status.attempts, status.at),
            (Status::Failed, 0, NOW),
            "{name}"
        );
    }
}

const NO_NOTIFICATION: &[(&str, Change, &str, &str)] = &[
    (
        "a word that is no channel's",
        |r| r.channel = "fax".to_owned(),
        "unknown_channel",
        "unknown channel \"fax\": expected one of sms, email, push, slack, webhook, log",
    ),
    (
        "a channel in capitals",
        |r| r.channel = "EMAIL".to_owned(),
        "unknown_channel",
        "unknown channel \"EMAIL\"",
    ),
    (
        "a word that is no priority's",
        |r| r.priority = "urgent".to_owned(),
        "unknown_priority",
        "unknown priority \"urgent\": expected one of high, normal, low",
    ),
    (
        "a key that is too long",
        |r| r.idempotency_key = Some("k".repeat(513)),
        "invalid_request",
        "idempotency_key is longer than 512 bytes",
    ),
    (
        "a correlation id that is too long",
        |r| r.correlation_id = Some("k".repeat(513)),
        "invalid_request",
        "correlation_id is longer than 512 bytes",
    ),
    (
        "a trace context that is too long",
        |r| r.traceparent = Some("k".repeat(513)),
        "invalid_request",
        "traceparent is longer than 512 bytes",
    ),
    (
        "a recipient that is no channel's",
        |r| r.recipient = "r".repeat(1_900_000),
        "invalid_recipient",
        "recipient is longer than 4096 bytes",
    ),
];

#[test]
fn what_is_no_notification_is_a_dead_letter_without_one() {
    for (name, change, code, message) in NO_NOTIFICATION {
        let mut request = request();
        change(&mut request);
        let Verdict::DeadLetter(outputs) = process(&World::new(), request) else {
            panic!("{name}: no dead letter");
        };
        let [Output::DeadLetter(letter)] = outputs.as_slice() else {
            panic!("{name}: {outputs:?}");
        };
        assert_eq!(letter.error.code, *code, "{name}");
        assert!(
            letter.error.message.starts_with(message),
            "{name}: {}",
            letter.error.message
        );
        assert_eq!(letter.identity, None, "{name}");
        assert_eq!(
            (letter.stage.as_str(), letter.source_offset),
            ("render", 17),
            "{name}"
        );
    }
}

#[test]
fn a_content_fits_its_channel() {
    let cases = [
        ("sms", "+905551234567", 1_600),
        ("push", "token", 4_096),
        ("slack", "#general", 40_000),
        ("email", "ada@example.com", 262_144),
        ("webhook", "https://example.com", 262_144),
        ("log", "anyone", 262_144),
    ];
    for (channel, recipient, limit) in cases {
        let of_length = |length| NotificationRequested {
            channel: channel.to_owned(),
            recipient: recipient.to_owned(),
            // Characters count, not bytes.
            content: Some("é".repeat(length)),
            ..request()
        };
        delivered(channel, process(&World::new(), of_length(limit)));
        let Verdict::DeadLetter(outputs) = process(&World::new(), of_length(limit + 1)) else {
            panic!("{channel}: no dead letter");
        };
        let Output::DeadLetter(letter) = &outputs[0] else {
            panic!("{channel}: {outputs:?}");
        };
        assert_eq!(letter.error.code, "content_too_long", "{channel}");
        let expected = format!("Content exceeds {limit} characters for {channel}.");
        assert_eq!(letter.error.message, expected);
    }
}

#[test]
fn what_is_early_and_from_outside_is_scheduled_as_it_will_be_said() {
    for (name, send_at, early) in [
        ("no time", None, false),
        ("a time that is over", Some(NOW - 1), false),
        ("this very moment", Some(NOW), false),
        ("a moment later", Some(NOW + 1), true),
        ("in a year", Some(NOW + 365 * 24 * HOUR), true),
    ] {
        let early_request = NotificationRequested {
            send_at,
            ..request()
        };
        let verdict = process(&World::new(), early_request);
        if !early {
            delivered(name, verdict);
            continue;
        }
        let Verdict::Emit(outputs) = verdict else {
            panic!("{name}: {verdict:?}");
        };
        let [Output::Status(status), Output::Schedule(scheduled)] = outputs.as_slice() else {
            panic!("{name}: {outputs:?}");
        };
        assert_eq!(status.status, Status::Scheduled, "{name}");
        assert_eq!(scheduled.id, Some(status.identity.id.to_string()), "{name}");
        let said = "Hello Ada <3, your order 17 at Herald";
        assert_eq!(scheduled.content.as_deref(), Some(said), "{name}");
        assert_eq!(
            (scheduled.send_at, &scheduled.variables),
            (send_at, &None),
            "{name}"
        );
        // When its time has come it goes on, and nobody asks the template again.
        let due = World {
            now: send_at.unwrap(),
            ..World::new()
        };
        let Verdict::Emit(outputs) = process(&due, scheduled.clone()) else {
            panic!("{name}: not due");
        };
        assert_eq!(
            kinds(&outputs),
            ["deliver"],
            "{name}: its first status is written"
        );
    }
}

#[test]
fn a_notification_that_is_scheduled_lives_from_its_time_on() {
    let request = NotificationRequested {
        created_at: NOW - 48 * HOUR,
        send_at: Some(NOW - HOUR),
        ..request()
    };
    delivered(
        "two days old, due an hour ago",
        process(&World::new(), request),
    );
}

/// It may have been cancelled: deliver knows, which looks at its marks first.
#[test]
fn what_is_too_late_is_left_to_deliver() {
    let request = NotificationRequested {
        expires_at: Some(NOW - 1),
        ..request()
    };
    let Verdict::Emit(outputs) = process(&World::new(), request) else {
        panic!("not emitted");
    };
    assert_eq!(kinds(&outputs), ["status", "deliver"]);
}

#[test]
fn what_is_known_already_is_not_said_again() {
    for (name, accepted_by, expected, message_known, provenance) in [
        (
            "a producer outside",
            None,
            &["status", "deliver"][..],
            true,
            true,
        ),
        ("match", some("match"), &["deliver"], false, true),
        ("the API", some("api"), &["deliver"], true, false),
        ("a requeue", some("requeue"), &["deliver"], true, false),
    ] {
        let request = NotificationRequested {
            content: (name != "match").then(|| "Hello".to_owned()),
            accepted_by,
            ..request()
        };
        let Verdict::Emit(outputs) = process(&World::new(), request) else {
            panic!("{name}: not emitted");
        };
        assert_eq!(kinds(&outputs), *expected, "{name}");
        let Some(Output::Deliver(delivery)) = outputs.last() else {
            panic!("{name}: {outputs:?}");
        };
        assert_eq!(delivery.message_known, message_known, "{name}");
        let from = provenance.then(|| format!("{TOPIC}/3/17"));
        assert_eq!(delivery.identity.source, from, "{name}");
    }
}

#[test]
fn an_id_is_the_producers_or_that_of_the_record() {
    let own = NotificationId::derived(5, &[b"own"]);
    let created_at = request().created_at;
    for (name, id, expected) in [
        ("a UUIDv7", some(&own.to_string()), own),
        (
            "any other text",
            some("n-1"),
            NotificationId::derived(created_at, &[b"n-1"]),
        ),
        (
            "none",
            None,
            NotificationId::of_record(TOPIC, 3, 17, NOW - 5),
        ),
    ] {
        let request = NotificationRequested { id, ..request() };
        let delivery = delivered(name, process(&World::new(), request));
        assert_eq!(delivery.identity.id, expected, "{name}");
    }
}

#[test]
fn a_replay_says_the_same_whenever_it_happens() {
    let first = process(&World::new(), request());
    let later = World {
        now: NOW + HOUR,
        seed: 99,
        ..World::new()
    };
    assert_eq!(first, process(&later, request()));
}

#[test]
fn the_headers_fill_in_what_the_record_leaves_out() {
    let with_header = Source {
        headers: vec![("correlation-id", b"of the header")],
        ..source(TOPIC)
    };
    for (name, own, expected) in [
        ("the record's own", some("own"), "own"),
        ("the header's", None, "of the header"),
    ] {
        let request = NotificationRequested {
            correlation_id: own,
            ..request()
        };
        let verdict = World::new().ask(|context| render::process(request, &with_header, context));
        let delivery = delivered(name, verdict);
        assert_eq!(
            delivery.identity.correlation_id.as_deref(),
            Some(expected),
            "{name}"
        );
        assert_eq!(delivery.identity.priority, Priority::Normal, "{name}");
    }
}
