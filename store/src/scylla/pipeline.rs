//! What the pipeline keeps besides notifications: exact counts, claims, batches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use herald_schemas::{
    ids::{BatchId, NotificationId, UnixMs, partition_of},
    records::BatchAccepted,
    rows::{CountKey, Tally},
};
use scylla::{
    serialize::row::SerializeRow, statement::prepared::PreparedStatement, value::MaybeUnset,
};

use super::{Connected, FOR_EVER, session::Place, ttl};
use crate::{
    Cell, Claim, Claimed, Counted, HOURS_KEPT_MS, OF_ALL, Outcome, StoreError, Totals, json, now,
    to_json,
};

/// How many days one statement asks for: ScyllaDB takes no more keys.
const DAYS_AT_ONCE: usize = 100;

/// What stands in the row of a count or a tally: day, status, channel and priority.
type Key<'a> = (i32, &'a str, &'a str, &'a str);

fn count_key(key: &CountKey) -> Key<'static> {
    let (status, channel) = (key.status.as_str(), key.channel.as_str());
    (key.day, status, channel, key.priority.as_str())
}

fn tally_key(tally: &Tally) -> Key<'static> {
    let (word, at) = tally.parts();
    (at, word, OF_ALL, OF_ALL)
}

pub(super) async fn totals(store: &Connected, of: Counted) -> Result<Totals, StoreError> {
    type Row = (
        Option<i64>,
        Option<i32>,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<i64>,
    );
    let rows: Vec<Row> = store
        .session
        .all_rows(&store.statements.get_totals, (of.part(),))
        .await?;
    // Beyond some thousand cells the counts may advance between two pages: true for the first.
    let offset = rows.iter().map(|row| row.0.unwrap_or(0)).min();
    let mut totals = Totals {
        offset: offset.unwrap_or(0),
        ..Totals::default()
    };
    for row in rows {
        if let (_, Some(day), Some(status), Some(channel), Some(priority), Some(number)) = row {
            totals.add(Cell::read(day, &status, &channel, &priority)?, number);
        }
    }
    Ok(totals)
}

pub(super) async fn advance_totals(
    store: &Connected,
    of: Counted,
    (from, to): (i64, i64),
    counts: &[(CountKey, i64)],
    tallies: &[(Tally, i64)],
) -> Result<bool, StoreError> {
    let (part, now) = (of.part(), now());
    let until = |kept_ms: i64| ttl(now.saturating_add(kept_ms), now);
    let of_hours = until(HOURS_KEPT_MS);
    let of_days = until(store.layout.retention_ms());
    // Each with how long it is kept.
    let mut changes: BTreeMap<Key<'_>, (i32, i64)> = BTreeMap::new();
    for (key, change) in counts {
        let (_, number) = changes.entry(count_key(key)).or_insert((FOR_EVER, 0));
        *number += change;
    }
    for (tally, change) in tallies {
        let kept = match tally {
            Tally::Sent(_) | Tally::SentMs(_) => of_hours,
            Tally::Requeued(_) | Tally::DeadLetters(_) => of_days,
        };
        let (_, number) = changes.entry(tally_key(tally)).or_insert((kept, 0));
        *number += change;
    }
    let known = known(store, part, changes.keys().map(|key| key.0)).await?;
    // Read before, written under the condition that nothing changed since.
    type Write<'s> = (&'s PreparedStatement, Box<dyn SerializeRow + Send + Sync>);
    let statements = &store.statements;
    let advance: Write<'_> = match from {
        0 => (&statements.first_totals, Box::new((to, part))),
        _ => (&statements.next_totals, Box::new((to, part, from))),
    };
    let mut writes = vec![advance];
    for ((day, status, channel, priority), (kept, change)) in changes {
        let place = [status, channel, priority].map(str::to_owned);
        let number = known.get(&(day, place)).copied().unwrap_or(0) + change;
        let values = (kept, number, part, day, status, channel, priority);
        writes.push((&statements.put_count, Box::new(values)));
    }
    store.session.apply(writes).await
}

/// The cells of some days and hours, as they stand.
async fn known(
    store: &Connected,
    part: i32,
    days: impl Iterator<Item = i32>,
) -> Result<HashMap<(i32, [String; 3]), i64>, StoreError> {
    type Row = (i32, String, String, String, Option<i64>);
    let days: BTreeSet<i32> = days.collect();
    let mut known = HashMap::new();
    for days in days.into_iter().collect::<Vec<_>>().chunks(DAYS_AT_ONCE) {
        let rows: Vec<Row> = store
            .session
            .all_rows(&store.statements.get_counts, (part, days))
            .await?;
        for (day, status, channel, priority, number) in rows {
            known.insert((day, [status, channel, priority]), number.unwrap_or(0));
        }
    }
    Ok(known)
}

