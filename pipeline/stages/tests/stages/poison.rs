//! Dead letters: what a record that cannot be processed leaves behind.

use herald_schemas::{
    codec::DecodeError,
    ids::{DeadLetterId, EventId},
    records::{Identity, RecordHeader},
};
use herald_stages::{
    Source,
    poison::{POISON, letter, poison, undecodable},
};

use crate::samples::{NOW, identity, source};

#[test]
fn a_dead_letter_holds_the_record_byte_by_byte() {
    let bytes: Vec<u8> = (0..=255).collect();
    for (name, key, value, headers) in [
        (
            "all bytes there are",
            Some(&bytes[..]),
            &bytes[..],
            vec![("traceparent", &bytes[..]), ("traceparent", b"")],
        ),
        ("nothing at all", None, b"", vec![]),
        ("an empty key is not none", Some(&b""[..]), b"", vec![]),
    ] {
        let source = Source {
            key,
            value,
            headers: headers.clone(),
            ..source("herald.events")
        };
        let letter = undecodable("match", &source, &DecodeError::Empty, NOW);
        assert_eq!(letter.key.as_deref(), key, "{name}");
        assert_eq!(letter.value, value, "{name}");
        let headers: Vec<RecordHeader> = headers
            .into_iter()
            .map(|(header, value)| RecordHeader {
                name: header.to_owned(),
                value: value.to_vec(),
            })
            .collect();
        assert_eq!(letter.headers, headers, "{name}");
        let from = (
            letter.source_topic.as_str(),
            letter.source_partition,
            letter.source_offset,
        );
        assert_eq!(from, ("herald.events", 3, 17), "{name}");
    }
}

#[test]
fn bytes_that_are_no_record_say_why() {
    for (error, message) in [
        (DecodeError::Empty, "empty value"),
        (
            DecodeError::NoFraming(b'{'),
            "first byte 0x7b: neither Confluent-framed Avro (0x00) nor single-object Avro (0xc3 0x01)",
        ),
        (
            DecodeError::UnknownSchemaId(9),
            "schema id 9 is not known to the schema registry",
        ),
    ] {
        let letter = undecodable("render", &source("t"), &error, NOW);
        assert_eq!(letter.error, poison("undecodable", message));
        assert_eq!(
            (letter.error.kind.as_str(), letter.stage.as_str()),
            (POISON, "render")
        );
        assert_eq!((letter.at, letter.attempts), (NOW, 0));
    }
}

#[test]
fn a_record_has_one_dead_letter_however_often_it_is_replayed() {
    let id = |source: &Source<'_>, at| undecodable("match", source, &DecodeError::Empty, at).id;
    let first = source("herald.events");
    assert_eq!(id(&first, NOW), id(&first, NOW + 1));
    assert_eq!(
        id(&first, NOW),
        DeadLetterId::of_record("herald.events", 3, 17, NOW - 5)
    );
    for (name, other) in [
        ("topic", source("herald.status")),
        (
            "partition",
            Source {
                partition: 4,
                ..first.clone()
            },
        ),
        (
            "offset",
            Source {
                offset: 18,
                ..first.clone()
            },
        ),
    ] {
        assert_ne!(id(&first, NOW), id(&other, NOW), "{name}");
    }
}

#[test]
fn the_event_is_the_one_named_else_the_notifications() {
    let (named, of_identity) = (EventId::derived(1, &[b"a"]), EventId::derived(2, &[b"b"]));
    let with_event = Identity {
        event_id: Some(of_identity),
        ..identity()
    };
    for (name, identity, event_id, expected) in [
        ("neither", None, None, None),
        ("named", None, Some(named), Some(named)),
        (
            "the notification's",
            Some(with_event.clone()),
            None,
            Some(of_identity),
        ),
        ("both", Some(with_event), Some(named), Some(named)),
    ] {
        let error = poison("code", "message");
        let letter = letter("render", &source("t"), error, NOW, 2, identity, event_id);
        assert_eq!(letter.event_id, expected, "{name}");
        assert_eq!(letter.attempts, 2, "{name}");
    }
}
