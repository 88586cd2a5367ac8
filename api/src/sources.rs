//! Event sources: which events may be sent.

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{EventSource, Kind},
    ids::SourceId,
};
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};
use serde_json::Value;

use crate::{
    Api, Parts, Tag,
    body::{Body, Fields},
    catalog::{Deleted, put, remove},
    fault::{Fault, Faults},
    keys::Caller,
    time,
};

/// A kind of event.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewSource {
    /// Unique, such as `order_created`.
    name: String,
    description: Option<String>,
    /// JSON Schema of the payload.
    schema: Option<Value>,
    /// Whether its events are accepted; true unless said.
    is_active: Option<bool>,
}

/// An event source.
#[derive(Object)]
struct Source {
    id: String,
    name: String,
    description: Option<String>,
    schema: Option<Value>,
    is_active: bool,
    created_at: String,
    updated_at: String,
}

/// Every event source.
#[derive(Object)]
struct Sources {
    data: Vec<Source>,
}

#[derive(ApiResponse)]
enum Created {
    /// Made.
    #[oai(status = 201)]
    Created(Json<Source>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Catalog")]
impl Routes {
    /// Makes an event source.
    #[oai(path = "/event-sources", method = "post")]
    async fn create(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        body: Body<NewSource>,
    ) -> Result<Created, Fault> {
        let source = check(&body.value, None)?;
        put(
            &api,
            Kind::Source,
            source.id.uuid(),
            1,
            &source.name,
            &source,
        )
        .await?;
        Ok(Created::Created(Json(shown(&source))))
    }

    /// Lists the event sources.
    #[oai(path = "/event-sources", method = "get")]
    async fn list(&self, _caller: Caller, api: Parts<'_>) -> Result<Json<Sources>, Fault> {
        let data = api
            .store
            .catalog()
            .await?
            .sources
            .iter()
            .map(shown)
            .collect();
        Ok(Json(Sources { data }))
    }

    /// Shows an event source.
    #[oai(path = "/event-sources/:id", method = "get")]
    async fn one(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        id: Path<String>,
    ) -> Result<Json<Source>, Fault> {
        Ok(Json(shown(&find(&api, &id).await?)))
    }

    /// Changes what is given of an event source.
    #[oai(path = "/event-sources/:id", method = "put")]
    async fn change(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        id: Path<String>,
        body: Body<NewSource>,
    ) -> Result<Json<Source>, Fault> {
        let source = check(&body.value, Some(find(&api, &id).await?))?;
        put(
            &api,
            Kind::Source,
            source.id.uuid(),
            2,
            &source.name,
            &source,
        )
        .await?;
        Ok(Json(shown(&source)))
    }

    /// Deletes an event source; its events are refused from now on.
    #[oai(path = "/event-sources/:id", method = "delete")]
    async fn delete(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        id: Path<String>,
    ) -> Result<Deleted, Fault> {
        let source = find(&api, &id).await?;
        remove(&api, Kind::Source, source.id.uuid(), "Event source").await
    }
}

async fn find(api: &Api, id: &str) -> Result<EventSource, Fault> {
    let missing = || Fault::not_found("Event source");
    let id: SourceId = id.parse().map_err(|_| missing())?;
    let sources = api.store.catalog().await?.sources;
    sources
        .into_iter()
        .find(|source| source.id == id)
        .ok_or_else(missing)
}

fn check(body: &Value, before: Option<EventSource>) -> Result<EventSource, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let is_new = before.is_none();
    let name = fields.needed(is_new, "name", 255);
    let description = fields.text("description", 4_096);
    let schema = fields.object("schema").cloned().map(Value::Object);
    let is_active = fields.boolean("is_active");
    let now = now();
    let mut source = before.unwrap_or_else(|| EventSource {
        id: SourceId::random(),
        name: String::new(),
        description: None,
        schema: None,
        is_active: true,
        created_at: now,
        updated_at: now,
    });
    if fields.has("description") {
        source.description = description;
    }
    if fields.has("schema") {
        source.schema = schema;
    }
    faults.none()?;
    source.name = name.unwrap_or(source.name);
    source.is_active = is_active.unwrap_or(source.is_active);
    source.updated_at = now;
    Ok(source)
}

fn shown(source: &EventSource) -> Source {
    Source {
        id: source.id.to_string(),
        name: source.name.clone(),
        description: source.description.clone(),
        schema: source.schema.clone(),
        is_active: source.is_active,
        created_at: time::format(source.created_at),
        updated_at: time::format(source.updated_at),
    }
}