impl Connected {
    /// The partition of a notification's claims.
    pub(super) fn claim_place(&self, id: NotificationId, recipient: &str) -> Place {
        let bucket = self.layout.bucket(id.unix_ms());
        (bucket, self.layout.claim_shard(recipient) as i32)
    }

    /// The partition of an event or a dead letter.
    pub(super) fn place_of(&self, at_ms: UnixMs, id: &[u8]) -> Place {
        let shard = partition_of(id, self.layout.status_shards);
        (self.layout.bucket(at_ms), shard as i32)
    }
}

pub(super) async fn claim(
    store: &Connected,
    claims: &[Claim],
    outcomes: &[Outcome],
) -> Result<Vec<Claimed>, StoreError> {
    let (_, ttl) = store.kept_from(now());
    let outcomes = outcomes.iter().map(|outcome| {
        let (bucket, shard) = store.claim_place(outcome.id, &outcome.recipient);
        let body = MaybeUnset::Set(outcome.body.as_slice());
        let id = outcome.id.as_bytes().as_slice();
        let values = (
            ttl,
            MaybeUnset::Unset,
            body,
            bucket,
            shard,
            id,
            outcome.attempt,
        );
        ((bucket, shard), outcome.body.len(), values)
    });
    let claimed = claims.iter().map(|claim| {
        let (bucket, shard) = store.claim_place(claim.id, &claim.recipient);
        let worker = MaybeUnset::Set(claim.worker.as_str());
        let id = claim.id.as_bytes().as_slice();
        let values = (
            ttl,
            worker,
            MaybeUnset::Unset,
            bucket,
            shard,
            id,
            claim.attempt,
        );
        ((bucket, shard), claim.worker.len(), values)
    });
    let writes = outcomes.chain(claimed);
    store
        .session
        .write(&store.statements.put_claim, writes)
        .await?;
    stand(store, claims).await
}

/// What stands about each claim.
async fn stand(store: &Connected, claims: &[Claim]) -> Result<Vec<Claimed>, StoreError> {
    type Row = (Vec<u8>, i32, Option<Vec<u8>>);
    let placed = claims.iter().map(|claim| {
        let place = store.claim_place(claim.id, &claim.recipient);
        (place, *claim.id.as_bytes())
    });
    let found: Vec<Row> = store
        .session
        .rows_of_ids(&store.statements.get_claims, placed)
        .await?;
    let mut known: HashMap<Vec<u8>, Claimed> = HashMap::with_capacity(claims.len());
    for (id, attempt, outcome) in found {
        let claimed = known.entry(id).or_default();
        claimed.cancel_marked |= attempt < 0;
        // Attempts come in order: the last one with an outcome is the newest.
        if let Some(body) = outcome {
            claimed.outcome = Some((attempt, body));
        }
    }
    let of = |claim: &Claim| known.get(claim.id.as_bytes().as_slice()).cloned();
    Ok(claims
        .iter()
        .map(|claim| of(claim).unwrap_or_default())
        .collect())
}

pub(super) async fn write_batches(
    store: &Connected,
    batches: &[BatchAccepted],
) -> Result<(), StoreError> {
    let (_, ttl) = store.kept_from(now());
    let rows: Vec<_> = batches
        .iter()
        .map(|batch| {
            let (bucket, shard) = store.place_of(batch.id.unix_ms(), batch.id.as_bytes());
            let body = to_json(batch)?;
            let bytes = body.len();
            let values = (ttl, body, bucket, shard, batch.id.as_bytes().to_vec());
            Ok(((bucket, shard), bytes, values))
        })
        .collect::<Result<_, StoreError>>()?;
    store.session.write(&store.statements.put_batch, rows).await
}

pub(super) async fn batch(
    store: &Connected,
    id: BatchId,
) -> Result<Option<BatchAccepted>, StoreError> {
    let (bucket, shard) = store.place_of(id.unix_ms(), id.as_bytes());
    let values = (bucket, shard, id.as_bytes().as_slice());
    let row: Option<(String,)> = store
        .session
        .row(&store.statements.get_batch, values)
        .await?;
    row.map(|(body,)| json("batches.body", &body)).transpose()
}
