//! Marks of those who want to cancel, and how their races with attempts ended.

use rusqlite::{Connection, OptionalExtension, params};

use herald_schemas::ids::NotificationId;

use crate::{CancelMark, RaceEnd, Standing, StoreError};

pub(super) fn mark(
    connection: &Connection,
    marks: &[CancelMark],
) -> Result<Vec<Standing>, StoreError> {
    let mut put = connection
        .prepare_cached("INSERT INTO cancel_marks VALUES (?, ?) ON CONFLICT DO NOTHING")?;
    let mut claimed = connection.prepare_cached("SELECT max(attempt) FROM claims WHERE id = ?")?;
    let mut outcome = connection.prepare_cached(
        "SELECT attempt, outcome FROM claims WHERE id = ? AND outcome IS NOT NULL
         ORDER BY attempt DESC LIMIT 1",
    )?;
    let mut standing = |CancelMark { id, mark, .. }: &CancelMark| -> rusqlite::Result<Standing> {
        let id = id.as_bytes();
        put.execute(params![id, mark])?;
        Ok(Standing {
            claimed: claimed.query_row([id], |row| row.get(0))?,
            outcome: outcome
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?,
        })
    };
    Ok(marks.iter().map(&mut standing).collect::<Result<_, _>>()?)
}

pub(super) fn unmark(connection: &Connection, marks: &[CancelMark]) -> Result<(), StoreError> {
    let mut take =
        connection.prepare_cached("DELETE FROM cancel_marks WHERE id = ? AND mark = ?")?;
    for CancelMark { id, mark, .. } in marks {
        take.execute(params![id.as_bytes(), mark])?;
    }
    Ok(())
}

pub(super) fn end_race(
    connection: &Connection,
    id: NotificationId,
    attempt: i32,
    proposal: RaceEnd,
) -> Result<RaceEnd, StoreError> {
    connection
        .prepare_cached("INSERT INTO races VALUES (?, ?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![id.as_bytes(), attempt, proposal.as_str()])?;
    let ended: String = connection
        .prepare_cached("SELECT ended FROM races WHERE id = ? AND attempt = ?")?
        .query_row(params![id.as_bytes(), attempt], |row| row.get(0))?;
    RaceEnd::read(&ended)
}
