//! Notifications, their index rows and their calls.

use std::{collections::HashMap, fmt::Write};

use herald_schemas::{
    ids::NotificationId,
    records::{Attempt, Identity},
    rows::{Filter, Index, NotificationRow, Page, RowWrite},
    words::{Channel, Priority, Status, UnknownWord},
};
use rusqlite::{Connection, Row, ToSql, params};

use crate::{Layout, StoreError, json, to_json};

/// How many ids one statement asks for.
const IDS_AT_ONCE: usize = 200;

const SELECT: &str = "
    SELECT n.id, n.status, n.attempts, n.updated_at, n.sent_at, n.cancelled_at,
           n.provider_message_id, n.last_error, n.delivery_status, c.identity, c.message
    FROM notifications n JOIN contents c ON c.id = n.id";

fn row(row: &Row<'_>) -> Result<NotificationRow, StoreError> {
    let status: String = row.get(1)?;
    let last_error: Option<String> = row.get(7)?;
    let identity: String = row.get(9)?;
    let message: Option<String> = row.get(10)?;
    Ok(NotificationRow {
        status: status
            .parse()
            .map_err(|error: UnknownWord| StoreError::Fatal(error.to_string()))?,
        attempts: row.get(2)?,
        updated_at: row.get(3)?,
        sent_at: row.get(4)?,
        cancelled_at: row.get(5)?,
        provider_message_id: row.get(6)?,
        last_error: last_error
            .map(|text| json("last_error", &text))
            .transpose()?,
        delivery_status: row.get(8)?,
        identity: json("identity", &identity)?,
        message: message.map(|text| json("message", &text)).transpose()?,
    })
}

/// `?, ?, …`
fn marks(count: usize) -> String {
    let mut marks = "?, ".repeat(count);
    marks.truncate(marks.len().saturating_sub(2));
    marks
}

pub(super) fn read(
    connection: &Connection,
    ids: &[NotificationId],
) -> Result<Vec<Option<NotificationRow>>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IDS_AT_ONCE) {
        let sql = format!("{SELECT} WHERE n.id IN ({})", marks(ids.len()));
        let mut statement = connection.prepare_cached(&sql)?;
        let ids = ids.iter().map(|id| id.as_bytes().as_slice());
        let mut rows = statement.query(rusqlite::params_from_iter(ids))?;
        while let Some(one) = rows.next()? {
            let one = row(one)?;
            found.insert(one.id(), one);
        }
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub(super) fn write(
    connection: &Connection,
    writes: &[RowWrite],
    stamp: i64,
    layout: Layout,
) -> Result<(), StoreError> {
    let mut put_row = connection.prepare_cached(
        "INSERT INTO notifications (id, status, channel, priority, attempts, updated_at, sent_at,
                cancelled_at, provider_message_id, last_error, delivery_status, stamp, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (id) DO UPDATE SET status = ?2, channel = ?3, priority = ?4, attempts = ?5,
                updated_at = ?6, sent_at = ?7, cancelled_at = ?8, provider_message_id = ?9,
                last_error = ?10, delivery_status = ?11, stamp = ?12
         WHERE stamp <= ?12",
    )?;
    let mut put_content = connection.prepare_cached(
        "INSERT INTO contents (id, identity, message) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET identity = ?2, message = coalesce(?3, message)",
    )?;
    let mut put_ref =
        connection.prepare_cached("INSERT INTO refs VALUES (?, ?, ?) ON CONFLICT DO NOTHING")?;
    let mut put_call =
        connection.prepare_cached("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?)")?;
    for RowWrite {
        row,
        is_new,
        writes_message,
        calls,
    } in writes
    {
        let (id, identity) = (row.id(), &row.identity);
        put_row.execute(params![
            id.as_bytes(),
            row.status.as_str(),
            identity.channel.as_str(),
            identity.priority.as_str(),
            row.attempts,
            row.updated_at,
            row.sent_at,
            row.cancelled_at,
            row.provider_message_id,
            row.last_error.as_ref().map(to_json).transpose()?,
            row.delivery_status,
            stamp,
            layout.kept_until(identity),
        ])?;
        if *is_new || *writes_message {
            let message = row.message.as_ref().map(to_json).transpose()?;
            put_content.execute(params![id.as_bytes(), to_json(identity)?, message])?;
        }
        if *is_new {
            for entry in Index::of(identity) {
                let (kind, value) = entry.parts();
                put_ref.execute(params![kind, value, id.as_bytes()])?;
            }
        }
        for call in calls {
            put_call.execute(params![
                id.as_bytes(),
                call.number,
                call.step,
                to_json(call)?
            ])?;
        }
    }
    Ok(())
}

pub(super) fn calls(
    connection: &Connection,
    id: NotificationId,
) -> Result<Vec<Attempt>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT body FROM calls WHERE id = ? ORDER BY number, step")?;
    let mut rows = statement.query([id.as_bytes()])?;
    let mut calls = Vec::new();
    while let Some(row) = rows.next()? {
        calls.push(json("calls.body", &row.get::<_, String>(0)?)?);
    }
    Ok(calls)
}

pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    before: Option<NotificationId>,
    limit: usize,
) -> Result<Page<NotificationRow>, StoreError> {
    let query = Query::new(filter, before, limit);
    let mut statement = connection.prepare_cached(&query.sql)?;
    let parameters: Vec<&dyn ToSql> = query.parameters.iter().map(AsRef::as_ref).collect();
    let mut rows = statement.query(parameters.as_slice())?;
    let mut items = Vec::with_capacity(limit.min(1_000));
    while let Some(one) = rows.next()? {
        items.push(row(one)?);
    }
    // One more than asked for says that there is a next page.
    let more = items.len() > limit;
    items.truncate(limit);
    let next = more
        .then(|| items.last().map(NotificationRow::id))
        .flatten();
    Ok(Page { items, next })
}

/// A list's statement. Whatever the filter, it walks an index in the order of the list and stops
/// at the page's end.
struct Query {
    sql: String,
    parameters: Vec<Box<dyn ToSql>>,
}

impl Query {
    fn new(filter: &Filter, before: Option<NotificationId>, limit: usize) -> Self {
        let mut query = Self {
            sql: SELECT.to_owned(),
            parameters: Vec::new(),
        };
        // The column whose order the list has, of the table that is walked.
        let id = match &filter.index {
            Some(index) => {
                let (kind, value) = index.parts();
                query
                    .sql
                    .push_str(" JOIN refs r ON r.id = n.id WHERE r.kind = ");
                query.value(kind);
                query.sql.push_str(" AND r.value = ");
                query.value(value.to_owned());
                "r.id"
            }
            None => {
                query.sql.push_str(" WHERE 1");
                "n.id"
            }
        };
        let until = filter.until.map(NotificationId::first_at);
        let upper = [before, until].into_iter().flatten().min();
        query.compare(id, "<", upper.map(|id| id.as_bytes().to_vec()));
        let from = filter
            .from
            .map(|from| NotificationId::first_at(from).as_bytes().to_vec());
        query.compare(id, ">=", from);
        query.compare("n.status", "=", filter.status.map(Status::as_str));
        query.compare("n.channel", "=", filter.channel.map(Channel::as_str));
        query.compare("n.priority", "=", filter.priority.map(Priority::as_str));
        let _ = write!(query.sql, " ORDER BY {id} DESC LIMIT ");
        query.value(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX));
        query
    }

    fn compare<T: ToSql + 'static>(&mut self, column: &str, operator: &str, value: Option<T>) {
        if let Some(value) = value {
            let _ = write!(self.sql, " AND {column} {operator} ");
            self.value(value);
        }
    }

    fn value<T: ToSql + 'static>(&mut self, value: T) {
        self.sql.push('?');
        self.parameters.push(Box::new(value));
    }
}

pub(super) fn expire(connection: &Connection, now_ms: i64, limit: usize) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n.id, c.identity FROM notifications n JOIN contents c ON c.id = n.id
         WHERE n.expires_at <= ? ORDER BY n.expires_at LIMIT ?",
    )?;
    let mut rows = statement.query(params![now_ms, limit as i64])?;
    let mut expired: Vec<([u8; 16], Identity)> = Vec::new();
    while let Some(row) = rows.next()? {
        expired.push((row.get(0)?, json("identity", &row.get::<_, String>(1)?)?));
    }
    for (id, identity) in expired {
        for table in ["notifications", "contents", "calls"] {
            connection
                .prepare_cached(&format!("DELETE FROM {table} WHERE id = ?"))?
                .execute([id])?;
        }
        for entry in Index::of(&identity) {
            let (kind, value) = entry.parts();
            connection
                .prepare_cached("DELETE FROM refs WHERE kind = ? AND value = ? AND id = ?")?
                .execute(params![kind, value, id])?;
        }
    }
    Ok(())
}
