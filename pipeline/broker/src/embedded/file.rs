//! The log's file: its tables, and every statement on them.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Log, LogState, Topic};
use crate::{BrokerError, Header, Outgoing, Partition, Record, TopicSpec};

/// Counts up with every change of the tables.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        retention_ms INTEGER,
        max_record_bytes INTEGER NOT NULL
    );
    CREATE TABLE partitions (
        id INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL REFERENCES topics,
        number INTEGER NOT NULL,
        UNIQUE (topic, number)
    );
    CREATE TABLE log (
        part INTEGER NOT NULL,
        at INTEGER NOT NULL,
        written_ms INTEGER NOT NULL,
        key BLOB,
        value BLOB NOT NULL,
        headers BLOB,
        PRIMARY KEY (part, at)
    ) WITHOUT ROWID;
    CREATE TABLE offsets (
        member TEXT NOT NULL,
        part INTEGER NOT NULL,
        next INTEGER NOT NULL,
        PRIMARY KEY (member, part)
    ) WITHOUT ROWID;
";

impl From<rusqlite::Error> for BrokerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(format!("embedded log: {error}"))
    }
}

fn fatal(path: &Path, what: impl std::fmt::Display) -> BrokerError {
    BrokerError::Fatal(format!("{}: {what}", path.display()))
}

/// Opens the file for writing, making its tables when it is new.
pub(super) fn open(path: &Path) -> Result<Connection, BrokerError> {
    let connection = Connection::open(path).map_err(|error| fatal(path, error))?;
    prepare(&connection).map_err(|error| fatal(path, error))?;
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| fatal(path, error))?;
    match version {
        0 => connection
            .execute_batch(&format!(
                "BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
            ))
            .map_err(|error| fatal(path, error))?,
        VERSION => {}
        newer => {
            return Err(fatal(
                path,
                format!("written by a newer herald (version {newer}, this one knows {VERSION})"),
            ));
        }
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    // Only has an effect before the first table is made.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA cache_size = -16000; PRAGMA busy_timeout = 5000;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Opens the file for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, BrokerError> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000;")?;
    Ok(connection)
}

pub(super) fn load_topics(
    connection: &Connection,
) -> Result<HashMap<Arc<str>, Topic>, BrokerError> {
    let mut topics: HashMap<Arc<str>, Topic> = HashMap::new();
    let mut statement = connection.prepare(
        "SELECT t.name, t.retention_ms, t.max_record_bytes, p.id, p.number,
                (SELECT min(at) FROM log WHERE part = p.id),
                (SELECT max(at) FROM log WHERE part = p.id)
         FROM topics t JOIN partitions p ON p.topic = t.id ORDER BY t.id, p.number",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: Arc<str> = row.get::<_, String>(0)?.into();
        let retention: Option<i64> = row.get(1)?;
        let topic = topics.entry(Arc::clone(&name)).or_insert_with(|| Topic {
            partitions: Vec::new(),
            retention: retention.map(|ms| Duration::from_millis(ms as u64)),
            max_record_bytes: 0,
        });
        topic.max_record_bytes = row.get::<_, i64>(2)? as usize;
        let (first, last): (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
        let end = last.map_or(0, |last| last + 1);
        topic.partitions.push(Arc::new(Log {
            id: row.get(3)?,
            partition: Partition::new(name, row.get(4)?),
            state: Mutex::new(LogState {
                start: first.unwrap_or(end),
                end,
                ..LogState::default()
            }),
        }));
    }
    Ok(topics)
}

pub(super) fn load_offsets(
    connection: &Connection,
) -> Result<HashMap<(String, Partition), i64>, BrokerError> {
    let mut statement = connection.prepare(
        "SELECT o.member, t.name, p.number, o.next FROM offsets o
         JOIN partitions p ON p.id = o.part JOIN topics t ON t.id = p.topic",
    )?;
    let offsets = statement.query_map([], |row| {
        let partition = Partition::new(row.get::<_, String>(1)?, row.get(2)?);
        Ok(((row.get(0)?, partition), row.get(3)?))
    })?;
    Ok(offsets.collect::<rusqlite::Result<_>>()?)
}

/// Makes a topic or brings it up to date.
pub(super) fn setup_topic(connection: &Connection, spec: &TopicSpec) -> Result<(), BrokerError> {
    let retention = spec.retention.map(|retention| retention.as_millis() as i64);
    connection.execute(
        "INSERT INTO topics (name, retention_ms, max_record_bytes) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET retention_ms = ?2, max_record_bytes = ?3",
        params![spec.name, retention, spec.max_record_bytes as i64],
    )?;
    let topic: i64 = connection.query_row(
        "SELECT id FROM topics WHERE name = ?1",
        [&spec.name],
        |row| row.get(0),
    )?;
    let have: i32 = connection.query_row(
        "SELECT count(*) FROM partitions WHERE topic = ?1",
        [topic],
        |row| row.get(0),
    )?;
    if have > spec.partitions || (have > 0 && have != spec.partitions && spec.fixed_partitions) {
        return Err(BrokerError::Topic {
            topic: spec.name.clone(),
            what: format!(
                "has {have} partitions, asked for {}: it cannot be changed any more",
                spec.partitions
            ),
        });
    }
    for number in have..spec.partitions {
        connection.execute(
            "INSERT INTO partitions (topic, number) VALUES (?1, ?2)",
            params![topic, number],
        )?;
    }
    Ok(())
}

pub(super) fn append(
    connection: &Connection,
    part: i64,
    at: i64,
    written_ms: i64,
    outgoing: &Outgoing,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO log (part, at, written_ms, key, value, headers) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let key = outgoing.key.as_deref();
    let headers = pack(&outgoing.headers);
    statement.execute(params![
        part,
        at,
        written_ms,
        key,
        &outgoing.value[..],
        headers
    ])?;
    Ok(())
}

pub(super) fn save_offset(
    connection: &Connection,
    group: &str,
    part: i64,
    next: i64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO offsets (member, part, next) VALUES (?1, ?2, ?3)
         ON CONFLICT (member, part) DO UPDATE SET next = ?3",
    )?;
    statement.execute(params![group, part, next])?;
    Ok(())
}

