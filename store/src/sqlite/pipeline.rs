//! What the pipeline keeps besides notifications: exact counts, claims, batches.

use herald_schemas::{
    ids::{BatchId, EventId, UnixMs},
    records::BatchAccepted,
    rows::{CountKey, Tally},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    Cell, Claim, Claimed, Counted, HOURS_KEPT_MS, OF_ALL, Outcome, StoreError, Totals, json,
    to_json,
};

fn counted_to(connection: &Connection, part: i32) -> Result<i64, StoreError> {
    let offset = connection
        .prepare_cached("SELECT at FROM totals WHERE part = ?")?
        .query_row([part], |row| row.get(0))
        .optional()?;
    Ok(offset.unwrap_or(0))
}

pub(super) fn totals(connection: &Connection, of: Counted) -> Result<Totals, StoreError> {
    let part = of.part();
    // Both of one moment.
    connection.execute_batch("BEGIN")?;
    let read = || {
        let mut totals = Totals {
            offset: counted_to(connection, part)?,
            ..Totals::default()
        };
        let mut statement = connection.prepare_cached(
            "SELECT day, status, channel, priority, number FROM counts WHERE part = ? AND number <> 0",
        )?;
        let mut rows = statement.query([part])?;
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
            let cell = Cell::read(row.get(0)?, text(1)?, text(2)?, text(3)?)?;
            totals.add(cell, row.get(4)?);
        }
        Ok(totals)
    };
    let answer = read();
    connection.execute_batch("COMMIT")?;
    answer
}

pub(super) fn advance_totals(
    connection: &Connection,
    of: Counted,
    from: i64,
    to: i64,
    counts: &[(CountKey, i64)],
    tallies: &[(Tally, i64)],
) -> Result<bool, StoreError> {
    let part = of.part();
    if counted_to(connection, part)? != from {
        return Ok(false);
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO totals VALUES (?, ?)")?
        .execute([i64::from(part), to])?;
    let mut add = connection.prepare_cached(
        "INSERT INTO counts VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET number = number + ?6",
    )?;
    for (key, change) in counts {
        add.execute(params![
            part,
            key.day,
            key.status.as_str(),
            key.channel.as_str(),
            key.priority.as_str(),
            change
        ])?;
    }
    for (tally, change) in tallies {
        let (word, at) = tally.parts();
        add.execute(params![part, at, word, OF_ALL, OF_ALL, change])?;
    }
    Ok(true)
}

pub(super) fn claim(
    connection: &Connection,
    claims: &[Claim],
    outcomes: &[Outcome],
) -> Result<Vec<Claimed>, StoreError> {
    let mut put_outcome = connection.prepare_cached(
        "INSERT INTO claims VALUES (?1, ?2, '', ?3)
         ON CONFLICT DO UPDATE SET outcome = ?3",
    )?;
    for outcome in outcomes {
        put_outcome.execute(params![
            outcome.id.as_bytes(),
            outcome.attempt,
            outcome.body
        ])?;
    }
    let mut put_claim = connection.prepare_cached(
        "INSERT INTO claims VALUES (?1, ?2, ?3, NULL) ON CONFLICT DO UPDATE SET worker = ?3",
    )?;
    for claim in claims {
        put_claim.execute(params![claim.id.as_bytes(), claim.attempt, claim.worker])?;
    }
    let mut newest = connection.prepare_cached(
        "SELECT attempt, outcome FROM claims WHERE id = ? AND outcome IS NOT NULL
         ORDER BY attempt DESC LIMIT 1",
    )?;
    let mut marked =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM cancel_marks WHERE id = ?)")?;
    let mut stand = |claim: &Claim| -> rusqlite::Result<Claimed> {
        let id = claim.id.as_bytes();
        Ok(Claimed {
            outcome: newest
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?,
            cancel_marked: marked.query_row([id], |row| row.get(0))?,
        })
    };
    Ok(claims.iter().map(&mut stand).collect::<Result<_, _>>()?)
}

pub(super) fn write_batches(
    connection: &Connection,
    batches: &[BatchAccepted],
) -> Result<(), StoreError> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO batches VALUES (?, ?)")?;
    for batch in batches {
        put.execute(params![batch.id.as_bytes(), to_json(batch)?])?;
    }
    Ok(())
}

pub(super) fn batch(
    connection: &Connection,
    id: BatchId,
) -> Result<Option<BatchAccepted>, StoreError> {
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM batches WHERE id = ?")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    body.map(|text| json("batches.body", &text)).transpose()
}

/// Takes away the tallies that are too old.
pub(super) fn expire_tallies(
    connection: &Connection,
    now: UnixMs,
    retention_ms: i64,
) -> Result<(), StoreError> {
    let first_hour = Tally::hour(now - HOURS_KEPT_MS);
    let first_day = Tally::hour(now - retention_ms).div_euclid(24);
    let old = [
        Tally::Sent(first_hour),
        Tally::SentMs(first_hour),
        Tally::Requeued(first_day),
        Tally::DeadLetters(first_day),
    ];
    let mut delete = connection
        .prepare_cached("DELETE FROM counts WHERE channel = ? AND status = ? AND day < ?")?;
    for (word, first) in old.map(Tally::parts) {
        delete.execute(params![OF_ALL, word, first])?;
    }
    Ok(())
}

/// Takes away what was made before a time. A notification's claims stay as long as it does, which
/// may be long after: it may be scheduled.
pub(super) fn expire(
    connection: &Connection,
    made_before: UnixMs,
    limit: usize,
) -> Result<(), StoreError> {
    let end = *EventId::first_at(made_before).as_bytes();
    let alone = "NOT EXISTS (SELECT 1 FROM notifications n WHERE n.id = claims.id)";
    for (table, also) in [
        ("events", "1"),
        ("matches", "1"),
        ("batches", "1"),
        ("dead_letters", "1"),
        ("claims", alone),
    ] {
        let sql = format!(
            "DELETE FROM {table} WHERE id IN
             (SELECT id FROM {table} WHERE id < ? AND {also} ORDER BY id LIMIT ?)"
        );
        connection
            .prepare_cached(&sql)?
            .execute(params![end, limit as i64])?;
    }
    Ok(())
}
