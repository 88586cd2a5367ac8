//! Event sources: which events may be sent.

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{EventSource, Kind, Rule},
    ids::SourceId,
};
use herald_stages::check_schema;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json, types::Example};
use serde_json::Value;

use crate::{
    Api, Parts, Tag,
    body::{self, Body, Fields, Flag},
    catalog::{self, Asked, CatalogMeta, Deleted, put, remove},
    example,
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    params::{Given, PageNumber, PerPage},
    time,
};

/// A kind of event.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct NewSource {
    /// Unique, such as `order_created`.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: String,
    /// For people.
    #[oai(nullable, validator(max_length = 4096))]
    description: Option<String>,
    /// JSON Schema of the payload, 256 KiB at most: whole in itself, its references JSON pointers,
    /// its patterns without look-around. An event that is against it is refused.
    #[oai(nullable)]
    schema: Option<body::Dictionary>,
    /// Whether its events are accepted; true unless said.
    #[oai(nullable)]
    is_active: Option<Flag>,
}

impl Example for NewSource {
    fn example() -> Self {
        Self {
            name: example::EVENT.to_owned(),
            description: Some("An order was placed".to_owned()),
            schema: Some(example::schema().into()),
            is_active: Some(Flag(true)),
        }
    }
}

/// What is to change of an event source.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct SourceChange {
    /// Unique, such as `order_created`; fixed while rules name it.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: Option<String>,
    /// For people; null takes it away.
    #[oai(nullable, validator(max_length = 4096))]
    description: Option<String>,
    /// JSON Schema of the payload; null takes it away.
    #[oai(nullable)]
    schema: Option<body::Dictionary>,
    /// Whether its events are accepted.
    #[oai(nullable)]
    is_active: Option<Flag>,
}

impl Example for SourceChange {
    fn example() -> Self {
        Self {
            name: None,
            description: Some("An order was placed and paid".to_owned()),
            schema: None,
            is_active: Some(Flag(false)),
        }
    }
}

/// An event source.
#[derive(Object)]
#[oai(example)]
pub(crate) struct Source {
    /// The event source.
    id: String,
    /// Unique.
    name: String,
    /// For people.
    #[oai(nullable)]
    description: Option<String>,
    /// JSON Schema of the payload.
    #[oai(nullable)]
    schema: Option<Value>,
    /// Whether its events are accepted.
    is_active: bool,
    /// ISO 8601.
    created_at: String,
    /// ISO 8601.
    updated_at: String,
}

impl Example for Source {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            name: example::EVENT.to_owned(),
            description: Some("An order was placed".to_owned()),
            schema: Some(Value::Object(example::schema().into_iter().collect())),
            is_active: true,
            created_at: example::TIME.to_owned(),
            updated_at: example::TIME.to_owned(),
        }
    }
}

/// A part of the event sources, newest first.
#[derive(Object)]
struct Sources {
    /// The event sources.
    data: Vec<Source>,
    /// Which part of the list this is.
    meta: CatalogMeta,
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
        _manager: Manager,
        api: Parts<'_>,
        body: Body<NewSource>,
    ) -> Result<Created, Fault> {
        create(&api, &body.value)
            .await
            .map(|source| Created::Created(Json(source)))
    }

    /// Lists the event sources.
    #[oai(path = "/event-sources", method = "get")]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<Sources>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let sources = api.store.catalog().await?.sources;
        let (data, meta) = catalog::page(sources, &asked, |source| source.id, shown)?;
        Ok(Json(Sources { data, meta }))
    }

    /// Shows an event source.
    #[oai(path = "/event-sources/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
    ) -> Result<Json<Source>, Fault> {
        Ok(Json(shown(&find(&api, &id).await?)))
    }

    /// Changes what is given of an event source.
    #[oai(path = "/event-sources/:id", method = "put")]
    async fn change(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
        body: Body<SourceChange>,
    ) -> Result<Json<Source>, Fault> {
        change(&api, &id, &body.value).await.map(Json)
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
    ) -> Result<Json<Source>, Fault> {
        change(&api, &id, &body.value).await.map(Json)
    }

    /// Deletes an event source that no rule names; its events are refused from now on.
    #[oai(path = "/event-sources/:id", method = "delete")]
    async fn delete(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The event source's id.
        id: Path<String>,
    ) -> Result<Deleted, Fault> {
        delete(&api, &id).await?;
        Ok(Deleted::Deleted)
    }
}

/// Takes out an event source that no rule names.
pub(crate) async fn delete(api: &Api, id: &str) -> Result<(), Fault> {
    let source = find(api, id).await?;
    let names_it = |rule: &Rule| rule.event == source.name;
    if let Some(rules) = catalog::rules_that(api, names_it).await? {
        let text = format!("The event source is used by the rules {rules}.");
        return Err(Fault::conflict(text));
    }
    remove(api, Kind::Source, source.id.uuid(), "Event source").await
}

pub(crate) async fn create(api: &Api, body: &Value) -> Result<Source, Fault> {
    let source = check(body, None)?;
    put(
        api,
        Kind::Source,
        source.id.uuid(),
        1,
        &source.name,
        &source,
    )
    .await?;
    Ok(shown(&source))
}

pub(crate) async fn change(api: &Api, id: &str, body: &Value) -> Result<Source, Fault> {
    let before = find(api, id).await?;
    let name = before.name.clone();
    let source = check(body, Some(before))?;
    // Rules name their event, so under another name they would never be asked again.
    if source.name != name
        && let Some(rules) = catalog::rules_that(api, |rule| rule.event == name).await?
    {
        let text = format!("The name is used by the rules {rules}.");
        return Err(Faults::only("name", text));
    }
    put(
        api,
        Kind::Source,
        source.id.uuid(),
        2,
        &source.name,
        &source,
    )
    .await?;
    Ok(shown(&source))
}

pub(crate) async fn find(api: &Api, id: &str) -> Result<EventSource, Fault> {
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
    let schema = schema(&mut fields);
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

/// The payload's JSON Schema.
fn schema(fields: &mut Fields<'_, '_>) -> Option<Value> {
    let schema = Value::Object(fields.object("schema")?.clone());
    if let Err(error) = check_schema(&schema) {
        fields.fault("schema", format!("The schema is not usable: {error}."));
    }
    Some(schema)
}

pub(crate) fn shown(source: &EventSource) -> Source {
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
