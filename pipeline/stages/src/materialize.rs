//! The stage materialize: what status records make of a notification's row, and of the counts.
//!
//! A row's status moves by (terminal, attempt, rank), never by clock, so that any order and any
//! repetition of the same records ends in the same row.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use herald_schemas::{
    ids::NotificationId,
    records::{Failure, Identity, StatusChanged},
    rows::{CountKey, NotificationRow, RowWrite, Tally},
    words::Status,
};

/// What a batch of status records changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// One a notification, in the order in which they first came.
    pub writes: Vec<RowWrite>,
    /// What is added to the counts; no zeros.
    pub counts: Vec<(CountKey, i64)>,
    /// What is added to the tallies; no zeros.
    pub tallies: Vec<(Tally, i64)>,
}

/// Folds `changes` into `rows` (those that there are, by id; they are brought up to date) and says
/// what is to be written.
pub fn fold<'a>(
    rows: &mut HashMap<NotificationId, NotificationRow>,
    changes: impl IntoIterator<Item = &'a StatusChanged>,
) -> Batch {
    let mut writes: Vec<RowWrite> = Vec::new();
    let mut places: HashMap<NotificationId, usize> = HashMap::new();
    let mut counts: BTreeMap<CountKey, i64> = BTreeMap::new();
    let mut tallies: BTreeMap<Tally, i64> = BTreeMap::new();
    for change in changes {
        let id = change.identity.id;
        let before = rows.get(&id);
        let merged = merge(before, change);
        if before.is_some_and(|before| *before == merged) && change.calls.is_empty() {
            continue;
        }
        let (old, new) = (before.map(CountKey::of), CountKey::of(&merged));
        if old != Some(new) {
            *counts.entry(new).or_default() += 1;
            if let Some(old) = old {
                *counts.entry(old).or_default() -= 1;
            }
        }
        let (old, new) = (
            before.map(Tally::of).unwrap_or_default(),
            Tally::of(&merged),
        );
        if old != new {
            for (tally, number) in new.into_iter().flatten() {
                *tallies.entry(tally).or_default() += number;
            }
            for (tally, number) in old.into_iter().flatten() {
                *tallies.entry(tally).or_default() -= number;
            }
        }
        let is_new = before.is_none_or(|before| before.identity != merged.identity);
        let message_is_new = merged.message.as_ref() != before.and_then(|b| b.message.as_ref());
        let place = *places.entry(id).or_insert_with(|| {
            writes.push(RowWrite {
                row: merged.clone(),
                is_new: false,
                writes_message: false,
                calls: Vec::new(),
            });
            writes.len() - 1
        });
        let write = &mut writes[place];
        write.is_new |= is_new;
        write.writes_message |= message_is_new;
        write.calls.extend(change.calls.iter().cloned());
        write.row = merged.clone();
        rows.insert(id, merged);
    }
    Batch {
        writes,
        counts: changed(counts),
        tallies: changed(tallies),
    }
}

fn changed<Key>(changes: BTreeMap<Key, i64>) -> Vec<(Key, i64)> {
    let changes = changes.into_iter();
    changes.filter(|(_, change)| *change != 0).collect()
}

/// A row and one more status record.
pub fn merge(before: Option<&NotificationRow>, change: &StatusChanged) -> NotificationRow {
    let fresh = row_of(change);
    let Some(before) = before else { return fresh };
    let newer = order(&fresh) > order(before);
    let winner = if newer { &fresh } else { before };
    NotificationRow {
        identity: earlier(&before.identity, &fresh.identity).clone(),
        // Facts are kept whichever record brings them.
        message: smaller(&before.message, &fresh.message),
        provider_message_id: smaller(&before.provider_message_id, &fresh.provider_message_id),
        delivery_status: before.delivery_status.clone(),
        status: winner.status,
        attempts: winner.attempts,
        updated_at: winner.updated_at,
        sent_at: winner.sent_at,
        cancelled_at: winner.cancelled_at,
        last_error: winner.last_error.clone(),
    }
}

/// What decides which of two states stands. Beyond (terminal, attempt, rank), which only a
/// duplicate shares: the earlier one, then the error, so that there always is one answer.
type Order<'a> = (
    bool,
    i32,
    u8,
    Reverse<i64>,
    Option<(&'a str, &'a str, &'a str)>,
);

fn order(row: &NotificationRow) -> Order<'_> {
    (
        row.status.is_terminal(),
        row.attempts,
        row.status.rank(),
        Reverse(row.updated_at),
        row.last_error.as_ref().map(
            |Failure {
                 kind,
                 code,
                 message,
             }| { (kind.as_str(), code.as_str(), message.as_str()) },
        ),
    )
}

/// Who it is for and whence, as it was said first: match names the record that it read, render
/// another one, and a producer that sends again under the same id may say something else.
fn earlier<'a>(a: &'a Identity, b: &'a Identity) -> &'a Identity {
    let said = |identity: &'a Identity| {
        (
            identity.created_at,
            identity.catalog_version,
            &identity.source,
            identity,
        )
    };
    if said(b) < said(a) { b } else { a }
}

/// Of two facts that should be one, always the same.
fn smaller<T: Ord + Clone>(a: &Option<T>, b: &Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (a, b) => a.clone().or_else(|| b.clone()),
    }
}

fn row_of(change: &StatusChanged) -> NotificationRow {
    NotificationRow {
        identity: change.identity.clone(),
        message: change.message.clone(),
        status: change.status,
        attempts: change.attempts,
        updated_at: change.at,
        sent_at: (change.status == Status::Sent).then_some(change.at),
        cancelled_at: (change.status == Status::Cancelled).then_some(change.at),
        provider_message_id: change.provider_message_id.clone(),
        last_error: change.error.clone(),
        delivery_status: None,
    }
}
