//! Withdrawing notifications that are not sent yet.
//!
//! Whoever cancels writes a mark and then reads the claim; deliver writes its claim and then reads
//! the marks: one of the two always sees the other. What is true is what stands at the end of the
//! attempt's race, and [`Store::end_race`] lets the first proposal stand:
//!
//! * Who cancels and sees no claim of the next attempt proposes that it is withdrawn, and promises
//!   so only if that stands.
//! * Who cancels and sees an attempt being made proposes that it is sent, and learns whether
//!   somebody else has withdrawn it.
//! * Deliver, where it sees a mark, proposes that it is sent: a mark alone withdraws nothing. Its
//!   claim may be one that comes again after a crash, when the call may have been made.
//!
//! So a notification that was cancelled is never sent, and one of which it was said that it cannot
//! be cancelled any more goes on, whoever dies in between. `model` tries every order of the steps.

use futures_util::{StreamExt, TryStreamExt, stream};
use herald_schemas::{ids::UnixMs, records::StatusChanged, rows::NotificationRow, words::Status};
use herald_stages::{
    Output, Settings,
    deliver::{Settled, status_after},
};
use herald_store::{CancelMark, Race, RaceEnd, Standing, Store, StoreError};

#[cfg(test)]
mod model;

/// How many races are ended at once.
const RACES_AT_ONCE: usize = 32;

/// What deliver proposes for an attempt that somebody wants to cancel.
pub(crate) const OF_DELIVER: RaceEnd = RaceEnd::Sent;

/// What became of the wish to cancel one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cancelled {
    /// It is never sent.
    Yes,
    /// It is in this status, and goes on as if nobody had asked.
    No(Status),
}

/// Cancels what is in one of the statuses `from`; answers in the order of the rows. Those that were
/// cancelled before are cancelled again.
///
/// The rows may be behind: what counts is what stands about their claims.
pub async fn cancel(
    store: &dyn Store,
    rows: &[NotificationRow],
    from: &[Status],
    settings: &Settings,
) -> Result<Vec<Cancelled>, StoreError> {
    let asked: Vec<&NotificationRow> = rows.iter().filter(|row| is_open(row, from)).collect();
    let marks: Vec<CancelMark> = asked.iter().map(|row| mark(row)).collect();
    let standing = store.mark_cancelled(&marks).await?;
    let ends: Vec<_> = marks
        .iter()
        .zip(&standing)
        .map(|(mark, standing)| end(store, mark, next(stands(standing, settings), from)))
        .collect();
    let ends: Vec<Cancelled> = stream::iter(ends)
        .buffered(RACES_AT_ONCE)
        .try_collect()
        .await?;
    // They would withdraw nothing, but make the next attempt look.
    let lost = marks.into_iter().zip(&ends);
    let lost = lost.filter_map(|(mark, end)| (*end != Cancelled::Yes).then_some(mark));
    let lost: Vec<CancelMark> = lost.collect();
    if !lost.is_empty() {
        store.unmark_cancelled(&lost).await?;
    }
    let mut ends = ends.into_iter();
    Ok(rows
        .iter()
        .map(|row| match is_open(row, from) {
            true => ends.next().unwrap_or(Cancelled::No(row.status)),
            false if row.status == Status::Cancelled => Cancelled::Yes,
            false => Cancelled::No(row.status),
        })
        .collect())
}

/// The last status of a row that was cancelled.
pub fn status(row: &NotificationRow, at: UnixMs) -> Output {
    Output::Status(StatusChanged {
        identity: row.identity.clone(),
        status: Status::Cancelled,
        attempts: row.attempts,
        at,
        message: None,
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    })
}

fn is_open(row: &NotificationRow, from: &[Status]) -> bool {
    from.contains(&row.status)
}

fn mark(row: &NotificationRow) -> CancelMark {
    CancelMark {
        id: row.identity.id,
        recipient: row.identity.recipient.clone(),
        mark: fastrand::i32(1..),
        send_at: row.identity.send_at,
    }
}

/// What the claims say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stands {
    /// Nobody has claimed it.
    Free,
    /// Its newest attempt has ended, and this is where it is.
    Ended(i32, Status),
    /// Its newest attempt is being made.
    Racing(i32),
}

fn stands(standing: &Standing, settings: &Settings) -> Stands {
    let Some(attempt) = standing.claimed else {
        return Stands::Free;
    };
    let ended = standing
        .outcome
        .as_ref()
        .filter(|(of, _)| *of >= attempt)
        .and_then(|(of, body)| Some((*of, Settled::from_bytes(body).ok()?)));
    match ended {
        Some((of, settled)) => Stands::Ended(of, status_after(&settled, settings)),
        None => Stands::Racing(attempt),
    }
}

/// What whoever cancels does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Answer(Cancelled),
    Propose(i32, RaceEnd),
}

async fn end(store: &dyn Store, mark: &CancelMark, next: Next) -> Result<Cancelled, StoreError> {
    match next {
        Next::Answer(answer) => Ok(answer),
        Next::Propose(attempt, proposal) => {
            let race = Race {
                id: mark.id,
                recipient: mark.recipient.clone(),
                attempt,
                send_at: mark.send_at,
            };
            store.end_race(&race, proposal).await.map(answer)
        }
    }
}

fn next(stands: Stands, from: &[Status]) -> Next {
    match stands {
        Stands::Free => Next::Propose(1, RaceEnd::Cancelled),
        Stands::Ended(attempt, Status::Retrying) if from.contains(&Status::Retrying) => {
            Next::Propose(attempt.saturating_add(1), RaceEnd::Cancelled)
        }
        Stands::Ended(_, status) => Next::Answer(Cancelled::No(status)),
        Stands::Racing(attempt) => Next::Propose(attempt, RaceEnd::Sent),
    }
}

/// What the end of the race says.
fn answer(end: RaceEnd) -> Cancelled {
    match end {
        RaceEnd::Cancelled => Cancelled::Yes,
        RaceEnd::Sent => Cancelled::No(Status::Processing),
    }
}
