//! The tables, and how an older file gets them.

use rusqlite::Connection;

use crate::StoreError;

/// What each version of the file adds, from version 1 on. A released one is never changed.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE layout (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        status_shards INTEGER NOT NULL,
        claim_shards INTEGER NOT NULL,
        bucket_minutes INTEGER NOT NULL,
        retention_days INTEGER NOT NULL
    ) STRICT;

    -- What changes of a notification. Rows lie in the order of their ids, which is that of time.
    CREATE TABLE notifications (
        id BLOB NOT NULL PRIMARY KEY,
        status TEXT NOT NULL,
        channel TEXT NOT NULL,
        priority TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        sent_at INTEGER,
        cancelled_at INTEGER,
        provider_message_id TEXT,
        last_error TEXT,
        delivery_status TEXT,
        stamp INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX notifications_by_status ON notifications (status);
    CREATE INDEX notifications_by_expiry ON notifications (expires_at);

    -- What is written once and may be long.
    CREATE TABLE contents (
        id BLOB NOT NULL PRIMARY KEY,
        identity TEXT NOT NULL,
        message TEXT
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE refs (
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        id BLOB NOT NULL,
        PRIMARY KEY (kind, value, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE calls (
        id BLOB NOT NULL,
        number INTEGER NOT NULL,
        step INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id, number, step)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE totals (
        part INTEGER NOT NULL PRIMARY KEY,
        at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE counts (
        part INTEGER NOT NULL,
        day INTEGER NOT NULL,
        status TEXT NOT NULL,
        channel TEXT NOT NULL,
        priority TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (part, day, status, channel, priority)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE claims (
        id BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        worker TEXT NOT NULL,
        outcome BLOB,
        PRIMARY KEY (id, attempt)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE cancel_marks (
        id BLOB NOT NULL PRIMARY KEY
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE events (
        id BLOB NOT NULL PRIMARY KEY,
        event TEXT NOT NULL,
        payload TEXT NOT NULL,
        occurred_at INTEGER NOT NULL,
        correlation_id TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE matches (
        id BLOB NOT NULL PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The body is the record itself, in Avro's single-object encoding.
    CREATE TABLE dead_letters (
        id BLOB NOT NULL PRIMARY KEY,
        body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE catalog_version (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL
    ) STRICT;
    INSERT INTO catalog_version VALUES (1, 0);
    CREATE TABLE catalog (
        kind TEXT NOT NULL,
        id BLOB NOT NULL,
        version INTEGER NOT NULL,
        name TEXT NOT NULL,
        body TEXT NOT NULL,
        retired INTEGER NOT NULL,
        PRIMARY KEY (kind, id, version)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX catalog_by_name ON catalog (kind, name) WHERE retired = 0;
",
    "
    DROP TABLE cancel_marks;
    CREATE TABLE cancel_marks (
        id BLOB NOT NULL,
        mark INTEGER NOT NULL,
        kept_until INTEGER NOT NULL,
        PRIMARY KEY (id, mark)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX cancel_marks_by_end ON cancel_marks (kept_until);
    CREATE TABLE races (
        id BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        ended TEXT NOT NULL,
        kept_until INTEGER NOT NULL,
        PRIMARY KEY (id, attempt)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX races_by_end ON races (kept_until);

    CREATE TABLE keys (
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        digest TEXT NOT NULL,
        leased_until INTEGER NOT NULL,
        kept_until INTEGER NOT NULL,
        answer BLOB,
        PRIMARY KEY (scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX keys_by_end ON keys (kept_until);

    CREATE TABLE batches (
        id BLOB NOT NULL PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The head is the record without its bytes, which lists show.
    ALTER TABLE dead_letters ADD COLUMN head BLOB;
    ALTER TABLE dead_letters ADD COLUMN requeued_as BLOB;
    UPDATE dead_letters SET head = body;

    CREATE TABLE schedules (
        shard INTEGER NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL,
        send_at INTEGER NOT NULL,
        id BLOB NOT NULL
    ) STRICT;
    CREATE TABLE scheduled (
        shard INTEGER NOT NULL,
        send_at INTEGER NOT NULL,
        id BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (shard, send_at, id)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE api_key_uses (
        id BLOB NOT NULL PRIMARY KEY,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
];

/// The version of the file that this program works with.
const NEWEST: i64 = MIGRATIONS.len() as i64;

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the file to the newest version; in the caller's transaction.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let have = version(connection)?;
    if have > NEWEST {
        return Err(newer(have));
    }
    for migration in &MIGRATIONS[have as usize..] {
        connection.execute_batch(migration)?;
    }
    connection.pragma_update(None, "user_version", NEWEST)?;
    Ok(())
}

/// Whether the file is of this program's version; else what to do about it.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    match version(connection)? {
        NEWEST => Ok(()),
        0 => Err(StoreError::NotSetUp(
            "the store has no tables yet".to_owned(),
        )),
        have if have < NEWEST => Err(StoreError::NotSetUp(format!(
            "the store is of version {have}, not {NEWEST}"
        ))),
        have => Err(newer(have)),
    }
}

fn newer(have: i64) -> StoreError {
    StoreError::Fatal(format!(
        "the file was written by a newer herald (version {have}; this one knows {NEWEST})"
    ))
}
