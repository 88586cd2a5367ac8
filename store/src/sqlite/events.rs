//! Events, and beside them what the rules said.

use herald_schemas::{
    ids::EventId,
    records::{Event, EventMatched},
    rows::{EventFilter, EventHead, EventRow, Page},
};
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::{MOST_SCANNED, StoreError, json, to_json};

pub(super) fn write(
    connection: &Connection,
    events: &[(EventId, Event)],
) -> Result<(), StoreError> {
    let mut put =
        connection.prepare_cached("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)")?;
    for (id, event) in events {
        put.execute(params![
            id.as_bytes(),
            event.event,
            event.payload,
            event.occurred_at,
            event.correlation_id
        ])?;
    }
    Ok(())
}

pub(super) fn write_matches(
    connection: &Connection,
    matches: &[EventMatched],
) -> Result<(), StoreError> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO matches VALUES (?, ?)")?;
    for matched in matches {
        put.execute(params![matched.event_id.as_bytes(), to_json(matched)?])?;
    }
    Ok(())
}

pub(super) fn read(connection: &Connection, id: EventId) -> Result<Option<EventRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT e.event, e.payload, e.occurred_at, e.correlation_id, m.body
         FROM events e LEFT JOIN matches m ON m.id = e.id WHERE e.id = ?",
    )?;
    let mut rows = statement.query([id.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let matched: Option<String> = row.get(4)?;
    Ok(Some(EventRow {
        id,
        event: row.get(0)?,
        payload: row.get(1)?,
        occurred_at: row.get(2)?,
        correlation_id: row.get(3)?,
        matched: matched
            .map(|text| json("matches.body", &text))
            .transpose()?,
    }))
}

pub(super) fn list(
    connection: &Connection,
    filter: &EventFilter,
    before: Option<EventId>,
    limit: usize,
) -> Result<Page<EventHead, EventId>, StoreError> {
    let first = filter
        .from
        .map_or([0; 16], |at| *EventId::first_at(at).as_bytes());
    let ends = [before, filter.until.map(EventId::first_at)];
    let end = ends.into_iter().flatten().min();
    let end = end.map_or([0xff; 16], |id| *id.as_bytes());
    let mut statement = connection.prepare_cached(
        "SELECT id, event, occurred_at, correlation_id FROM events
         WHERE id >= ? AND id < ? ORDER BY id DESC",
    )?;
    let mut rows = statement.query(params![first, end])?;
    let (mut items, mut scanned, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if items.len() == limit || scanned == MOST_SCANNED {
            return Ok(Page { items, next: last });
        }
        let head = EventHead {
            id: EventId::from_uuid(Uuid::from_bytes(row.get(0)?)),
            event: row.get(1)?,
            occurred_at: row.get(2)?,
            correlation_id: row.get(3)?,
        };
        scanned += 1;
        last = Some(head.id);
        if filter.shows(&head) {
            items.push(head);
        }
    }
    Ok(Page { items, next: None })
}
