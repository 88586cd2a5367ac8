//! retry: which rung a failed attempt waits on, and when it is due.

use std::time::Duration;

use herald_schemas::records::DeliveryReady;
use herald_stages::{
    Output, Verdict,
    retry::{Backoff, Ladder, LadderError, Policy, Tier, process},
};

use crate::samples::{NOW, World, delivery, failure, source};

const NONE: Option<&str> = None;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tier(name: &str, seconds: u64) -> Tier {
    Tier {
        name: name.to_owned(),
        delay: secs(seconds),
    }
}

fn ladder() -> Ladder {
    let tiers = [("2s", 2), ("10s", 10), ("1m", 60), ("5m", 300)];
    Ladder::new(tiers.map(|(name, seconds)| tier(name, seconds)).to_vec()).unwrap()
}

fn exponential(base: u64, cap: u64, jitter_percent: u32) -> Backoff {
    Backoff::Exponential {
        base: secs(base),
        cap: secs(cap),
        jitter_percent,
    }
}

#[test]
fn each_policy_chooses_its_rungs() {
    let default = Policy::default;
    let of = |backoff, attempts| Policy::new(ladder(), backoff, attempts);
    // The rung after each of the first five attempts.
    let table = [
        (
            "the default: one, five and fifteen minutes",
            default(),
            None,
            [Some("1m"), Some("5m"), Some("15m"), NONE, NONE],
        ),
        (
            "fewer attempts than rungs",
            of(Backoff::Ladder, 2),
            None,
            [Some("2s"), NONE, NONE, NONE, NONE],
        ),
        (
            "more attempts than rungs stay on the last one",
            of(Backoff::Ladder, 6),
            None,
            [Some("2s"), Some("10s"), Some("1m"), Some("5m"), Some("5m")],
        ),
        (
            "one attempt is never repeated",
            of(Backoff::Ladder, 1),
            None,
            [NONE; 5],
        ),
        (
            "no attempt is not repeated either",
            of(Backoff::Ladder, 0),
            None,
            [NONE; 5],
        ),
        (
            "2, 4, 8, 16, 32 s take the nearest rung",
            of(exponential(2, 300, 0), 10),
            None,
            [
                Some("2s"),
                Some("2s"),
                Some("10s"),
                Some("10s"),
                Some("10s"),
            ],
        ),
        (
            "40, 80, 100, 100, 100 s: the cap holds",
            of(exponential(40, 100, 0), 10),
            None,
            [Some("1m"); 5],
        ),
        (
            "half-way between two rungs, the shorter",
            of(exponential(6, 6, 0), 10),
            None,
            [Some("2s"); 5],
        ),
        (
            "a provider that asks for time gets it",
            default(),
            Some(secs(90)),
            [Some("5m"), Some("5m"), Some("15m"), NONE, NONE],
        ),
        (
            "exactly a rung is enough",
            default(),
            Some(secs(60)),
            [Some("1m"), Some("5m"), Some("15m"), NONE, NONE],
        ),
        (
            "more than there is gets the last rung",
            default(),
            Some(secs(86_400)),
            [Some("15m"), Some("15m"), Some("15m"), NONE, NONE],
        ),
        (
            "an exponential wait makes way for it too",
            of(exponential(2, 300, 0), 10),
            Some(secs(11)),
            [Some("1m"); 5],
        ),
    ];
    for (name, policy, retry_after, expected) in table {
        let rung = |attempts| {
            let (index, tier) = policy.next(attempts, retry_after, 7)?;
            assert_eq!(&policy.ladder().tiers()[index], tier, "{name}");
            Some(tier.name.as_str())
        };
        let rungs: Vec<Option<&str>> = (1..=5).map(rung).collect();
        assert_eq!(rungs, expected, "{name}");
    }
}

#[test]
fn numbers_that_nobody_counted_to_are_no_trouble() {
    let policy = Policy::new(ladder(), exponential(2, 300, 20), u32::MAX);
    for attempts in [i32::MIN, -1, 0, 40, i32::MAX] {
        assert!(
            policy.next(attempts, None, u64::MAX).is_some(),
            "{attempts}"
        );
    }
    let forever = Backoff::Exponential {
        base: Duration::MAX,
        cap: Duration::MAX,
        jitter_percent: 100,
    };
    let policy = Policy::new(ladder(), forever, 5);
    for seed in 0..100 {
        let rung = policy.next(3, Some(Duration::MAX), seed);
        assert_eq!(rung.map(|(index, _)| index), Some(3), "seed {seed}");
    }
}

#[test]
fn jitter_stays_within_its_percentage_and_goes_by_the_seed() {
    // A rung for every second makes the wait visible.
    let rungs = (1..=200).map(|second| tier(&second.to_string(), second));
    let ladder = Ladder::new(rungs.collect()).unwrap();
    let wait = |percent, seed| {
        let policy = Policy::new(ladder.clone(), exponential(100, 100, percent), 5);
        policy.next(1, None, seed).unwrap().1.delay.as_secs()
    };
    let waits: Vec<u64> = (0..1_000).map(|seed| wait(20, seed)).collect();
    assert!(waits.iter().all(|wait| (80..=120).contains(wait)));
    // Seeds that lie side by side, as offsets do, are spread over the whole of it.
    for part in [80..90, 90..100, 100..110, 110..121] {
        let hits = waits.iter().filter(|wait| part.contains(*wait)).count();
        assert!((200..300).contains(&hits), "{part:?}: {hits} of 1,000");
    }
    let again: Vec<u64> = (0..1_000).map(|seed| wait(20, seed)).collect();
    assert_eq!(waits, again);
    assert!((0..100).all(|seed| wait(0, seed) == 100));
    assert!(
        (0..100).all(|seed| wait(500, seed) <= 200),
        "no more than all of it"
    );
}

#[test]
fn a_ladder_rises() {
    let not_rising = |name: &str| Err(LadderError::NotRising(name.to_owned()));
    for (name, tiers, expected) in [
        ("no rung", vec![], Err(LadderError::Empty)),
        (
            "falling",
            vec![tier("5m", 300), tier("1m", 60)],
            not_rising("1m"),
        ),
        ("level", vec![tier("a", 1), tier("b", 1)], not_rising("b")),
        ("one", vec![tier("1m", 60)], Ok(())),
    ] {
        assert_eq!(Ladder::new(tiers).map(drop), expected, "{name}");
    }
}

#[test]
fn what_is_due_is_delivered_and_what_is_not_waits() {
    for (name, due_at, due) in [
        ("long ago", Some(0), true),
        ("now", Some(NOW), true),
        ("a moment later", Some(NOW + 1), false),
        ("no time at all", None, true),
    ] {
        let waiting = DeliveryReady {
            attempts: 2,
            due_at,
            last_error: Some(failure("transient", "http_503")),
            ..delivery()
        };
        let source = source("herald.retries.1m");
        let verdict = World::new().ask(|context| process(waiting.clone(), &source, context));
        let expected = if due {
            // All but its time goes along: the attempts that were made count.
            let again = DeliveryReady {
                due_at: None,
                ..waiting
            };
            Verdict::Emit(vec![Output::Deliver(again)])
        } else {
            Verdict::Defer(due_at.unwrap())
        };
        assert_eq!(verdict, expected, "{name}");
    }
}
