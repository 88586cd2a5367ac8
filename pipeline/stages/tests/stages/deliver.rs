//! deliver: whether to send, and what follows from how it went.

use herald_schemas::{
    records::{Attempt, DeliveryReady, Failure},
    words::Status,
};
use herald_stages::{
    Output,
    deliver::{Plan, Settled, plan, settle},
};

use crate::samples::{HOUR, NOW, World, delivery, failure, kinds, source};

const TOPIC: &str = "herald.deliveries.email.high";
const MINUTE: i64 = 60_000;

type Change = fn(&mut DeliveryReady);

#[test]
fn a_delivery_is_sent_until_its_time_is_over() {
    // The attempt to make; none when it is given up.
    let table: &[(&str, Change, Option<i32>)] = &[
        ("the first attempt", |_| {}, Some(1)),
        ("the third", |d| d.attempts = 2, Some(3)),
        (
            "the number of attempts is not plan's business",
            |d| d.attempts = 1_000,
            Some(1_001),
        ),
        (
            "a number that nobody counted to",
            |d| d.attempts = i32::MAX,
            Some(i32::MAX),
        ),
        (
            "the last moment of its day",
            |d| d.identity.created_at = NOW - 24 * HOUR,
            Some(1),
        ),
        (
            "a moment later",
            |d| d.identity.created_at = NOW - 24 * HOUR - 1,
            None,
        ),
        (
            "its own end goes before the setting",
            |d| d.identity.expires_at = Some(NOW - 1),
            None,
        ),
        (
            "though it be later",
            |d| {
                d.identity.created_at = 0;
                d.identity.expires_at = Some(NOW);
            },
            Some(1),
        ),
        (
            "the day of what was scheduled starts at its time",
            |d| {
                d.identity.created_at = 0;
                d.identity.send_at = Some(NOW - HOUR);
            },
            Some(1),
        ),
        (
            "a time beyond all time",
            |d| d.identity.send_at = Some(i64::MAX),
            Some(1),
        ),
    ];
    for (name, change, expected) in table {
        let mut delivery = delivery();
        change(&mut delivery);
        let planned = World::new().ask(|context| plan(&delivery, &source(TOPIC), context));
        match (planned, expected) {
            (Plan::Send { attempt }, Some(expected)) => assert_eq!(attempt, *expected, "{name}"),
            (Plan::Settle(outputs), None) => {
                let [Output::DeadLetter(letter), Output::Status(status)] = outputs.as_slice()
                else {
                    panic!("{name}: {outputs:?}");
                };
                assert_eq!(letter.error.code, "expired", "{name}");
                assert_eq!((status.status, status.at), (Status::Failed, NOW), "{name}");
                assert_eq!(
                    status.attempts, delivery.attempts,
                    "{name}: no attempt was made"
                );
            }
            (planned, _) => panic!("{name}: {planned:?}"),
        }
    }
}

fn call(step: i32, error: Option<Failure>) -> Attempt {
    Attempt {
        number: 1,
        step,
        provider: ["primary", "fallback"][step as usize].to_owned(),
        started_at: NOW,
        latency_ms: 12,
        error,
        response: None,
    }
}

fn accepted(calls: Vec<Attempt>) -> Settled {
    Settled {
        provider_message_id: Some("m-1".to_owned()),
        accepted: true,
        ..refused(calls)
    }
}

fn refused(calls: Vec<Attempt>) -> Settled {
    Settled {
        attempt: 1,
        at: NOW + 12,
        seed: 17,
        calls,
        provider_message_id: None,
        accepted: false,
        retry_after_ms: None,
    }
}

