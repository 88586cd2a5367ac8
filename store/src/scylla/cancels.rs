//! Marks of those who want to cancel, and how their races with attempts ended.

use std::collections::HashMap;

use scylla::value::MaybeUnset;

use super::{Connected, ttl};
use crate::{CancelMark, Race, RaceEnd, Standing, StoreError, now};

/// What stands as the worker of a mark.
const MARK: &str = "cancel";

pub(super) async fn mark(
    store: &Connected,
    marks: &[CancelMark],
) -> Result<Vec<Standing>, StoreError> {
    type Row = (Vec<u8>, i32, Option<Vec<u8>>);
    let now = now();
    let no_outcome = MaybeUnset::<&[u8]>::Unset;
    let rows = marks.iter().map(|mark| {
        let (bucket, shard) = store.claim_place(mark.id, &mark.recipient);
        let id = mark.id.as_bytes().as_slice();
        let worker = MaybeUnset::Set(MARK);
        let ttl = ttl(store.layout.kept_beside(mark.send_at, now), now);
        let values = (ttl, worker, no_outcome, bucket, shard, id, -mark.mark);
        ((bucket, shard), MARK.len(), values)
    });
    store
        .session
        .write(&store.statements.put_claim, rows)
        .await?;
    // The marks are there: a claim that is not seen now will see its mark.
    let placed = marks.iter().map(|mark| {
        let place = store.claim_place(mark.id, &mark.recipient);
        (place, *mark.id.as_bytes())
    });
    let found: Vec<Row> = store
        .session
        .rows_of_ids(&store.statements.get_claims, placed)
        .await?;
    let mut standing: HashMap<Vec<u8>, Standing> = HashMap::with_capacity(marks.len());
    for (id, attempt, outcome) in found.into_iter().filter(|(_, attempt, _)| *attempt > 0) {
        let stands = standing.entry(id).or_default();
        // Attempts come in order.
        stands.claimed = Some(attempt);
        if let Some(body) = outcome {
            stands.outcome = Some((attempt, body));
        }
    }
    let of = |mark: &CancelMark| standing.get(mark.id.as_bytes().as_slice()).cloned();
    Ok(marks
        .iter()
        .map(|mark| of(mark).unwrap_or_default())
        .collect())
}

pub(super) async fn unmark(store: &Connected, marks: &[CancelMark]) -> Result<(), StoreError> {
    let rows = marks.iter().map(|mark| {
        let (bucket, shard) = store.claim_place(mark.id, &mark.recipient);
        let values = (bucket, shard, mark.id.as_bytes().as_slice(), -mark.mark);
        ((bucket, shard), 0, values)
    });
    store
        .session
        .write(&store.statements.delete_claim, rows)
        .await
}

pub(super) async fn end_race(
    store: &Connected,
    race: &Race,
    proposal: RaceEnd,
) -> Result<RaceEnd, StoreError> {
    let (bucket, shard) = store.claim_place(race.id, &race.recipient);
    let (id, attempt) = (race.id.as_bytes().as_slice(), race.attempt);
    let now = now();
    let ttl = ttl(store.layout.kept_beside(race.send_at, now), now);
    let values = (bucket, shard, id, attempt, proposal.as_str(), ttl);
    let statements = &store.statements;
    if store
        .session
        .apply_one(&statements.end_race, values)
        .await?
    {
        return Ok(proposal);
    }
    let row: Option<(String,)> = store
        .session
        .row(&statements.get_race, (bucket, shard, id, attempt))
        .await?;
    let (ended,) = row.ok_or_else(|| {
        StoreError::Unavailable("the end of a race is gone between two reads".to_owned())
    })?;
    RaceEnd::read(&ended)
}
