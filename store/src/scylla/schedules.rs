//! Notifications that wait for their time: rows by shard and ten minutes, read once in their order.

use herald_schemas::ids::{NotificationId, UnixMs};
use uuid::Uuid;

use super::{Connected, ttl};
use crate::{Due, ScheduledRow, StoreError, now};

/// How much time a partition of a shard holds.
const BUCKET_MS: i64 = 600_000;
/// How long a row stays after its time: longer than nobody may run the stage.
const STAYS_MS: i64 = 30 * 86_400_000;
/// How many buckets are read at once.
const BUCKETS_AT_ONCE: usize = 16;
/// Before and after every id.
const FIRST: [u8; 16] = [0; 16];
const LAST: [u8; 16] = [0xff; 16];

fn id(bytes: &[u8]) -> Result<NotificationId, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Fatal("scheduled.id is not 16 bytes long".to_owned()))?;
    Ok(NotificationId::from_uuid(Uuid::from_bytes(bytes)))
}

pub(super) async fn own(
    store: &Connected,
    shard: i32,
    owner: &str,
    now: UnixMs,
) -> Result<Due, StoreError> {
    let (session, statements) = (&store.session, &store.statements);
    let first = (shard, owner, now, FIRST.as_slice());
    if !session.apply_one(&statements.first_owner, first).await? {
        session
            .apply_one(&statements.next_owner, (owner, shard))
            .await?;
    }
    let row: Option<(i64, Vec<u8>)> = session.row(&statements.get_schedule, (shard,)).await?;
    let (send_at, bytes) = row.ok_or_else(|| {
        StoreError::Unavailable(format!("the schedule of shard {shard} cannot be read"))
    })?;
    Ok((send_at, id(&bytes)?))
}

pub(super) async fn put(
    store: &Connected,
    shard: i32,
    rows: &[ScheduledRow],
) -> Result<(), StoreError> {
    let now = now();
    let rows = rows.iter().map(|row| {
        let bucket = row.send_at.div_euclid(BUCKET_MS);
        let values = (
            shard,
            bucket,
            row.send_at,
            row.id.as_bytes().as_slice(),
            row.body.as_slice(),
            ttl(row.send_at.saturating_add(STAYS_MS), now),
        );
        ((shard, bucket), row.body.len(), values)
    });
    store
        .session
        .write(&store.statements.put_scheduled, rows)
        .await
}

pub(super) async fn due(
    store: &Connected,
    shard: i32,
    (send_at, from): Due,
    now: UnixMs,
    limit: usize,
) -> Result<Vec<ScheduledRow>, StoreError> {
    type Row = (i64, Vec<u8>, Vec<u8>);
    let most = limit.min(i32::MAX as usize) as i32;
    let buckets: Vec<i64> = (send_at.div_euclid(BUCKET_MS)..=now.div_euclid(BUCKET_MS)).collect();
    let mut due = Vec::new();
    for buckets in buckets.chunks(BUCKETS_AT_ONCE) {
        let (first, last) = (from.as_bytes().as_slice(), LAST.as_slice());
        let each = buckets
            .iter()
            .map(|bucket| (shard, *bucket, send_at, first, now, last, most));
        let found: Vec<Vec<Row>> = store
            .session
            .rows_of_each(&store.statements.scan_scheduled, each.collect())
            .await?;
        for (send_at, bytes, body) in found.into_iter().flatten() {
            let id = id(&bytes)?;
            due.push(ScheduledRow { send_at, id, body });
        }
        if due.len() >= limit {
            break;
        }
    }
    due.truncate(limit);
    Ok(due)
}

pub(super) async fn advance(
    store: &Connected,
    shard: i32,
    owner: &str,
    (send_at, to): Due,
) -> Result<bool, StoreError> {
    let values = (send_at, to.as_bytes().as_slice(), shard, owner);
    store
        .session
        .apply_one(&store.statements.advance_schedule, values)
        .await
}
