//! materialize: the same status records end in the same row, whatever way they come.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use herald_schemas::{
    ids::NotificationId,
    records::{Attempt, Identity, Message, StatusChanged},
    rows::{CountKey, NotificationRow, Tally},
    words::{Channel, Priority, Status},
};
use herald_stages::materialize::{Batch, fold, merge};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestCaseResult};

use crate::samples::{NOW, failure, identity, message, some};

fn of(status: Status, attempts: i32, at: i64) -> StatusChanged {
    StatusChanged {
        identity: identity(),
        status,
        attempts,
        at: NOW + at,
        message: None,
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    }
}

/// The row that is left of these records, one by one.
fn merged(changes: &[StatusChanged]) -> NotificationRow {
    let fold = |row: Option<NotificationRow>, change| Some(merge(row.as_ref(), change));
    changes.iter().fold(None, fold).unwrap()
}

#[test]
fn of_two_states_one_stands_whichever_comes_first() {
    use Status::{Cancelled, Failed, Pending, Processing, Retrying, Scheduled, Sent};
    // (status, attempts, time): the first of each pair stands.
    let table = [
        ("pending over scheduled", (Pending, 0, 0), (Scheduled, 0, 9)),
        (
            "processing over pending",
            (Processing, 0, 0),
            (Pending, 0, 9),
        ),
        (
            "retrying over processing",
            (Retrying, 1, 0),
            (Processing, 1, 9),
        ),
        (
            "a later attempt over a higher rank",
            (Processing, 2, 0),
            (Retrying, 1, 9),
        ),
        ("an end over any attempt", (Failed, 1, 0), (Retrying, 9, 9)),
        ("sent over failed", (Sent, 1, 0), (Failed, 1, 9)),
        ("failed over cancelled", (Failed, 1, 0), (Cancelled, 1, 9)),
        (
            "a later end over an earlier one",
            (Failed, 2, 0),
            (Sent, 1, 9),
        ),
        ("of twice the same, the earlier", (Sent, 1, 0), (Sent, 1, 9)),
    ];
    for (name, stands, falls) in table {
        let [stands, falls] =
            [stands, falls].map(|(status, attempts, at)| of(status, attempts, at));
        let expected = merged(std::slice::from_ref(&stands));
        assert_eq!(merged(&[stands.clone(), falls.clone()]), expected, "{name}");
        assert_eq!(
            merged(&[falls, stands]),
            expected,
            "{name}, the other way round"
        );
    }
}

#[test]
fn facts_are_kept_whichever_record_brings_them() {
    let first = StatusChanged {
        message: Some(message("Hello")),
        ..of(Status::Pending, 0, 0)
    };
    let retrying = StatusChanged {
        error: Some(failure("transient", "http_503")),
        ..of(Status::Retrying, 1, 1)
    };
    let sent = StatusChanged {
        provider_message_id: some("m-1"),
        ..of(Status::Sent, 2, 2)
    };
    for changes in [[&first, &retrying, &sent], [&sent, &first, &retrying]] {
        let row = merged(&changes.map(Clone::clone));
        assert_eq!(row.message, first.message);
        assert_eq!(row.provider_message_id, sent.provider_message_id);
        assert_eq!((row.status, row.attempts), (Status::Sent, 2));
        assert_eq!((row.sent_at, row.last_error), (Some(sent.at), None));
    }
}

/// match and render each say where the record came from that they read.
#[test]
fn where_a_notification_came_from_is_where_it_came_from_first() {
    let from = |source: &str, status| StatusChanged {
        identity: Identity {
            source: some(source),
            ..identity()
        },
        ..of(status, 0, 0)
    };
    let matched = from("herald.events/0/17", Status::Pending);
    let sent = from("herald.notifications.high/0/3", Status::Sent);
    for changes in [[&matched, &sent], [&sent, &matched]] {
        let row = merged(&changes.map(Clone::clone));
        assert_eq!(row.identity.source.as_deref(), Some("herald.events/0/17"));
        assert_eq!(row.status, Status::Sent);
    }
}

const IDS: i64 = 3;

fn id(number: i64) -> NotificationId {
    // A day apart, so that their counts are.
    NotificationId::derived(NOW + number * 86_400_000, &[b"n"])
}

/// Who a notification is for is said by several who may differ: match and render name different
/// sources, and a producer may send again under the same id.
fn identities() -> impl Strategy<Value = Identity> {
    let words = (select(Channel::ALL), select(Priority::ALL));
    (0..IDS, 0..3_i64, option::of(0..3_u8), words).prop_map(
        |(number, created_at, source, (channel, priority))| Identity {
            id: id(number),
            created_at: NOW + created_at,
            source: source.map(|place| format!("t/0/{place}")),
            channel,
            priority,
            ..identity()
        },
    )
}

