//! Rules: which notification follows from which event.

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{Kind, Rule},
    ids::{RuleId, TemplateId},
    words::Priority,
};
use herald_stages::{check_when, snapshot::Snapshot, template};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use serde_json::{Map, Value};

use crate::{
    Api, Parts, Tag,
    body::{self, Body, Fields},
    catalog::{self, Asked, CatalogMeta, Deleted, put, remove},
    fault::{Fault, Faults},
    keys::Caller,
    time,
};

/// A rule.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewRule {
    /// Unique.
    #[oai(validator(max_length = 255))]
    name: String,
    /// The name of an event source.
    event: String,
    /// The template that says it.
    template_id: String,
    /// A template over the payload, such as `{{customer.email}}`.
    recipient: String,
    /// Dotted payload path → exactly equal value; all must hold.
    conditions: Option<body::Object>,
    /// A CEL expression over `payload` and `event`, asked after the conditions.
    when: Option<String>,
    /// high, normal (the default) or low.
    priority: Option<String>,
    /// Whether it is asked at all; true unless said.
    is_active: Option<bool>,
}

/// What is to change of a rule.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct RuleChange {
    /// Unique.
    #[oai(validator(max_length = 255))]
    name: Option<String>,
    /// The name of an event source.
    event: Option<String>,
    /// The template that says it.
    template_id: Option<String>,
    /// A template over the payload, such as `{{customer.email}}`.
    recipient: Option<String>,
    /// Dotted payload path → exactly equal value; all must hold.
    conditions: Option<body::Object>,
    /// A CEL expression over `payload` and `event`; null takes it away.
    when: Option<String>,
    /// high, normal or low.
    priority: Option<String>,
    /// Whether it is asked at all.
    is_active: Option<bool>,
}

/// A rule.
#[derive(Object)]
struct ShownRule {
    /// The rule.
    id: String,
    /// Unique.
    name: String,
    /// The name of an event source.
    event: String,
    /// The template that says it.
    template_id: String,
    /// A template over the payload.
    recipient: String,
    /// Dotted payload path → exactly equal value; all must hold.
    conditions: body::Object,
    /// A CEL expression, asked after the conditions.
    #[oai(nullable)]
    when: Option<String>,
    /// high, normal or low.
    priority: String,
    /// Whether it is asked at all.
    is_active: bool,
    /// ISO 8601.
    created_at: String,
    /// ISO 8601.
    updated_at: String,
}

/// Every rule.
#[derive(Object)]
struct Rules {
    /// The rules.
    data: Vec<ShownRule>,
    /// Which part of the list this is.
    meta: CatalogMeta,
}

