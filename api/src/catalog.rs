//! What event sources, templates and rules share: how they are changed.

use herald_schemas::catalog::Kind;
use herald_store::{CatalogChange, CatalogOutcome};
use poem_openapi::ApiResponse;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Api,
    fault::{Fault, Faults},
};

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
    let body =
        serde_json::to_string(object).map_err(|error| Fault::bad_request(error.to_string()))?;
    let change = CatalogChange::Put {
        kind,
        id,
        version,
        name: name.to_owned(),
        body,
    };
    match api.store.change_catalog(change).await? {
        CatalogOutcome::Changed(version) => {
            // The next request of this process sees it, however soon it comes.
            api.catalogs.at_least(version).await?;
            Ok(())
        }
        CatalogOutcome::NameTaken => Err(Faults::only("name", "The name has already been taken.")),
        CatalogOutcome::Conflict => Err(Fault::conflict(format!(
            "The {kind} was changed by somebody else."
        ))),
    }
}

/// Takes an object out of the catalog.
pub(crate) async fn remove(api: &Api, kind: Kind, id: Uuid, what: &str) -> Result<Deleted, Fault> {
    match api
        .store
        .change_catalog(CatalogChange::Delete { kind, id })
        .await?
    {
        CatalogOutcome::Changed(version) => {
            api.catalogs.at_least(version).await?;
            Ok(Deleted::Deleted)
        }
        CatalogOutcome::NameTaken | CatalogOutcome::Conflict => Err(Fault::not_found(what)),
    }
}
