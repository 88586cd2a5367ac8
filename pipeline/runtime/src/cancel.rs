//! Withdrawing notifications that are not sent yet.
//!
//! Whoever cancels writes a mark and then reads the claim; deliver writes its claim and then reads
//! the marks: one of the two always sees the other. Where both do, [`Store::end_race`] says who was
//! first, and both obey. So a notification that was cancelled is never sent, and one of which it was
//! said that it cannot be cancelled any more is not.

use herald_schemas::{ids::UnixMs, records::StatusChanged, rows::NotificationRow, words::Status};
use herald_stages::{
    Output, Settings,
    deliver::{Settled, status_after},
};
use herald_store::{CancelMark, RaceEnd, Standing, Store, StoreError};

/// What became of the wish to cancel one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    let mut lost = Vec::new();
    let mut ends = Vec::with_capacity(asked.len());
    for (mark, standing) in marks.into_iter().zip(standing) {
        let end = match stands(&standing, settings) {
            Stands::Free => Cancelled::Yes,
            Stands::Ended(status) if from.contains(&status) => Cancelled::Yes,
            Stands::Ended(status) => Cancelled::No(status),
            Stands::Racing(attempt) => {
                let race = store.end_race(mark.id, &mark.recipient, attempt, RaceEnd::Sent);
                match race.await? {
                    RaceEnd::Cancelled => Cancelled::Yes,
                    RaceEnd::Sent => Cancelled::No(Status::Processing),
                }
            }
        };
        if end != Cancelled::Yes {
            lost.push(mark);
        }
        ends.push(end);
    }
    // Before anybody is told: a mark that stays would cancel the next attempt.
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
    }
}

/// What the claims say.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    /// Nobody has claimed it.
    Free,
    /// Its newest attempt has ended, and this is where it is.
    Ended(Status),
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
        .and_then(|(_, body)| Settled::from_bytes(body).ok());
    match ended {
        Some(settled) => Stands::Ended(status_after(&settled, settings)),
        None => Stands::Racing(attempt),
    }
}