/// Up to `limit` records from `from` on, and no more than `limit_bytes` but for the first one.
pub(super) fn read(
    connection: &Connection,
    log: &Log,
    from: i64,
    limit: usize,
    limit_bytes: usize,
) -> Result<Vec<Record>, BrokerError> {
    let mut statement = connection.prepare_cached(
        "SELECT at, written_ms, key, value, headers FROM log
         WHERE part = ?1 AND at >= ?2 ORDER BY at LIMIT ?3",
    )?;
    let mut rows = statement.query(params![log.id, from, limit as i64])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = record(row, &log.partition)?;
        bytes += record.value.len();
        if bytes > limit_bytes && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    Ok(records)
}

fn record(row: &Row<'_>, partition: &Partition) -> rusqlite::Result<Record> {
    let key: Option<Vec<u8>> = row.get(2)?;
    let headers: Option<Vec<u8>> = row.get(4)?;
    Ok(Record {
        partition: partition.clone(),
        offset: row.get(0)?,
        key: key.map(Bytes::from),
        value: Bytes::from(row.get::<_, Vec<u8>>(3)?),
        headers: headers
            .map(|packed| unpack(&packed.into()))
            .unwrap_or_default(),
        timestamp: row.get(1)?,
    })
}

/// Deletes up to `limit` of the oldest records written before `before_ms`, but never the newest
/// one, which holds the place of the next offset. Answers the oldest offset left, if any went.
pub(super) fn delete_old(
    connection: &Connection,
    log: &Log,
    before_ms: i64,
    limit: usize,
) -> rusqlite::Result<Option<i64>> {
    // Most often nothing is old: that the first one tells.
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT written_ms FROM log WHERE part = ?1 ORDER BY at LIMIT 1")?
        .query_row([log.id], |row| row.get(0))
        .optional()?;
    if oldest.is_none_or(|written| written >= before_ms) {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(
        "SELECT max(at) FROM (SELECT at, written_ms FROM log WHERE part = ?1 ORDER BY at LIMIT ?2)
         WHERE written_ms < ?3 AND at < (SELECT max(at) FROM log WHERE part = ?1)",
    )?;
    let last: Option<i64> =
        statement.query_row(params![log.id, limit as i64, before_ms], |row| row.get(0))?;
    let Some(last) = last else { return Ok(None) };
    connection
        .prepare_cached("DELETE FROM log WHERE part = ?1 AND at <= ?2")?
        .execute(params![log.id, last])?;
    Ok(Some(last + 1))
}

/// Deletes records whose key has a newer one.
pub(super) fn compact(connection: &Connection, log: &Log) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM log WHERE part = ?1 AND key IS NOT NULL AND at NOT IN
             (SELECT max(at) FROM log WHERE part = ?1 AND key IS NOT NULL GROUP BY key)",
        )?
        .execute([log.id])?;
    Ok(())
}

/// Gives up to `pages` of free space back to the file system.
pub(super) fn shrink(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .optional()?;
    Ok(())
}

/// Headers as one blob: for each the length of its name and of its value, then both.
fn pack(headers: &[Header]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut packed = Vec::with_capacity(
        headers
            .iter()
            .map(|h| h.name.len() + h.value.len() + 8)
            .sum(),
    );
    for header in headers {
        for part in [header.name.as_bytes(), &header.value] {
            packed.extend_from_slice(&(part.len() as u32).to_be_bytes());
            packed.extend_from_slice(part);
        }
    }
    Some(packed)
}

fn unpack(packed: &Bytes) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut rest = packed.clone();
    while let (Some(name), Some(value)) = (part(&mut rest), part(&mut rest)) {
        let name = String::from_utf8_lossy(&name).into_owned();
        headers.push(Header {
            name: name.into(),
            value,
        });
    }
    headers
}

fn part(rest: &mut Bytes) -> Option<Bytes> {
    let (length, _) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (rest.len() >= 4 + length).then(|| {
        let _ = rest.split_to(4);
        rest.split_to(length)
    })
}