/// What follows: the status, the tier that the next attempt waits in and its delay, the error's code.
type Follows = (Status, Option<(usize, i64)>, Option<&'static str>);

#[test]
fn what_follows_from_an_attempt() {
    let busy = || failure("transient", "http_503");
    let wrong = || failure("permanent", "http_400");
    let primary = |error: Failure| vec![call(0, Some(error))];
    let both = |first: Failure, then: Failure| vec![call(0, Some(first)), call(1, Some(then))];
    let after = |attempt: i32, retry_after_ms: Option<i64>| Settled {
        attempt,
        retry_after_ms,
        ..refused(primary(busy()))
    };
    let table: Vec<(&str, Settled, Follows)> = vec![
        (
            "the primary took it",
            accepted(vec![call(0, None)]),
            (Status::Sent, None, None),
        ),
        (
            "the fallback took it",
            accepted(vec![call(0, Some(busy())), call(1, None)]),
            (Status::Sent, None, None),
        ),
        (
            "the primary refused for good and the fallback took it",
            accepted(vec![call(0, Some(wrong())), call(1, None)]),
            (Status::Sent, None, None),
        ),
        (
            "a failure that may pass",
            refused(primary(busy())),
            (Status::Retrying, Some((0, MINUTE)), Some("http_503")),
        ),
        (
            "a failure that will not",
            refused(primary(wrong())),
            (Status::Failed, None, Some("http_400")),
        ),
        (
            "both may recover: what the last one said",
            refused(both(failure("transient", "connection_error"), busy())),
            (Status::Retrying, Some((0, MINUTE)), Some("http_503")),
        ),
        (
            "the primary may recover though the fallback will not",
            refused(both(busy(), wrong())),
            (Status::Retrying, Some((0, MINUTE)), Some("http_503")),
        ),
        (
            "the fallback may recover though the primary will not",
            refused(both(wrong(), busy())),
            (Status::Retrying, Some((0, MINUTE)), Some("http_503")),
        ),
        (
            "neither will recover",
            refused(both(wrong(), failure("permanent", "http_410"))),
            (Status::Failed, None, Some("http_410")),
        ),
        (
            "nobody was asked",
            refused(Vec::new()),
            (Status::Retrying, Some((0, MINUTE)), Some("no_answer")),
        ),
        (
            "the second attempt waits longer",
            after(2, None),
            (Status::Retrying, Some((1, 5 * MINUTE)), Some("http_503")),
        ),
        (
            "the third longest",
            after(3, None),
            (Status::Retrying, Some((2, 15 * MINUTE)), Some("http_503")),
        ),
        (
            "the fourth was the last",
            after(4, None),
            (Status::Failed, None, Some("http_503")),
        ),
        (
            "what is beyond the last stays there",
            after(i32::MAX, None),
            (Status::Failed, None, Some("http_503")),
        ),
        (
            "a Retry-After below the rung changes nothing",
            after(2, Some(1_000)),
            (Status::Retrying, Some((1, 5 * MINUTE)), Some("http_503")),
        ),
        (
            "a Retry-After takes the first rung that is long enough",
            after(1, Some(MINUTE + 1)),
            (Status::Retrying, Some((1, 5 * MINUTE)), Some("http_503")),
        ),
        (
            "a Retry-After beyond the ladder gets its last rung",
            after(1, Some(24 * HOUR)),
            (Status::Retrying, Some((2, 15 * MINUTE)), Some("http_503")),
        ),
        (
            "a Retry-After that is negative is none",
            after(1, Some(-1)),
            (Status::Retrying, Some((0, MINUTE)), Some("http_503")),
        ),
        (
            "a Retry-After grants no further attempt",
            after(4, Some(MINUTE)),
            (Status::Failed, None, Some("http_503")),
        ),
    ];
    for (name, settled, (word, rung, code)) in table {
        let outputs = settle(
            &delivery(),
            &settled,
            &source(TOPIC),
            &World::new().settings,
        );
        let expected: &[&str] = match word {
            Status::Sent => &["status"],
            Status::Retrying => &["retry", "status"],
            _ => &["dead letter", "status"],
        };
        assert_eq!(kinds(&outputs), expected, "{name}");
        let Some(Output::Status(status)) = outputs.last() else {
            panic!("{name}: {outputs:?}");
        };
        assert_eq!(status.status, word, "{name}");
        assert_eq!(
            (status.attempts, status.at),
            (settled.attempt, settled.at),
            "{name}"
        );
        assert_eq!(status.calls, settled.calls, "{name}");
        assert_eq!(
            status.provider_message_id, settled.provider_message_id,
            "{name}"
        );
        assert_eq!(
            status.error.as_ref().map(|e| e.code.as_str()),
            code,
            "{name}"
        );
        match &outputs[0] {
            Output::Retry { tier, delivery } => {
                let (expected, delay) = rung.expect(name);
                assert_eq!(*tier, expected, "{name}");
                assert_eq!(delivery.due_at, Some(settled.at + delay), "{name}");
                assert_eq!(delivery.attempts, settled.attempt, "{name}");
                assert_eq!(delivery.last_error, status.error, "{name}");
            }
            Output::DeadLetter(letter) => {
                assert_eq!(Some(&letter.error), status.error.as_ref(), "{name}");
                assert_eq!(letter.attempts, settled.attempt, "{name}");
                assert_eq!(letter.identity.as_ref(), Some(&status.identity), "{name}");
                assert_eq!(letter.value, b"as it was", "{name}");
            }
            _ => {}
        }
    }
}

#[test]
fn the_message_is_said_by_the_first_status_and_then_no_more() {
    for message_known in [false, true] {
        let delivery = DeliveryReady {
            message_known,
            ..delivery()
        };
        for settled in [
            accepted(vec![call(0, None)]),
            refused(vec![call(0, Some(failure("transient", "http_503")))]),
            refused(vec![call(0, Some(failure("permanent", "http_400")))]),
        ] {
            let outputs = settle(&delivery, &settled, &source(TOPIC), &World::new().settings);
            let Some(Output::Status(status)) = outputs.last() else {
                panic!("{outputs:?}");
            };
            let expected = (!message_known).then(|| delivery.message.clone());
            assert_eq!(status.message, expected);
            if let Output::Retry { delivery, .. } = &outputs[0] {
                assert!(delivery.message_known);
            }
        }
    }
}

#[test]
fn a_record_that_comes_again_is_settled_in_the_same_words() {
    let settled = refused(vec![call(0, Some(failure("transient", "http_503")))]);
    let kept = Settled::from_bytes(&settled.to_bytes()).unwrap();
    assert_eq!(kept, settled);
    let say = |settled| settle(&delivery(), settled, &source(TOPIC), &World::new().settings);
    assert_eq!(say(&kept), say(&settled));
    assert!(Settled::from_bytes(b"{}").is_err());
}