#[derive(ApiResponse)]
enum Created {
    /// Made; it is asked about the very next event.
    #[oai(status = 201)]
    Created(Json<ShownRule>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Catalog")]
impl Routes {
    /// Makes a rule.
    #[oai(path = "/rules", method = "post")]
    async fn create(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        body: Body<NewRule>,
    ) -> Result<Created, Fault> {
        let catalog = api.newest_catalog().await?;
        let rule = check(&body.value, None, &catalog)?;
        put(&api, Kind::Rule, rule.id.uuid(), 1, &rule.name, &rule).await?;
        Ok(Created::Created(Json(shown(&rule))))
    }

    /// Lists the rules.
    #[oai(path = "/rules", method = "get")]
    async fn list(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// From 1.
        page: Query<Option<String>>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Query<Option<String>>,
    ) -> Result<Json<Rules>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let rules = api.store.catalog().await?.rules;
        let (data, meta) = catalog::page(rules, &asked, |rule| rule.id, shown)?;
        Ok(Json(Rules { data, meta }))
    }

    /// Shows a rule.
    #[oai(path = "/rules/:id", method = "get")]
    async fn one(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
    ) -> Result<Json<ShownRule>, Fault> {
        Ok(Json(shown(&find(&api, &id).await?)))
    }

    /// Changes what is given of a rule.
    #[oai(path = "/rules/:id", method = "put")]
    async fn change(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
        body: Body<NewRule>,
    ) -> Result<Json<ShownRule>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Changes what is given of a rule, as PUT does.
    #[oai(path = "/rules/:id", method = "patch")]
    async fn change_some(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
        body: Body<RuleChange>,
    ) -> Result<Json<ShownRule>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Deletes a rule.
    #[oai(path = "/rules/:id", method = "delete")]
    async fn delete(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
    ) -> Result<Deleted, Fault> {
        let rule = find(&api, &id).await?;
        remove(&api, Kind::Rule, rule.id.uuid(), "Rule").await?;
        Ok(Deleted::Deleted)
    }
}

async fn change(api: &Api, id: &str, body: &Value) -> Result<Json<ShownRule>, Fault> {
    let before = find(api, id).await?;
    let catalog = api.newest_catalog().await?;
    let rule = check(body, Some(before), &catalog)?;
    put(api, Kind::Rule, rule.id.uuid(), 2, &rule.name, &rule).await?;
    Ok(Json(shown(&rule)))
}

async fn find(api: &Api, id: &str) -> Result<Rule, Fault> {
    let missing = || Fault::not_found("Rule");
    let id: RuleId = id.parse().map_err(|_| missing())?;
    let rules = api.store.catalog().await?.rules;
    rules
        .into_iter()
        .find(|rule| rule.id == id)
        .ok_or_else(missing)
}

fn check(body: &Value, before: Option<Rule>, catalog: &Snapshot) -> Result<Rule, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let is_new = before.is_none();
    let name = fields.needed(is_new, "name", 255);
    let event = fields.needed(is_new, "event", 255);
    if event
        .as_ref()
        .is_some_and(|event| catalog.source(event).is_none())
    {
        fields.fault("event", "The selected event is invalid.");
    }
    let template_id: Option<TemplateId> = fields
        .needed(is_new, "template_id", 64)
        .and_then(|_| fields.id("template_id"));
    if template_id.is_some_and(|id| catalog.template(id, None).is_none()) {
        fields.fault("template_id", "The selected template_id is invalid.");
    }
    let recipient = fields.needed(is_new, "recipient", 4_096);
    if let Some(Err(error)) = recipient.as_deref().map(template::check) {
        fields.fault(
            "recipient",
            format!("The recipient field does not parse: {error}."),
        );
    }
    let conditions = fields.object("conditions").cloned();
    let when = fields.text("when", 4_096);
    if let Some(Err(error)) = when.as_deref().map(check_when) {
        fields.fault("when", format!("The when field does not compile: {error}."));
    }
    let priority: Option<Priority> = fields.word("priority");
    let is_active = fields.boolean("is_active");
    let (has_conditions, has_when) = (fields.has("conditions"), fields.has("when"));
    faults.none()?;
    let now = now();
    let mut rule = match (before, template_id) {
        (Some(rule), _) => rule,
        (None, Some(template_id)) => Rule {
            id: RuleId::random(),
            name: String::new(),
            event: String::new(),
            template_id,
            recipient: String::new(),
            conditions: Map::new(),
            when: None,
            priority: Priority::Normal,
            is_active: true,
            created_at: now,
            updated_at: now,
        },
        (None, None) => {
            return Err(Faults::only(
                "template_id",
                "The template_id field is required.",
            ));
        }
    };
    rule.name = name.unwrap_or(rule.name);
    rule.event = event.unwrap_or(rule.event);
    rule.template_id = template_id.unwrap_or(rule.template_id);
    rule.recipient = recipient.unwrap_or(rule.recipient);
    if has_conditions {
        rule.conditions = conditions.unwrap_or_default();
    }
    if has_when {
        rule.when = when;
    }
    rule.priority = priority.unwrap_or(rule.priority);
    rule.is_active = is_active.unwrap_or(rule.is_active);
    rule.updated_at = now;
    Ok(rule)
}

fn shown(rule: &Rule) -> ShownRule {
    ShownRule {
        id: rule.id.to_string(),
        name: rule.name.clone(),
        event: rule.event.clone(),
        template_id: rule.template_id.to_string(),
        recipient: rule.recipient.clone(),
        conditions: body::documented(&rule.conditions),
        when: rule.when.clone(),
        priority: rule.priority.to_string(),
        is_active: rule.is_active,
        created_at: time::format(rule.created_at),
        updated_at: time::format(rule.updated_at),
    }
}
