//! Dead letters: the whole record, and beside it what a list shows.

use herald_schemas::{
    codec::Codec,
    ids::{DeadLetterId, NotificationId},
    records::DeadLetter,
    rows::{DeadLetterRow, LetterFilter, Order, Page},
};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::{MOST_SCANNED, StoreError, encoded};

pub(super) fn write(
    connection: &Connection,
    letters: &[DeadLetter],
    codec: &Codec,
) -> Result<(), StoreError> {
    let mut put = connection.prepare_cached(
        "INSERT INTO dead_letters (id, body, head) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET body = ?2, head = ?3",
    )?;
    for letter in letters {
        let (body, head) = encoded(codec, letter)?;
        put.execute(params![letter.id.as_bytes(), body, head])?;
    }
    Ok(())
}

pub(super) fn has(connection: &Connection, ids: &[DeadLetterId]) -> Result<Vec<bool>, StoreError> {
    let mut there =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM dead_letters WHERE id = ?)")?;
    let mut has = |id: &DeadLetterId| there.query_row([id.as_bytes()], |row| row.get(0));
    Ok(ids.iter().map(&mut has).collect::<Result<_, _>>()?)
}

fn row(
    codec: &Codec,
    record: &[u8],
    requeued_as: Option<[u8; 16]>,
) -> Result<DeadLetterRow, StoreError> {
    let letter = codec
        .decode(record)
        .map_err(|error| StoreError::Fatal(format!("dead_letters: {error}")))?;
    let id = |bytes| NotificationId::from_uuid(Uuid::from_bytes(bytes));
    Ok(DeadLetterRow {
        letter,
        requeued_as: requeued_as.map(id),
    })
}

pub(super) fn read(
    connection: &Connection,
    id: DeadLetterId,
    codec: &Codec,
) -> Result<Option<DeadLetterRow>, StoreError> {
    let found: Option<(Vec<u8>, Option<[u8; 16]>)> = connection
        .prepare_cached("SELECT body, requeued_as FROM dead_letters WHERE id = ?")?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found
        .map(|(body, requeued_as)| row(codec, &body, requeued_as))
        .transpose()
}

pub(super) fn list(
    connection: &Connection,
    filter: &LetterFilter,
    order: Order,
    past: Option<DeadLetterId>,
    limit: usize,
    codec: &Codec,
) -> Result<Page<DeadLetterRow, DeadLetterId>, StoreError> {
    let first = filter
        .from
        .map_or([0; 16], |at| *DeadLetterId::first_at(at).as_bytes());
    let end = filter
        .until
        .map_or([0xff; 16], |at| *DeadLetterId::first_at(at).as_bytes());
    let (sql, past) = match order {
        Order::Newest => (
            "SELECT head, requeued_as FROM dead_letters
             WHERE id >= ?1 AND id < ?2 AND id < ?3 ORDER BY id DESC",
            past.map_or([0xff; 16], |id| *id.as_bytes()),
        ),
        Order::Oldest => (
            "SELECT head, requeued_as FROM dead_letters
             WHERE id >= ?1 AND id < ?2 AND id > ?3 ORDER BY id",
            past.map_or([0; 16], |id| *id.as_bytes()),
        ),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![first, end, past])?;
    let (mut items, mut scanned, mut last) = (Vec::new(), 0, None);
    while let Some(found) = rows.next()? {
        if items.len() == limit || scanned == MOST_SCANNED {
            return Ok(Page { items, next: last });
        }
        let letter = row(codec, &found.get::<_, Vec<u8>>(0)?, found.get(1)?)?;
        scanned += 1;
        last = Some(letter.letter.id);
        if filter.shows(&letter) {
            items.push(letter);
        }
    }
    Ok(Page { items, next: None })
}

pub(super) fn note_requeued(
    connection: &Connection,
    requeued: &[(DeadLetterId, NotificationId)],
) -> Result<(), StoreError> {
    let mut note =
        connection.prepare_cached("UPDATE dead_letters SET requeued_as = ? WHERE id = ?")?;
    for (letter, notification) in requeued {
        note.execute(params![notification.as_bytes(), letter.as_bytes()])?;
    }
    Ok(())
}
