//! What the pipeline keeps besides notifications: exact counts, claims, batches.

use std::collections::{BTreeSet, HashMap};

use herald_schemas::{
    ids::{BatchId, NotificationId, UnixMs, partition_of},
    records::BatchAccepted,
    rows::CountKey,
    words::UnknownWord,
};
use scylla::{
    serialize::row::SerializeRow, statement::prepared::PreparedStatement, value::MaybeUnset,
};

use super::{Connected, session::Place, ttl};
use crate::{Claim, Claimed, Outcome, StoreError, Totals, json, now, to_json};

/// How many days one statement asks for: ScyllaDB takes no more keys.
const DAYS_AT_ONCE: usize = 100;

/// A cell of the counts as it lies in the table.
type Count = (i32, String, String, String, Option<i64>);

fn count((day, status, channel, priority, number): Count) -> Result<(CountKey, i64), StoreError> {
    let word = |error: UnknownWord| StoreError::Fatal(error.to_string());
    let key = CountKey {
        day,
        status: status.parse().map_err(word)?,
        channel: channel.parse().map_err(word)?,
        priority: priority.parse().map_err(word)?,
    };
    Ok((key, number.unwrap_or(0)))
}

pub(super) async fn totals(store: &Connected, partition: i32) -> Result<Totals, StoreError> {
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
        .all_rows(&store.statements.get_totals, (partition,))
        .await?;
    // Beyond some thousand cells the counts may advance between two pages: true for the first.
    let offset = rows.iter().map(|row| row.0.unwrap_or(0)).min();
    let cells = rows
        .into_iter()
        .filter_map(|(_, day, status, channel, priority, number)| {
            Some((day?, status?, channel?, priority?, number))
        });
    Ok(Totals {
        offset: offset.unwrap_or(0),
        counts: cells.map(count).collect::<Result<_, _>>()?,
    })
}

pub(super) async fn advance_totals(
    store: &Connected,
    partition: i32,
    from: i64,
    to: i64,
    changes: &[(CountKey, i64)],
) -> Result<bool, StoreError> {
    let statements = &store.statements;
    let days: BTreeSet<i32> = changes.iter().map(|(key, _)| key.day).collect();
    let mut counts: HashMap<CountKey, i64> = HashMap::new();
    for days in days.into_iter().collect::<Vec<_>>().chunks(DAYS_AT_ONCE) {
        let rows: Vec<Count> = store
            .session
            .all_rows(&statements.get_counts, (partition, days))
            .await?;
        for row in rows {
            let (key, number) = count(row)?;
            counts.insert(key, number);
        }
    }
    for (key, change) in changes {
        *counts.entry(*key).or_default() += change;
    }
    // Read before, written under the condition that nothing changed since.
    type Write<'s> = (&'s PreparedStatement, Box<dyn SerializeRow + Send + Sync>);
    let advance: Write<'_> = match from {
        0 => (&statements.first_totals, Box::new((to, partition))),
        _ => (&statements.next_totals, Box::new((to, partition, from))),
    };
    let mut writes = vec![advance];
    let changed: BTreeSet<CountKey> = changes.iter().map(|(key, _)| *key).collect();
    for key in changed {
        let values = (
            counts.get(&key).copied().unwrap_or(0),
            partition,
            key.day,
            key.status.as_str(),
            key.channel.as_str(),
            key.priority.as_str(),
        );
        writes.push((&statements.put_count, Box::new(values)));
    }
    store.session.apply(writes).await
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
    let now = now();
    let ttl = ttl(now.saturating_add(store.layout.retention_ms()), now);
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
    let now = now();
    let ttl = ttl(now.saturating_add(store.layout.retention_ms()), now);
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
