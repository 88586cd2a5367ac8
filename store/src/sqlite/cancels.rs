//! Marks of those who want to cancel, and how their races with attempts ended.

use rusqlite::{Connection, OptionalExtension, params};

use herald_schemas::ids::UnixMs;

use crate::{CancelMark, Layout, Race, RaceEnd, Standing, StoreError};

pub(super) fn mark(
    connection: &Connection,
    marks: &[CancelMark],
    layout: Layout,
    now: UnixMs,
) -> Result<Vec<Standing>, StoreError> {
    let mut put = connection
        .prepare_cached("INSERT INTO cancel_marks VALUES (?, ?, ?) ON CONFLICT DO NOTHING")?;
    let mut claimed = connection.prepare_cached("SELECT max(attempt) FROM claims WHERE id = ?")?;
    let mut outcome = connection.prepare_cached(
        "SELECT attempt, outcome FROM claims WHERE id = ? AND outcome IS NOT NULL
         ORDER BY attempt DESC LIMIT 1",
    )?;
    let mut standing = |mark: &CancelMark| -> rusqlite::Result<Standing> {
        let id = mark.id.as_bytes();
        let kept_until = layout.kept_beside(mark.send_at, now);
        put.execute(params![id, mark.mark, kept_until])?;
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
    race: &Race,
    proposal: RaceEnd,
    layout: Layout,
    now: UnixMs,
) -> Result<RaceEnd, StoreError> {
    let (id, attempt) = (race.id.as_bytes(), race.attempt);
    let kept_until = layout.kept_beside(race.send_at, now);
    connection
        .prepare_cached("INSERT INTO races VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![id, attempt, proposal.as_str(), kept_until])?;
    let ended: String = connection
        .prepare_cached("SELECT ended FROM races WHERE id = ? AND attempt = ?")?
        .query_row(params![id, attempt], |row| row.get(0))?;
    RaceEnd::read(&ended)
}

pub(super) fn expire(connection: &Connection, now: UnixMs, limit: usize) -> Result<(), StoreError> {
    for (table, key) in [("cancel_marks", "id, mark"), ("races", "id, attempt")] {
        let sql = format!(
            "DELETE FROM {table} WHERE ({key}) IN
             (SELECT {key} FROM {table} WHERE kept_until <= ? ORDER BY kept_until LIMIT ?)"
        );
        connection
            .prepare_cached(&sql)?
            .execute(params![now, limit as i64])?;
    }
    Ok(())
}
