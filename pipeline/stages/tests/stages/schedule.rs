//! schedule: under which id a request waits, until when, and what follows when its time has come.

use herald_schemas::{
    ids::NotificationId,
    records::NotificationRequested,
    topics::{HEADER_CORRELATION_ID, HEADER_TRACEPARENT},
    words::{Channel, Priority, Status},
};
use herald_stages::{
    Output, Source,
    schedule::{kept, release, send_at},
};

use crate::samples::{HOUR, NOW, TRACE, kinds, request, some, source};

const TOPIC: &str = "herald.scheduled";
const OWN: &str = "018f4c1e-7b1a-7c3d-8e4f-0123456789ab";

type Change = fn(&mut NotificationRequested);

/// What a producer outside writes that is to go on later.
fn early() -> NotificationRequested {
    NotificationRequested {
        send_at: Some(NOW + HOUR),
        ..request()
    }
}

fn with_headers() -> Source<'static> {
    Source {
        headers: vec![
            (HEADER_TRACEPARENT, TRACE.as_bytes()),
            (HEADER_CORRELATION_ID, b"of the record"),
        ],
        ..source(TOPIC)
    }
}

#[test]
fn a_request_waits_under_the_id_that_it_will_have() {
    let of_record = NotificationId::of_record(TOPIC, 3, 17, NOW - 5);
    let table: &[(&str, Change, NotificationId)] = &[
        ("its own UUIDv7", |r| r.id = some(OWN), OWN.parse().unwrap()),
        (
            "any other text, by the time that its producer wrote down",
            |r| r.id = some("n-1"),
            NotificationId::derived(NOW - 5, &[b"n-1"]),
        ),
        ("none: where its record lies", |r| r.id = None, of_record),
        (
            "whatever is wrong with it, which render finds out",
            |r| {
                r.id = None;
                r.channel = "fax".to_owned();
                r.recipient = String::new();
                r.content = None;
                r.template_id = None;
            },
            of_record,
        ),
    ];
    for (name, change, expected) in table {
        let mut request = early();
        change(&mut request);
        let (id, waits) = kept(request.clone(), &source(TOPIC));
        assert_eq!(id, *expected, "{name}");
        let with_its_id = NotificationRequested {
            id: Some(expected.to_string()),
            ..request
        };
        assert_eq!(waits, with_its_id, "{name}: and else as it was");
        // By way of whatever record it comes again, it is the same one.
        let elsewhere = Source {
            partition: 0,
            offset: 99,
            timestamp: NOW + HOUR,
            ..source("herald.notifications.normal")
        };
        assert_eq!(
            kept(waits.clone(), &elsewhere),
            (id, waits),
            "{name}: again"
        );
    }
}

#[test]
fn what_its_record_said_outside_of_it_is_kept_in_it() {
    let (_, plain) = kept(early(), &source(TOPIC));
    assert_eq!((plain.traceparent, plain.correlation_id), (None, None));

    let (_, filled) = kept(early(), &with_headers());
    assert_eq!(filled.traceparent.as_deref(), Some(TRACE));
    assert_eq!(filled.correlation_id.as_deref(), Some("of the record"));

    let own = NotificationRequested {
        traceparent: some("its own trace"),
        correlation_id: some("its own"),
        ..early()
    };
    let (_, own) = kept(own, &with_headers());
    assert_eq!(own.traceparent.as_deref(), Some("its own trace"));
    assert_eq!(own.correlation_id.as_deref(), Some("its own"));
}

#[test]
fn a_request_goes_on_at_its_time_and_one_without_at_once() {
    for (given, expected) in [
        (Some(NOW + HOUR), NOW + HOUR),
        (Some(NOW - HOUR), NOW - HOUR),
        (Some(i64::MIN), i64::MIN),
        (Some(i64::MAX), i64::MAX),
        (None, NOW - 5),
    ] {
        let request = NotificationRequested {
            send_at: given,
            ..early()
        };
        assert_eq!(send_at(&request), expected, "{given:?}");
    }
}

#[test]
fn what_is_due_goes_on_and_is_pending_where_somebody_has_reported_it() {
    let table: &[(&str, Change, &[&str])] = &[
        (
            "accepted by the API",
            |r| r.accepted_by = some("api"),
            &["status", "request"],
        ),
        (
            "by a requeue",
            |r| r.accepted_by = some("requeue"),
            &["status", "request"],
        ),
        (
            "from outside: render reports it first",
            |r| r.accepted_by = None,
            &["request"],
        ),
        (
            "a channel that is none: render refuses it",
            |r| {
                r.accepted_by = some("api");
                r.channel = "fax".to_owned();
            },
            &["request"],
        ),
        (
            "a lane that is none",
            |r| {
                r.accepted_by = some("api");
                r.priority = "urgent".to_owned();
            },
            &["request"],
        ),
    ];
    let now = NOW + HOUR + 3;
    for (name, change, expected) in table {
        let mut request = early();
        change(&mut request);
        let (id, request) = kept(request, &with_headers());
        let outputs = release(id, request.clone(), now);
        assert_eq!(kinds(&outputs), *expected, "{name}");
        assert_eq!(outputs, release(id, request.clone(), now), "{name}: again");
        for output in outputs {
            match output {
                Output::Request(goes_on) => assert_eq!(goes_on, request, "{name}"),
                Output::Status(status) => {
                    let identity = request.identity(id, Channel::Email, Priority::Normal);
                    assert_eq!(status.identity, identity, "{name}");
                    assert_eq!(status.status, Status::Pending, "{name}");
                    assert_eq!((status.attempts, status.at), (0, now), "{name}");
                    assert_eq!((status.message, status.error), (None, None), "{name}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
