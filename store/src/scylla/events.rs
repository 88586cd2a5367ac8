//! Events, and in their rows what the rules said.

use std::cmp::Reverse;

use herald_schemas::{
    ids::EventId,
    records::{Event, EventMatched},
    rows::{EventFilter, EventHead, EventRow, Page},
};
use scylla::value::MaybeUnset;
use uuid::Uuid;

use super::{Connected, Listed, list::buckets};
use crate::{MOST_SCANNED, StoreError, json, now, to_json};

/// How many of a shard are asked for at once.
const SCANNED_AT_ONCE: usize = 500;

pub(super) async fn write(
    store: &Connected,
    events: &[(EventId, Event)],
) -> Result<(), StoreError> {
    let now = now();
    let (until, ttl) = store.kept_from(now);
    let buckets = events
        .iter()
        .map(|(id, _)| (store.layout.bucket(id.unix_ms()), until));
    store.note_buckets(Listed::Events, buckets, now).await?;
    let rows = events.iter().map(|(id, event)| {
        let (bucket, shard) = store.place_of(id.unix_ms(), id.as_bytes());
        let values = (
            ttl,
            event.event.as_str(),
            event.payload.as_str(),
            event.occurred_at,
            MaybeUnset::from_option(event.correlation_id.as_deref()),
            bucket,
            shard,
            id.as_bytes().as_slice(),
        );
        ((bucket, shard), event.payload.len(), values)
    });
    store.session.write(&store.statements.put_event, rows).await
}

pub(super) async fn write_matches(
    store: &Connected,
    matches: &[EventMatched],
) -> Result<(), StoreError> {
    let (_, ttl) = store.kept_from(now());
    let rows: Vec<_> = matches
        .iter()
        .map(|matched| {
            let id = matched.event_id;
            let (bucket, shard) = store.place_of(id.unix_ms(), id.as_bytes());
            let body = to_json(matched)?;
            let bytes = body.len();
            let values = (ttl, body, bucket, shard, id.as_bytes().to_vec());
            Ok(((bucket, shard), bytes, values))
        })
        .collect::<Result<_, StoreError>>()?;
    store
        .session
        .write(&store.statements.put_matched, rows)
        .await
}

pub(super) async fn read(store: &Connected, id: EventId) -> Result<Option<EventRow>, StoreError> {
    type Row = (
        Option<String>,
        Option<String>,
        Option<i64>,
        Option<String>,
        Option<String>,
    );
    let (bucket, shard) = store.place_of(id.unix_ms(), id.as_bytes());
    let values = (bucket, shard, id.as_bytes().as_slice());
    let row: Option<Row> = store
        .session
        .row(&store.statements.get_event, values)
        .await?;
    // What the rules said may be there before the event is.
    let Some((Some(event), Some(payload), Some(occurred_at), correlation_id, matched)) = row else {
        return Ok(None);
    };
    Ok(Some(EventRow {
        id,
        event,
        payload,
        occurred_at,
        correlation_id,
        matched: matched.map(|text| json("matched", &text)).transpose()?,
    }))
}

pub(super) async fn list(
    store: &Connected,
    filter: &EventFilter,
    before: Option<EventId>,
    limit: usize,
) -> Result<Page<EventHead, EventId>, StoreError> {
    let first = filter
        .from
        .map_or(EventId::from_uuid(Uuid::nil()), EventId::first_at);
    let ends = [before, filter.until.map(EventId::first_at)];
    let end = ends.into_iter().flatten().min();
    let mut end = end.unwrap_or(EventId::from_uuid(Uuid::max()));
    let (oldest, newest) = (
        store.layout.bucket(first.unix_ms()),
        store.layout.bucket(end.unix_ms()),
    );
    let (mut items, mut scanned) = (Vec::new(), 0);
    for bucket in buckets(store, Listed::Events, oldest, newest).await? {
        loop {
            let scan = scan(store, bucket, first, end).await?;
            for head in scan.events {
                if items.len() == limit || scanned == MOST_SCANNED {
                    let next = Some(end);
                    return Ok(Page { items, next });
                }
                scanned += 1;
                end = head.id;
                if filter.shows(&head) {
                    items.push(head);
                }
            }
            let Some(horizon) = scan.horizon else { break };
            end = end.min(horizon);
        }
    }
    Ok(Page { items, next: None })
}

/// A bucket's newest events, and, where there may be more, down to where all of them are here.
struct Scan {
    events: Vec<EventHead>,
    horizon: Option<EventId>,
}

async fn scan(
    store: &Connected,
    bucket: i64,
    first: EventId,
    end: EventId,
) -> Result<Scan, StoreError> {
    type Row = (Vec<u8>, Option<String>, Option<i64>, Option<String>);
    let (first, end) = (first.as_bytes().as_slice(), end.as_bytes().as_slice());
    let each = (0..store.layout.status_shards as i32)
        .map(|shard| (bucket, shard, first, end, SCANNED_AT_ONCE as i32));
    let shards: Vec<Vec<Row>> = store
        .session
        .rows_of_each(&store.statements.scan_events, each.collect())
        .await?;
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).ok().map(EventId::from_uuid);
    // A shard that gave as many as it was asked for may have more below its last one.
    let ends = shards.iter().filter(|shard| shard.len() == SCANNED_AT_ONCE);
    let horizon = ends.filter_map(|shard| id(&shard.last()?.0)).max();
    // What the rules said may be there before the event is.
    let head = |(bytes, event, occurred_at, correlation_id): Row| {
        Some(EventHead {
            id: id(&bytes)?,
            event: event?,
            occurred_at: occurred_at?,
            correlation_id,
        })
    };
    let mut events: Vec<EventHead> = shards.into_iter().flatten().filter_map(head).collect();
    events.retain(|event| horizon.is_none_or(|horizon| event.id >= horizon));
    events.sort_unstable_by_key(|event| Reverse(event.id));
    Ok(Scan { events, horizon })
}
