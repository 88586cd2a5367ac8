//! Templates: what is said.

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{Kind, Rule, Template},
    ids::TemplateId,
    words::Channel,
};
use herald_stages::template;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use serde_json::{Map, Value};

use crate::{
    Api, Parts, Tag,
    body::{self, Body, Fields},
    catalog::{self, Asked, CatalogMeta, put, remove},
    fault::{Fault, Faults},
    keys::Caller,
    time,
};

/// The longest template, in characters.
const MAX_TEXT: usize = 262_144;

/// A template.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewTemplate {
    /// Unique.
    #[oai(validator(max_length = 255))]
    name: String,
    /// The channel it is written for.
    channel: String,
    /// The text, with `{{name}}` placeholders.
    content: String,
    /// The subject of a mail, the title of a push message.
    subject: Option<String>,
    /// The HTML part of a mail; values are escaped.
    html: Option<String>,
    /// What a variable is where nothing else is said.
    default_variables: Option<body::Object>,
}

/// What is to change of a template.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct TemplateChange {
    /// Unique.
    #[oai(validator(max_length = 255))]
    name: Option<String>,
    /// The channel it is written for.
    channel: Option<String>,
    /// The text, with `{{name}}` placeholders.
    content: Option<String>,
    /// The subject of a mail, the title of a push message; null takes it away.
    subject: Option<String>,
    /// The HTML part of a mail; values are escaped. Null takes it away.
    html: Option<String>,
    /// What a variable is where nothing else is said.
    default_variables: Option<body::Object>,
}

/// That it is gone.
#[derive(Object)]
struct DeletedTemplate {
    /// `Template deleted.`
    message: String,
}

/// A template's newest version.
#[derive(Object)]
struct ShownTemplate {
    /// The template, the same for all its versions.
    id: String,
    /// From 1; every change makes the next.
    version: i32,
    /// Unique.
    name: String,
    /// The channel it is written for.
    channel: String,
    /// The text, with `{{name}}` placeholders.
    content: String,
    /// The subject of a mail, the title of a push message.
    #[oai(nullable)]
    subject: Option<String>,
    /// The HTML part of a mail.
    #[oai(nullable)]
    html: Option<String>,
    /// What a variable is where nothing else is said.
    default_variables: body::Object,
    /// ISO 8601.
    created_at: String,
    /// ISO 8601.
    updated_at: String,
}

/// Every template.
#[derive(Object)]
struct Templates {
    /// The templates.
    data: Vec<ShownTemplate>,
    /// Which part of the list this is.
    meta: CatalogMeta,
}

#[derive(ApiResponse)]
enum Created {
    /// Made.
    #[oai(status = 201)]
    Created(Json<ShownTemplate>),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Catalog")]
impl Routes {
    /// Makes a template.
    #[oai(path = "/templates", method = "post")]
    async fn create(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        body: Body<NewTemplate>,
    ) -> Result<Created, Fault> {
        let template = check(&body.value, None)?;
        put(
            &api,
            Kind::Template,
            template.id.uuid(),
            template.version,
            &template.name,
            &template,
        )
        .await?;
        Ok(Created::Created(Json(shown(&template))))
    }

    /// Lists the templates.
    #[oai(path = "/templates", method = "get")]
    async fn list(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// From 1.
        page: Query<Option<String>>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Query<Option<String>>,
    ) -> Result<Json<Templates>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let mut templates = api.store.catalog().await?.templates;
        templates.retain(|version| !version.retired);
        let (data, meta) = catalog::page(
            templates,
            &asked,
            |version| version.template.id,
            |version| shown(&version.template),
        )?;
        Ok(Json(Templates { data, meta }))
    }

    /// Shows a template.
    #[oai(path = "/templates/:id", method = "get")]
    async fn one(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
    ) -> Result<Json<ShownTemplate>, Fault> {
        Ok(Json(shown(&find(&api, &id).await?)))
    }

    /// Changes what is given of a template: a new version.
    #[oai(path = "/templates/:id", method = "patch")]
    async fn change(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        body: Body<TemplateChange>,
    ) -> Result<Json<ShownTemplate>, Fault> {
        let template = check(&body.value, Some(find(&api, &id).await?))?;
        put(
            &api,
            Kind::Template,
            template.id.uuid(),
            template.version,
            &template.name,
            &template,
        )
        .await?;
        Ok(Json(shown(&template)))
    }

    /// Deletes a template. What was accepted with it is still sent.
    #[oai(path = "/templates/:id", method = "delete")]
    async fn delete(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
    ) -> Result<Json<DeletedTemplate>, Fault> {
        let template = find(&api, &id).await?;
        let uses = |rule: &Rule| rule.template_id == template.id;
        if let Some(rules) = catalog::rules_that(&api, uses).await? {
            let text = format!("The template is used by the rules {rules}.");
            return Err(Fault::conflict(text));
        }
        remove(&api, Kind::Template, template.id.uuid(), "Template").await?;
        let message = "Template deleted.".to_owned();
        Ok(Json(DeletedTemplate { message }))
    }
}

async fn find(api: &Api, id: &str) -> Result<Template, Fault> {
    let missing = || Fault::not_found("Template");
    let id: TemplateId = id.parse().map_err(|_| missing())?;
    let templates = api.store.catalog().await?.templates;
    let current = templates
        .into_iter()
        .find(|version| !version.retired && version.template.id == id);
    current.map(|version| version.template).ok_or_else(missing)
}

fn check(body: &Value, before: Option<Template>) -> Result<Template, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let is_new = before.is_none();
    let name = fields.needed(is_new, "name", 255);
    let channel: Option<Channel> = fields
        .needed(is_new, "channel", 64)
        .and_then(|_| fields.word("channel"));
    let content = fields.needed(is_new, "content", MAX_TEXT);
    let subject = fields.text("subject", 998);
    let html = fields.text("html", MAX_TEXT);
    let defaults = fields.object("default_variables").cloned();
    for (name, text) in [
        ("content", &content),
        ("subject", &subject),
        ("html", &html),
    ] {
        if let Some(text) = text
            && let Err(error) = template::check(text)
        {
            fields.fault(name, format!("The {name} field does not parse: {error}."));
        }
    }
    let now = now();
    let mut template = before.unwrap_or_else(|| Template {
        id: TemplateId::random(),
        version: 0,
        name: String::new(),
        channel: Channel::Log,
        content: String::new(),
        subject: None,
        html: None,
        default_variables: Map::new(),
        created_at: now,
        updated_at: now,
    });
    if fields.has("subject") {
        template.subject = subject;
    }
    if fields.has("html") {
        template.html = html;
    }
    if fields.has("default_variables") {
        template.default_variables = defaults.unwrap_or_default();
    }
    faults.none()?;
    template.version += 1;
    template.name = name.unwrap_or(template.name);
    template.channel = channel.unwrap_or(template.channel);
    template.content = content.unwrap_or(template.content);
    template.updated_at = now;
    Ok(template)
}

fn shown(template: &Template) -> ShownTemplate {
    ShownTemplate {
        id: template.id.to_string(),
        version: template.version,
        name: template.name.clone(),
        channel: template.channel.to_string(),
        content: template.content.clone(),
        subject: template.subject.clone(),
        html: template.html.clone(),
        default_variables: body::documented(&template.default_variables),
        created_at: time::format(template.created_at),
        updated_at: time::format(template.updated_at),
    }
}
