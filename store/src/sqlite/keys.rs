//! Idempotency keys, and when API keys were used.

use herald_schemas::ids::{ApiKeyId, UnixMs};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{KeyClaim, KeyHeld, StoreError};

pub(super) fn take(
    connection: &Connection,
    claims: &[KeyClaim],
    now: UnixMs,
) -> Result<Vec<KeyHeld>, StoreError> {
    let mut put = connection.prepare_cached(
        "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)
         ON CONFLICT DO UPDATE SET value = ?3, digest = ?4, leased_until = ?5, kept_until = ?6,
                answer = NULL
         WHERE kept_until <= ?7",
    )?;
    let mut get = connection.prepare_cached(
        "SELECT value, digest, leased_until, kept_until, answer FROM keys
         WHERE scope = ? AND key = ?",
    )?;
    let mut held = |claim: &KeyClaim| -> rusqlite::Result<KeyHeld> {
        let made = put.execute(params![
            claim.scope,
            claim.key,
            claim.value,
            claim.digest,
            claim.leased_until,
            claim.kept_until,
            now
        ])?;
        get.query_row(params![claim.scope, claim.key], |row| {
            Ok(KeyHeld {
                is_new: made == 1,
                value: row.get(0)?,
                digest: row.get(1)?,
                leased_until: row.get(2)?,
                kept_until: row.get(3)?,
                answer: row.get(4)?,
            })
        })
    };
    Ok(claims.iter().map(&mut held).collect::<Result<_, _>>()?)
}

pub(super) fn lease(
    connection: &Connection,
    scope: &str,
    key: &str,
    seen: &KeyHeld,
    leased_until: UnixMs,
) -> Result<bool, StoreError> {
    let leased = connection
        .prepare_cached(
            "UPDATE keys SET leased_until = ?
             WHERE scope = ? AND key = ? AND value = ? AND leased_until = ?",
        )?
        .execute(params![
            leased_until,
            scope,
            key,
            seen.value,
            seen.leased_until
        ])?;
    Ok(leased == 1)
}

pub(super) fn answer(
    connection: &Connection,
    scope: &str,
    key: &str,
    held: &KeyHeld,
    answer: &[u8],
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE keys SET answer = ? WHERE scope = ? AND key = ? AND value = ?")?
        .execute(params![answer, scope, key, held.value])?;
    Ok(())
}

pub(super) fn expire(connection: &Connection, now: UnixMs, limit: usize) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM keys WHERE (scope, key) IN
             (SELECT scope, key FROM keys WHERE kept_until <= ? ORDER BY kept_until LIMIT ?)",
        )?
        .execute(params![now, limit as i64])?;
    Ok(())
}

pub(super) fn note_use(
    connection: &Connection,
    id: ApiKeyId,
    at: UnixMs,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO api_key_uses VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET at = ?2 WHERE at < ?2",
        )?
        .execute(params![id.as_bytes(), at])?;
    Ok(())
}

pub(super) fn uses(
    connection: &Connection,
    ids: &[ApiKeyId],
) -> Result<Vec<Option<UnixMs>>, StoreError> {
    let mut get = connection.prepare_cached("SELECT at FROM api_key_uses WHERE id = ?")?;
    let mut used = |id: &ApiKeyId| get.query_row([id.as_bytes()], |row| row.get(0)).optional();
    Ok(ids.iter().map(&mut used).collect::<Result<_, _>>()?)
}

pub(super) fn forget_uses(connection: &Connection, before: UnixMs) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM api_key_uses WHERE at < ?")?
        .execute([before])?;
    Ok(())
}