fn changes() -> impl Strategy<Value = StatusChanged> {
    let errors = option::of(select(vec!["http_500", "http_503"]));
    let calls = vec((1..3_i32, 0..2_i32), 0..3);
    let facts = (
        option::of(select(vec!["Hello", "Hi"])),
        option::of(select(vec!["m-1", "m-2"])),
        errors,
        calls,
    );
    (identities(), select(Status::ALL), 0..4_i32, 0..4_i64, facts).prop_map(
        |(identity, status, attempts, at, (content, provider_message_id, error, calls))| {
            StatusChanged {
                identity,
                message: content.map(message),
                calls: calls.into_iter().map(call).collect(),
                provider_message_id: provider_message_id.and_then(some),
                error: error.map(|code| failure("transient", code)),
                ..of(status, attempts, at)
            }
        },
    )
}

fn call((number, step): (i32, i32)) -> Attempt {
    Attempt {
        number,
        step,
        provider: "primary".to_owned(),
        started_at: NOW,
        latency_ms: 1,
        error: None,
        response: None,
    }
}

/// Records, and a way for them to come: in another order, some of them twice, in batches.
fn histories() -> impl Strategy<Value = (Vec<StatusChanged>, Vec<Vec<StatusChanged>>)> {
    vec(changes(), 1..12).prop_flat_map(|changes| {
        let indices: Vec<usize> = (0..changes.len()).collect();
        let twice = proptest::sample::subsequence(indices.clone(), 0..=changes.len());
        (Just(changes), twice, 1..5_usize).prop_flat_map(move |(changes, twice, batch)| {
            let order = Just([indices.clone(), twice].concat()).prop_shuffle();
            (Just(changes), order, Just(batch)).prop_map(|(changes, order, batch)| {
                let come: Vec<StatusChanged> = order
                    .into_iter()
                    .map(|index| changes[index].clone())
                    .collect();
                let batches = come.chunks(batch).map(<[_]>::to_vec).collect();
                (changes, batches)
            })
        })
    })
}

/// A store that does what it is told, and no more.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    rows: HashMap<NotificationId, NotificationRow>,
    calls: BTreeSet<(NotificationId, i32, i32)>,
    counts: BTreeMap<CountKey, i64>,
    tallies: BTreeMap<Tally, i64>,
}

impl Kept {
    fn of(batches: &[Vec<StatusChanged>]) -> Self {
        let mut kept = Self::default();
        for changes in batches {
            // What materialize does: read, fold, write.
            let mut rows = kept.rows.clone();
            let Batch {
                writes,
                counts,
                tallies,
            } = fold(&mut rows, changes);
            for write in writes {
                let id = write.row.id();
                for call in &write.calls {
                    kept.calls.insert((id, call.number, call.step));
                }
                let before = kept.rows.get(&id);
                let mut row = write.row;
                if let Some(before) = before.filter(|_| !write.is_new) {
                    row.identity = before.identity.clone();
                    if !write.writes_message {
                        row.message = before.message.clone();
                    }
                }
                kept.rows.insert(id, row);
            }
            for (cell, change) in counts {
                assert_ne!(change, 0);
                *kept.counts.entry(cell).or_default() += change;
            }
            kept.counts.retain(|_, count| *count != 0);
            for (tally, change) in tallies {
                assert_ne!(change, 0);
                *kept.tallies.entry(tally).or_default() += change;
            }
            kept.tallies.retain(|_, number| *number != 0);
            assert_eq!(kept.rows, rows, "what is written is what was folded");
        }
        kept
    }
}

fn counted_once(kept: &Kept) -> TestCaseResult {
    let mut expected: BTreeMap<CountKey, i64> = BTreeMap::new();
    for row in kept.rows.values() {
        *expected.entry(CountKey::of(row)).or_default() += 1;
    }
    prop_assert_eq!(&kept.counts, &expected);
    let mut expected: BTreeMap<Tally, i64> = BTreeMap::new();
    for (tally, number) in kept.rows.values().flat_map(Tally::of).flatten() {
        *expected.entry(tally).or_default() += number;
    }
    expected.retain(|_, number| *number != 0);
    prop_assert_eq!(&kept.tallies, &expected);
    Ok(())
}

fn standing(row: &NotificationRow) -> (bool, i32, u8) {
    (row.status.is_terminal(), row.attempts, row.status.rank())
}

