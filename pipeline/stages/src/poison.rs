//! Dead letters: what cannot be processed, with its bytes, its reason and where it came from.

use std::fmt::Display;

use herald_schemas::{
    codec::DecodeError,
    ids::{DeadLetterId, EventId, UnixMs},
    records::{DeadLetter, Failure, Identity, RecordHeader, StatusChanged},
    words::Status,
};

use crate::{Output, Source, shortened::shortened};

/// How many characters of what is wrong are told: it may quote the record, and a dead letter that
/// its topic does not take would stop the stage.
const MAX_MESSAGE: usize = 1_000;

/// The kind of a failure that lies in the record itself.
pub const POISON: &str = "poison";

/// A failure that lies in the record itself.
pub fn poison(code: &str, message: impl Display) -> Failure {
    Failure {
        kind: POISON.to_owned(),
        code: code.to_owned(),
        message: shortened(message, MAX_MESSAGE),
    }
}

/// The dead letter of a record.
pub fn letter(
    stage: &str,
    source: &Source<'_>,
    error: Failure,
    at: UnixMs,
    attempts: i32,
    identity: Option<Identity>,
    event_id: Option<EventId>,
) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::of_record(
            source.topic,
            source.partition,
            source.offset,
            source.timestamp,
        ),
        stage: stage.to_owned(),
        error,
        at,
        event_id: event_id.or(identity.as_ref().and_then(|identity| identity.event_id)),
        identity,
        attempts,
        source_topic: source.topic.to_owned(),
        source_partition: source.partition,
        source_offset: source.offset,
        key: source.key.map(<[u8]>::to_vec),
        value: source.value.to_vec(),
        headers: source
            .headers
            .iter()
            .map(|(name, value)| RecordHeader {
                name: (*name).to_owned(),
                value: value.to_vec(),
            })
            .collect(),
    }
}

/// The dead letter of bytes that are no record.
pub fn undecodable(
    stage: &str,
    source: &Source<'_>,
    error: &DecodeError,
    at: UnixMs,
) -> DeadLetter {
    letter(
        stage,
        source,
        poison("undecodable", error),
        at,
        0,
        None,
        None,
    )
}

/// How much of a record that is too large is kept.
const KEPT_BYTES: usize = 64 << 10;

/// The dead letter of a record that is larger than its topic is meant to take: with its beginning
/// alone, since the whole would not fit.
pub fn oversized(stage: &str, source: &Source<'_>, at: UnixMs) -> DeadLetter {
    let bytes = source.value.len();
    let message = format!("the record has {bytes} bytes; its first {KEPT_BYTES} are kept");
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(KEPT_BYTES)].to_vec();
    let error = poison("too_large", message);
    let mut letter = letter(
        stage,
        &Source {
            value: &[],
            key: None,
            headers: Vec::new(),
            ..source.clone()
        },
        error,
        at,
        0,
        None,
        None,
    );
    letter.value = cut(source.value);
    letter.key = source.key.map(cut);
    letter
}

/// The end of a notification that is given up: its dead letter and its last status.
pub fn given_up(
    stage: &str,
    source: &Source<'_>,
    error: &Failure,
    at: UnixMs,
    status: StatusChanged,
) -> Vec<Output> {
    let identity = Some(status.identity.clone());
    let letter = letter(
        stage,
        source,
        error.clone(),
        at,
        status.attempts,
        identity,
        None,
    );
    let status = StatusChanged {
        status: Status::Failed,
        error: Some(error.clone()),
        at,
        ..status
    };
    vec![Output::DeadLetter(letter), Output::Status(status)]
}
