//! Event sources, which both seeds see alike.

use poem_openapi::{ApiResponse, OpenApi, param::Path, payload::Json};

use super::{SeedChanged, SeedDone, SeedList, SeedOne, changed, deleted};
use crate::{
    Parts, Tag,
    body::Body,
    catalog::{self, Asked},
    fault::Fault,
    keys::{Manager, Reader},
    params::{Given, PageNumber, PerPage},
    sources::{NewSource, Source, SourceChange, change, create, delete, find, shown},
};

const WHAT: &str = "Event source";

#[derive(ApiResponse)]
enum Created {
    /// Made.
    #[oai(status = 201)]
    Created(Json<SeedChanged<Source>>),
}

pub(crate) struct Routes;

#[OpenApi(tag = "Tag::FirstSeed")]
impl Routes {
    /// Makes an event source, as the first seed does.
    #[oai(path = "/event-sources", method = "post")]
    async fn create(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: Body<NewSource>,
    ) -> Result<Created, Fault> {
        let source = create(&api, &body.value).await?;
        Ok(Created::Created(Json(changed(WHAT, "created", source))))
    }

    /// Lists the event sources, as the first seed does.
    #[oai(path = "/event-sources", method = "get")]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<SeedList<Source>>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let sources = api.store.catalog().await?.sources;
        let (data, meta) = catalog::page(sources, &asked, |source| source.id, shown)?;
        Ok(Json(SeedList { data, meta }))
    }

    /// Shows an event source, as the first seed does.
    #[oai(path = "/event-sources/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
    ) -> Result<Json<SeedOne<Source>>, Fault> {
        let data = shown(&find(&api, &id).await?);
        Ok(Json(SeedOne { data }))
    }

    /// Changes what is given of an event source, as the first seed does.
    #[oai(path = "/event-sources/:id", method = "put")]
    async fn change(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
        body: Body<SourceChange>,
    ) -> Result<Json<SeedChanged<Source>>, Fault> {
        let source = change(&api, &id, &body.value).await?;
        Ok(Json(changed(WHAT, "updated", source)))
    }

    /// Changes what is given of an event source, as PUT does.
    #[oai(path = "/event-sources/:id", method = "patch")]
    async fn change_some(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
        body: Body<SourceChange>,
    ) -> Result<Json<SeedChanged<Source>>, Fault> {
        let source = change(&api, &id, &body.value).await?;
        Ok(Json(changed(WHAT, "updated", source)))
    }

    /// Deletes an event source that no rule names, as the first seed does.
    #[oai(path = "/event-sources/:id", method = "delete")]
    async fn delete(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
    ) -> Result<Json<SeedDone>, Fault> {
        delete(&api, &id).await?;
        Ok(Json(deleted(WHAT)))
    }
}