proptest! {
    #[test]
    fn any_order_any_repetition_and_any_batches_end_in_the_same_rows((plain, batches) in histories()) {
        let expected = Kept::of(&[plain]);
        counted_once(&expected)?;
        let kept = Kept::of(&batches);
        counted_once(&kept)?;
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn what_was_folded_in_already_changes_nothing((_, batches) in histories()) {
        let all = batches.concat();
        let mut rows = HashMap::new();
        fold(&mut rows, &all);
        let before = rows.clone();
        // As after a crash, from anywhere.
        for from in 0..all.len() {
            let Batch { writes, counts, tallies } = fold(&mut rows, &all[from..]);
            prop_assert_eq!(&rows, &before);
            prop_assert_eq!((&counts[..], &tallies[..]), (&[][..], &[][..]));
            // Calls are written again, under their own number and step; nothing else is new.
            prop_assert!(writes.iter().all(|w| !w.is_new && !w.writes_message && !w.calls.is_empty()));
        }
    }

    #[test]
    fn a_status_never_goes_backwards(changes in vec(changes(), 1..12)) {
        let mut row: Option<NotificationRow> = None;
        for change in changes {
            let change = StatusChanged { identity: identity(), ..change };
            let next = merge(row.as_ref(), &change);
            if let Some(row) = row {
                prop_assert!(standing(&next) >= standing(&row));
                prop_assert!(!row.status.is_terminal() || next.status.is_terminal());
            }
            row = Some(next);
        }
    }

    #[test]
    fn the_three_that_decide_are_the_highest_that_came(changes in vec(changes(), 1..12)) {
        let changes: Vec<StatusChanged> = changes
            .into_iter()
            .map(|change| StatusChanged { identity: identity(), ..change })
            .collect();
        let highest = changes
            .iter()
            .map(|c| (c.status.is_terminal(), c.attempts, c.status.rank()))
            .max();
        prop_assert_eq!(Some(standing(&merged(&changes))), highest);
    }

    #[test]
    fn three_records_may_be_merged_from_either_end(a in changes(), b in changes(), c in changes()) {
        let [a, b, c] = [a, b, c].map(|change| StatusChanged {
            identity: Identity { id: id(0), ..change.identity },
            ..change
        });
        prop_assert_eq!(merged(&[a.clone(), b.clone(), c.clone()]), merged(&[c, b, a]));
    }
}

#[test]
fn a_batch_writes_each_row_once_and_counts_where_it_ends() {
    let first = StatusChanged {
        message: Some(Message {
            subject: some("Hi"),
            ..message("Hello")
        }),
        ..of(Status::Pending, 0, 0)
    };
    let sent = StatusChanged {
        calls: vec![call((1, 0)), call((1, 1))],
        ..of(Status::Sent, 1, 5)
    };
    let mut rows = HashMap::new();
    let Batch { writes, counts, .. } = fold(&mut rows, [&first, &sent]);
    assert_eq!(writes.len(), 1);
    assert_eq!((writes[0].is_new, writes[0].writes_message), (true, true));
    assert_eq!(
        (writes[0].row.status, writes[0].calls.len()),
        (Status::Sent, 2)
    );
    let counted: Vec<(Status, i64)> = counts.iter().map(|(cell, n)| (cell.status, *n)).collect();
    assert_eq!(
        counted,
        [(Status::Sent, 1)],
        "it was never pending at the end of a batch"
    );

    let one_by_one = |change| {
        let mut rows = HashMap::new();
        fold(&mut rows, [&first]);
        fold(&mut rows, [change]).counts
    };
    let moved: Vec<(Status, i64)> = one_by_one(&sent)
        .into_iter()
        .map(|(cell, n)| (cell.status, n))
        .collect();
    assert_eq!(moved, [(Status::Pending, -1), (Status::Sent, 1)]);
}

/// A notification that was accepted at 1,000 and sent at `at`.
fn sent(at: i64, identity: Identity) -> NotificationRow {
    let change = StatusChanged {
        identity: Identity {
            created_at: 1_000,
            ..identity
        },
        at,
        ..of(Status::Sent, 1, 0)
    };
    merge(None, &change)
}

#[test]
fn how_long_it_took_is_told_by_the_hour_in_which_it_was_sent() {
    let hour = 3_600_000;
    for (at, expected) in [
        (1_250, [(Tally::Sent(0), 1), (Tally::SentMs(0), 250)]),
        (
            5 * hour,
            [(Tally::Sent(5), 1), (Tally::SentMs(5), 5 * hour - 1_000)],
        ),
        // Clocks that do not agree.
        (900, [(Tally::Sent(0), 1), (Tally::SentMs(0), 0)]),
    ] {
        let told: Vec<_> = Tally::of(&sent(at, identity()))
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(told, expected, "{at}");
    }
    for created_at in [i64::MIN, i64::MAX] {
        let mut row = sent(hour, identity());
        row.identity.created_at = created_at;
        let told = Tally::of(&row).into_iter().flatten();
        assert!(
            told.map(|(_, number)| number)
                .all(|n| (0..400_000_000_000).contains(&n))
        );
    }
}

#[test]
fn only_what_the_api_has_requeued_is_a_requeued_letter() {
    let repeats = Identity {
        requeued_from: Some(id(7)),
        source: None,
        ..identity()
    };
    let told = |identity| {
        let row = merge(
            None,
            &StatusChanged {
                identity,
                ..of(Status::Pending, 0, 0)
            },
        );
        Tally::of(&row).into_iter().flatten().collect::<Vec<_>>()
    };
    let day = (repeats.id.unix_ms() / 86_400_000) as i32;
    assert_eq!(told(repeats.clone()), [(Tally::Requeued(day), 1)]);
    let by_a_producer = Identity {
        source: some("notifications.high/0/7"),
        ..repeats
    };
    assert_eq!(told(by_a_producer), []);
}

#[test]
fn every_tally_reads_back_as_it_is_written() {
    for tally in [
        Tally::Sent(-1),
        Tally::SentMs(0),
        Tally::Requeued(7),
        Tally::DeadLetters(i32::MAX),
    ] {
        let (word, at) = tally.parts();
        assert_eq!(Tally::from_parts(word, at), Some(tally));
    }
    assert_eq!(Tally::from_parts("sent", 1), None);
}
