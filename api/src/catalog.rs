//! What event sources, templates and rules share: how they are changed and listed.

use herald_schemas::catalog::{Kind, Rule};
use herald_store::{CatalogChange, CatalogOutcome, StoreError};
use poem_openapi::{ApiResponse, Object, types::Example};
use serde::Serialize;
use tracing::warn;
use uuid::Uuid;

use crate::{
    Api,
    fault::{Fault, Faults},
    pages, to_the_end,
};

/// How many rules are named when something is in use.
const NAMED: usize = 5;

/// Which part of a list this is.
#[derive(Object)]
#[oai(example)]
pub(crate) struct CatalogMeta {
    /// From 1.
    current_page: usize,
    /// How many a page shows at most.
    per_page: usize,
    /// How many there are.
    total: usize,
}

impl Example for CatalogMeta {
    fn example() -> Self {
        Self {
            current_page: 1,
            per_page: 25,
            total: 1,
        }
    }
}

/// Which page is asked for.
pub(crate) struct Asked {
    /// From 1.
    pub(crate) page: Option<String>,
    /// 25 unless said.
    pub(crate) per_page: Option<String>,
}

/// A page of `all`, newest first.
pub(crate) fn page<T, Shown, Id: Ord>(
    mut all: Vec<T>,
    asked: &Asked,
    id: impl Fn(&T) -> Id,
    shown: impl Fn(&T) -> Shown,
) -> Result<(Vec<Shown>, CatalogMeta), Fault> {
    let mut faults = Faults::default();
    let per_page = pages::per_page(asked.per_page.as_deref(), &mut faults);
    let current_page = pages::any_page(asked.page.as_deref(), &mut faults);
    faults.none()?;
    all.sort_by_key(|one| std::cmp::Reverse(id(one)));
    let skipped = (current_page - 1).saturating_mul(per_page);
    let data = all.iter().skip(skipped).take(per_page).map(shown).collect();
    let meta = CatalogMeta {
        current_page,
        per_page,
        total: all.len(),
    };
    Ok((data, meta))
}

/// It is gone.
#[derive(ApiResponse)]
pub(crate) enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Deleted,
}

/// Writes an object of the catalog.
pub(crate) async fn put(
    api: &Api,
    kind: Kind,
    id: Uuid,
    version: i32,
    name: &str,
    object: &impl Serialize,
) -> Result<(), Fault> {
    let change = CatalogChange::Put {
        kind,
        id,
        version,
        seen: None,
        name: name.to_owned(),
        body: json(object)?,
    };
    match apply(api, change).await? {
        CatalogOutcome::Changed(_) => Ok(()),
        CatalogOutcome::NameTaken => Err(Faults::only("name", "The name has already been taken.")),
        CatalogOutcome::Conflict | CatalogOutcome::Stale => Err(Fault::conflict(format!(
            "The {kind} was changed by somebody else."
        ))),
    }
}

fn json(object: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(object).map_err(|error| Fault::bad_request(error.to_string()))
}

/// Writes an object of the catalog, if the catalog still is at the version that was `seen`.
pub(crate) async fn put_unless_changed(
    api: &Api,
    kind: Kind,
    id: Uuid,
    (version, seen): (i32, i64),
    name: &str,
    object: &impl Serialize,
) -> Result<bool, Fault> {
    let change = CatalogChange::Put {
        kind,
        id,
        version,
        seen: Some(seen),
        name: name.to_owned(),
        body: json(object)?,
    };
    Ok(matches!(
        apply(api, change).await?,
        CatalogOutcome::Changed(_)
    ))
}

/// Takes an object out of the catalog.
pub(crate) async fn remove(api: &Api, kind: Kind, id: Uuid, what: &str) -> Result<(), Fault> {
    match apply(api, CatalogChange::Delete { kind, id }).await? {
        CatalogOutcome::Changed(_) => Ok(()),
        _ => Err(Fault::not_found(what)),
    }
}

/// Makes the change, and makes it known here, so that the next request of this process sees it,
/// however soon it comes.
async fn apply(api: &Api, change: CatalogChange) -> Result<CatalogOutcome, Fault> {
    let api = api.clone();
    to_the_end(async move {
        let outcome = api.store.change_catalog(change).await?;
        // The change itself is done, so a failure here is no answer to the request that made it.
        if let CatalogOutcome::Changed(version) = outcome
            && let Err(error) = api.catalogs.at_least(version).await
        {
            warn!(%error, "the catalog changed; this process has yet to read it");
        }
        Ok::<_, StoreError>(outcome)
    })
    .await
}

/// The first few of the rules that `uses` says, by name; none when there are none.
pub(crate) async fn rules_that(
    api: &Api,
    uses: impl Fn(&Rule) -> bool,
) -> Result<Option<String>, Fault> {
    let rules = api.store.catalog().await?.rules;
    let users: Vec<&Rule> = rules.iter().filter(|rule| uses(rule)).collect();
    let names = users.iter().take(NAMED);
    let names: Vec<String> = names.map(|rule| format!("{:?}", rule.name)).collect();
    Ok(match users.len() {
        0 => None,
        all if all > NAMED => Some(format!("{} and {} more", names.join(", "), all - NAMED)),
        _ => Some(names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_from_the_newest_on() {
        let cut = |asked: &str, per_page: &str| {
            let asked = Asked {
                page: Some(asked.to_owned()),
                per_page: Some(per_page.to_owned()),
            };
            let (data, meta) = page(vec![1, 3, 2], &asked, |n| *n, |n| *n).ok()?;
            Some((data, meta.total))
        };
        assert_eq!(cut("", ""), Some((vec![3, 2, 1], 3)));
        assert_eq!(cut("2", "2"), Some((vec![1], 3)));
        assert_eq!(cut("9", "2"), Some((vec![], 3)));
        assert_eq!(cut("10000", "100"), Some((vec![], 3)));
        for (page, per_page) in [
            ("0", "2"),
            ("1", "0"),
            ("1", "101"),
            ("x", "2"),
            ("10001", "2"),
        ] {
            assert_eq!(cut(page, per_page), None, "{page} {per_page}");
        }
    }
}
