//! Idempotency keys: a conditional write each, many at once. And when API keys were used.

use herald_schemas::ids::{ApiKeyId, UnixMs};

use super::{Connected, ttl};
use crate::{KeyClaim, KeyHeld, StoreError, now};

pub(super) async fn take(
    store: &Connected,
    claims: &[KeyClaim],
) -> Result<Vec<KeyHeld>, StoreError> {
    let now = now();
    let (session, statements) = (&store.session, &store.statements);
    let each = claims.iter().map(|claim| {
        (
            claim.scope.as_str(),
            claim.key.as_str(),
            claim.value.as_str(),
            claim.digest.as_str(),
            claim.leased_until,
            claim.kept_until,
            ttl(claim.kept_until, now),
        )
    });
    let made = session
        .apply_each(&statements.take_key, each.collect())
        .await?;
    let there = claims.iter().zip(&made).filter(|(_, made)| !**made);
    let asked = there.map(|(claim, _)| (claim.scope.as_str(), claim.key.as_str()));
    type Row = (String, String, i64, i64, Option<Vec<u8>>);
    let found: Vec<Vec<Row>> = session
        .rows_of_each(&statements.get_key, asked.collect())
        .await?;
    let mut found = found.into_iter();
    claims
        .iter()
        .zip(made)
        .map(|(claim, made)| {
            if made {
                return Ok(new(claim));
            }
            let row = found.next().and_then(|mut rows| rows.pop());
            let (value, digest, leased_until, kept_until, answer) = row.ok_or_else(|| {
                StoreError::Unavailable("a key expired between two reads".to_owned())
            })?;
            Ok(KeyHeld {
                is_new: false,
                value,
                digest,
                leased_until,
                kept_until,
                answer,
            })
        })
        .collect()
}

fn new(claim: &KeyClaim) -> KeyHeld {
    KeyHeld {
        is_new: true,
        value: claim.value.clone(),
        digest: claim.digest.clone(),
        leased_until: claim.leased_until,
        kept_until: claim.kept_until,
        answer: None,
    }
}

pub(super) async fn lease(
    store: &Connected,
    scope: &str,
    key: &str,
    seen: &KeyHeld,
    leased_until: UnixMs,
) -> Result<bool, StoreError> {
    let values = (
        ttl(seen.kept_until, now()),
        leased_until,
        scope,
        key,
        seen.value.as_str(),
        seen.leased_until,
    );
    store
        .session
        .apply_one(&store.statements.lease_key, values)
        .await
}

pub(super) async fn answer(
    store: &Connected,
    scope: &str,
    key: &str,
    held: &KeyHeld,
    answer: &[u8],
) -> Result<(), StoreError> {
    let ttl = ttl(held.kept_until, now());
    let values = (ttl, answer, scope, key, held.value.as_str());
    store
        .session
        .apply_one(&store.statements.answer_key, values)
        .await?;
    Ok(())
}

pub(super) async fn note_use(
    store: &Connected,
    id: ApiKeyId,
    at: UnixMs,
) -> Result<(), StoreError> {
    let (_, ttl) = store.kept_from(at);
    let values = (id.as_bytes().as_slice(), at, ttl, at);
    store
        .session
        .execute(&store.statements.note_api_key_use, values)
        .await
}

pub(super) async fn uses(
    store: &Connected,
    ids: &[ApiKeyId],
) -> Result<Vec<Option<UnixMs>>, StoreError> {
    let each = ids.iter().map(|id| (id.as_bytes().as_slice(),));
    let found: Vec<Vec<(Option<UnixMs>,)>> = store
        .session
        .rows_of_each(&store.statements.get_api_key_use, each.collect())
        .await?;
    let at = |rows: Vec<(Option<UnixMs>,)>| rows.first().and_then(|(at,)| *at);
    Ok(found.into_iter().map(at).collect())
}
