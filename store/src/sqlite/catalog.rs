//! The catalog and its version.

use herald_schemas::catalog::{Catalog, Kind, TemplateVersion};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::{CatalogChange, CatalogOutcome, StoreError, json};

pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT version FROM catalog_version")?
        .query_row([], |row| row.get(0))?)
}

pub(super) fn read(connection: &Connection) -> Result<Catalog, StoreError> {
    // The version first: what is read after it is at least that new.
    let mut catalog = Catalog {
        version: version(connection)?,
        ..Catalog::default()
    };
    let mut statement = connection
        .prepare_cached("SELECT kind, body, retired FROM catalog ORDER BY kind, id, version")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, body): (String, String) = (row.get(0)?, row.get(1)?);
        match kind.as_str() {
            "source" => catalog.sources.push(json("catalog.body", &body)?),
            "rule" => catalog.rules.push(json("catalog.body", &body)?),
            "API key" => catalog.api_keys.push(json("catalog.body", &body)?),
            "controls" => catalog.controls = Some(json("catalog.body", &body)?),
            "template" => catalog.templates.push(TemplateVersion {
                template: json("catalog.body", &body)?,
                retired: row.get(2)?,
            }),
            other => {
                return Err(StoreError::Fatal(format!(
                    "catalog.kind: unknown kind {other:?}"
                )));
            }
        }
    }
    Ok(catalog)
}

pub(super) fn change(
    connection: &Connection,
    change: CatalogChange,
) -> Result<CatalogOutcome, StoreError> {
    match change {
        CatalogChange::Put {
            kind,
            id,
            version,
            seen,
            name,
            body,
        } => {
            let at = self::version(connection)?;
            if seen.is_some_and(|seen| seen != at) {
                return Ok(CatalogOutcome::Stale);
            }
            put(connection, kind, id, version, &name, &body)
        }
        CatalogChange::Delete { kind, id } => delete(connection, kind, id),
    }
}

/// An object's newest version.
struct Newest {
    version: i32,
    name: String,
    body: String,
    retired: bool,
}

fn newest(connection: &Connection, kind: Kind, id: Uuid) -> Result<Option<Newest>, StoreError> {
    let newest = connection
        .prepare_cached(
            "SELECT version, name, body, retired FROM catalog WHERE kind = ? AND id = ?
             ORDER BY version DESC LIMIT 1",
        )?
        .query_row(params![kind.as_str(), id.as_bytes()], |row| {
            Ok(Newest {
                version: row.get(0)?,
                name: row.get(1)?,
                body: row.get(2)?,
                retired: row.get(3)?,
            })
        })
        .optional()?;
    Ok(newest)
}

fn put(
    connection: &Connection,
    kind: Kind,
    id: Uuid,
    version: i32,
    name: &str,
    body: &str,
) -> Result<CatalogOutcome, StoreError> {
    let newest = newest(connection, kind, id)?;
    let is_template = kind == Kind::Template;
    if let Some(newest) = &newest {
        if newest.retired {
            return Ok(CatalogOutcome::Conflict);
        }
        let is_the_same = newest.name == name && newest.body == body;
        if is_the_same && (!is_template || newest.version == version) {
            return Ok(CatalogOutcome::Changed(self::version(connection)?));
        }
    }
    let follows = match &newest {
        None => version == 1,
        Some(newest) if is_template => version == newest.version + 1,
        Some(_) => version > 1,
    };
    if !follows {
        return Ok(CatalogOutcome::Conflict);
    }
    if is_taken(connection, kind, id, name)? {
        return Ok(CatalogOutcome::NameTaken);
    }
    let older = if is_template {
        "UPDATE catalog SET retired = 1 WHERE kind = ? AND id = ?"
    } else {
        "DELETE FROM catalog WHERE kind = ? AND id = ?"
    };
    connection
        .prepare_cached(older)?
        .execute(params![kind.as_str(), id.as_bytes()])?;
    connection
        .prepare_cached("INSERT INTO catalog VALUES (?, ?, ?, ?, ?, 0)")?
        .execute(params![kind.as_str(), id.as_bytes(), version, name, body])?;
    count_up(connection)
}

fn is_taken(connection: &Connection, kind: Kind, id: Uuid, name: &str) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM catalog
             WHERE kind = ? AND name = ? AND retired = 0 AND id <> ?)",
        )?
        .query_row(params![kind.as_str(), name, id.as_bytes()], |row| {
            row.get(0)
        })?)
}

fn delete(connection: &Connection, kind: Kind, id: Uuid) -> Result<CatalogOutcome, StoreError> {
    let sql = if kind == Kind::Template {
        "UPDATE catalog SET retired = 1 WHERE kind = ? AND id = ? AND retired = 0"
    } else {
        "DELETE FROM catalog WHERE kind = ? AND id = ?"
    };
    let changed = connection
        .prepare_cached(sql)?
        .execute(params![kind.as_str(), id.as_bytes()])?;
    if changed == 0 {
        return Ok(CatalogOutcome::Conflict);
    }
    count_up(connection)
}

fn count_up(connection: &Connection) -> Result<CatalogOutcome, StoreError> {
    connection
        .prepare_cached("UPDATE catalog_version SET version = version + 1")?
        .execute([])?;
    Ok(CatalogOutcome::Changed(version(connection)?))
}
