//! The catalog and its version: one partition, every change under the condition that the version
//! is still the one that the change was decided at.

use herald_schemas::catalog::{Catalog, Kind, TemplateVersion};
use scylla::{serialize::row::SerializeRow, statement::prepared::PreparedStatement};
use uuid::Uuid;

use super::Connected;
use crate::{CatalogChange, CatalogOutcome, StoreError, json};

/// How often a change is decided anew when others come first.
const TRIES: usize = 50;

pub(super) async fn version(store: &Connected) -> Result<i64, StoreError> {
    read_version(store, &store.statements.get_catalog_version).await
}

/// The version of which everything can be read: a change that some nodes have and others lack is
/// finished first, or the objects read next could be older than the version.
async fn settled_version(store: &Connected) -> Result<i64, StoreError> {
    read_version(store, &store.statements.get_settled_version).await
}

async fn read_version(store: &Connected, read: &PreparedStatement) -> Result<i64, StoreError> {
    let row: Option<(Option<i64>,)> = store.session.row(read, ()).await?;
    Ok(row.and_then(|(version,)| version).unwrap_or(0))
}

pub(super) async fn read(store: &Connected) -> Result<Catalog, StoreError> {
    type Row = (Option<i64>, Option<String>, Option<String>, Option<bool>);
    // The version first: what is read after it is at least that new.
    let mut catalog = Catalog {
        version: settled_version(store).await?,
        ..Catalog::default()
    };
    let rows: Vec<Row> = store
        .session
        .all_rows(&store.statements.get_catalog, ())
        .await?;
    for (_, kind, body, retired) in rows {
        // Who holds a name has no body.
        let (Some(kind), Some(body)) = (kind, body) else {
            continue;
        };
        match kind.as_str() {
            "source" => catalog.sources.push(json("catalog.body", &body)?),
            "rule" => catalog.rules.push(json("catalog.body", &body)?),
            "API key" => catalog.api_keys.push(json("catalog.body", &body)?),
            "controls" => catalog.controls = Some(json("catalog.body", &body)?),
            "template" => catalog.templates.push(TemplateVersion {
                template: json("catalog.body", &body)?,
                retired: retired.unwrap_or(false),
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

pub(super) async fn change(
    store: &Connected,
    change: &CatalogChange,
) -> Result<CatalogOutcome, StoreError> {
    for _ in 0..TRIES {
        // Read first: whatever changes after it makes the condition fail.
        let at = settled_version(store).await?;
        let writes = match change {
            CatalogChange::Put {
                kind,
                id,
                version,
                seen,
                name,
                body,
            } => {
                if seen.is_some_and(|seen| seen != at) {
                    return Ok(CatalogOutcome::Stale);
                }
                put(store, *kind, *id, *version, name, body).await?
            }
            CatalogChange::Delete { kind, id } => delete(store, *kind, *id).await?,
        };
        let mut writes = match writes {
            Decided::Writes(writes) => writes,
            Decided::Unchanged => return Ok(CatalogOutcome::Changed(at)),
            Decided::Refused(outcome) => return Ok(outcome),
        };
        let next = at + 1;
        writes.push(match at {
            0 => (&store.statements.first_version, Box::new((next,))),
            _ => (&store.statements.next_version, Box::new((next, at))),
        });
        if store.session.apply(writes).await? {
            return Ok(CatalogOutcome::Changed(next));
        }
    }
    Err(StoreError::Unavailable(format!(
        "the catalog changed {TRIES} times meanwhile"
    )))
}

type Writes<'s> = Vec<(&'s PreparedStatement, Box<dyn SerializeRow + Send + Sync>)>;

enum Decided<'s> {
    /// To be done, if nothing changes meanwhile.
    Writes(Writes<'s>),
    /// It was done before, word for word.
    Unchanged,
    Refused(CatalogOutcome),
}

/// An object's newest version.
struct Newest {
    version: i32,
    name: String,
    body: String,
    retired: bool,
}

async fn newest(store: &Connected, kind: Kind, id: Uuid) -> Result<Option<Newest>, StoreError> {
    type Row = (i32, Option<String>, Option<String>, Option<bool>);
    let row: Option<Row> = store
        .session
        .row(
            &store.statements.get_object,
            (kind.as_str(), id.to_string()),
        )
        .await?;
    Ok(row.and_then(|(version, name, body, retired)| {
        Some(Newest {
            version,
            name: name?,
            body: body?,
            retired: retired.unwrap_or(false),
        })
    }))
}

/// The kind of the rows that say who holds a name.
fn names_of(kind: Kind) -> String {
    format!("{kind} name")
}

async fn is_taken(store: &Connected, kind: Kind, id: Uuid, name: &str) -> Result<bool, StoreError> {
    let row: Option<(Option<Uuid>,)> = store
        .session
        .row(&store.statements.get_holder, (names_of(kind), name))
        .await?;
    let holder = row.and_then(|(holder,)| holder);
    Ok(holder.is_some_and(|holder| holder != id))
}

async fn put<'s>(
    store: &'s Connected,
    kind: Kind,
    id: Uuid,
    version: i32,
    name: &str,
    body: &str,
) -> Result<Decided<'s>, StoreError> {
    let newest = newest(store, kind, id).await?;
    let is_template = kind == Kind::Template;
    if let Some(newest) = &newest {
        if newest.retired {
            return Ok(Decided::Refused(CatalogOutcome::Conflict));
        }
        let is_the_same = newest.name == name && newest.body == body;
        if is_the_same && (!is_template || newest.version == version) {
            return Ok(Decided::Unchanged);
        }
    }
    let follows = match &newest {
        None => version == 1,
        Some(newest) if is_template => version == newest.version + 1,
        Some(_) => version > 1,
    };
    if !follows {
        return Ok(Decided::Refused(CatalogOutcome::Conflict));
    }
    if is_taken(store, kind, id, name).await? {
        return Ok(Decided::Refused(CatalogOutcome::NameTaken));
    }
    let (statements, key) = (&store.statements, id.to_string());
    let mut writes: Writes<'s> = Vec::new();
    if let Some(newest) = &newest {
        if newest.name != name {
            let values = (names_of(kind), newest.name.clone());
            writes.push((&statements.delete_holder, Box::new(values)));
        }
        // Sources and rules have no history: theirs is one row, replaced.
        if is_template {
            let values = (kind.as_str(), key.clone(), newest.version);
            writes.push((&statements.retire_object, Box::new(values)));
        }
    }
    let number = if is_template { version } else { 1 };
    let values = (kind.as_str(), key, number, name.to_owned(), body.to_owned());
    writes.push((&statements.put_object, Box::new(values)));
    let values = (names_of(kind), name.to_owned(), id);
    writes.push((&statements.put_holder, Box::new(values)));
    Ok(Decided::Writes(writes))
}

async fn delete<'s>(store: &'s Connected, kind: Kind, id: Uuid) -> Result<Decided<'s>, StoreError> {
    let newest = newest(store, kind, id).await?;
    let Some(newest) = newest.filter(|newest| !newest.retired) else {
        return Ok(Decided::Refused(CatalogOutcome::Conflict));
    };
    let statements = &store.statements;
    let statement = if kind == Kind::Template {
        &statements.retire_object
    } else {
        &statements.delete_object
    };
    let object = (kind.as_str(), id.to_string(), newest.version);
    let name = (names_of(kind), newest.name);
    Ok(Decided::Writes(vec![
        (statement, Box::new(object)),
        (&statements.delete_holder, Box::new(name)),
    ]))
}
