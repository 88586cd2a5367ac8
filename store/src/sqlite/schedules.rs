//! Notifications that wait for their time.

use herald_schemas::ids::{NotificationId, UnixMs};
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::{Due, ScheduledRow, StoreError};

/// A row's id.
fn id(bytes: [u8; 16]) -> NotificationId {
    NotificationId::from_uuid(Uuid::from_bytes(bytes))
}

pub(super) fn own(
    connection: &Connection,
    shard: i32,
    owner: &str,
    now: UnixMs,
) -> Result<Due, StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO schedules VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET owner = ?2",
        )?
        .execute(params![shard, owner, now, [0_u8; 16]])?;
    let place = connection
        .prepare_cached("SELECT send_at, id FROM schedules WHERE shard = ?")?
        .query_row([shard], |row| Ok((row.get(0)?, id(row.get(1)?))))?;
    Ok(place)
}

pub(super) fn put(
    connection: &Connection,
    shard: i32,
    rows: &[ScheduledRow],
) -> Result<(), StoreError> {
    let mut put =
        connection.prepare_cached("INSERT OR REPLACE INTO scheduled VALUES (?, ?, ?, ?)")?;
    for row in rows {
        put.execute(params![shard, row.send_at, row.id.as_bytes(), row.body])?;
    }
    Ok(())
}

pub(super) fn due(
    connection: &Connection,
    shard: i32,
    (send_at, from): Due,
    now: UnixMs,
    limit: usize,
) -> Result<Vec<ScheduledRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT send_at, id, body FROM scheduled
         WHERE shard = ? AND (send_at, id) > (?, ?) AND send_at <= ?
         ORDER BY send_at, id LIMIT ?",
    )?;
    let rows = statement.query_map(
        params![shard, send_at, from.as_bytes(), now, limit as i64],
        |row| {
            Ok(ScheduledRow {
                send_at: row.get(0)?,
                id: id(row.get(1)?),
                body: row.get(2)?,
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn advance(
    connection: &Connection,
    shard: i32,
    owner: &str,
    (send_at, to): Due,
) -> Result<bool, StoreError> {
    let advanced = connection
        .prepare_cached("UPDATE schedules SET send_at = ?, id = ? WHERE shard = ? AND owner = ?")?
        .execute(params![send_at, to.as_bytes(), shard, owner])?;
    if advanced == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached("DELETE FROM scheduled WHERE shard = ? AND (send_at, id) <= (?, ?)")?
        .execute(params![shard, send_at, to.as_bytes()])?;
    Ok(true)
}
