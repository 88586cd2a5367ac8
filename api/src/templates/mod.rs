//! Templates: what is said.

mod forms;
mod preview;

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{Kind, Rule, Template},
    ids::TemplateId,
    words::Channel,
};
use herald_stages::template::{self, RenderError};
use poem_openapi::{ApiResponse, OpenApi, param::Path, payload::Json};
use serde_json::{Map, Value};

use self::{
    forms::{DeletedTemplate, NewTemplate, ShownTemplate, TemplateChange, Templates, shown},
    preview::{Preview, PreviewRequest, preview},
};
use crate::{
    Api, Parts, Tag,
    body::{Body, Fields},
    catalog::{self, Asked, put, remove},
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    params::{Given, PageNumber, PerPage},
};

/// The longest text of a template, in characters.
const MAX_TEXT: usize = template::MAX_SOURCE_BYTES;
/// RFC 5322, section 2.1.1
const MAX_SUBJECT: usize = 998;

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
        _manager: Manager,
        api: Parts<'_>,
        body: Body<NewTemplate>,
    ) -> Result<Created, Fault> {
        let template = check(&body.value, None, "content")?;
        save(&api, &template).await?;
        Ok(Created::Created(Json(shown(&template))))
    }

    /// Lists the templates.
    #[oai(path = "/templates", method = "get")]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<Templates>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let templates = current(&api).await?;
        let (data, meta) = catalog::page(templates, &asked, |template| template.id, shown)?;
        Ok(Json(Templates { data, meta }))
    }

    /// Shows a template.
    #[oai(path = "/templates/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
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
        _manager: Manager,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        body: Body<TemplateChange>,
    ) -> Result<Json<ShownTemplate>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Changes what is given of a template, as PATCH does.
    #[oai(path = "/templates/:id", method = "put")]
    async fn change_put(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        body: Body<TemplateChange>,
    ) -> Result<Json<ShownTemplate>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Renders a template, or the texts of one that is still being written; nothing is sent.
    #[oai(path = "/templates/preview", method = "post")]
    async fn preview(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        body: Body<PreviewRequest>,
    ) -> Result<Json<Preview>, Fault> {
        let catalog = api.newest_catalog().await?;
        preview(&body.value, &catalog, &api.settings).map(Json)
    }

    /// Lists the versions of a template, the newest first; those of a deleted one stay.
    #[oai(path = "/templates/:id/versions", method = "get")]
    async fn versions(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<Templates>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let versions = versions(&api, &id).await?;
        let (data, meta) = catalog::page(versions, &asked, |one| one.version, shown)?;
        Ok(Json(Templates { data, meta }))
    }

    /// Shows a version of a template, be it an old one or a deleted one's.
    #[oai(path = "/templates/:id/versions/:version", method = "get")]
    async fn version(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        /// From 1.
        version: Path<String>,
    ) -> Result<Json<ShownTemplate>, Fault> {
        let missing = || Fault::not_found("Template version");
        let number: i32 = version.parse().map_err(|_| missing())?;
        let versions = versions(&api, &id).await?;
        let found = versions.iter().find(|one| one.version == number);
        found.map(|one| Json(shown(one))).ok_or_else(missing)
    }

    /// Deletes a template. What was accepted with it is still sent.
    #[oai(path = "/templates/:id", method = "delete")]
    async fn delete(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
    ) -> Result<Json<DeletedTemplate>, Fault> {
        delete(&api, &id).await?;
        let message = "Template deleted.".to_owned();
        Ok(Json(DeletedTemplate { message }))
    }
}

pub(crate) async fn find(api: &Api, id: &str) -> Result<Template, Fault> {
    let missing = || Fault::not_found("Template");
    let id: TemplateId = id.parse().map_err(|_| missing())?;
    let mut templates = current(api).await?.into_iter();
    templates
        .find(|template| template.id == id)
        .ok_or_else(missing)
}

/// The newest version of each template that was not deleted.
pub(crate) async fn current(api: &Api) -> Result<Vec<Template>, Fault> {
    let templates = api.store.catalog().await?.templates.into_iter();
    let current = templates.filter(|version| !version.retired);
    Ok(current.map(|version| version.template).collect())
}

/// Every version of a template.
async fn versions(api: &Api, id: &str) -> Result<Vec<Template>, Fault> {
    let missing = || Fault::not_found("Template");
    let id: TemplateId = id.parse().map_err(|_| missing())?;
    let templates = api.store.catalog().await?.templates.into_iter();
    let versions: Vec<Template> = templates
        .map(|version| version.template)
        .filter(|template| template.id == id)
        .collect();
    if versions.is_empty() {
        return Err(missing());
    }
    Ok(versions)
}

async fn change(api: &Api, id: &str, body: &Value) -> Result<Json<ShownTemplate>, Fault> {
    let template = check(body, Some(find(api, id).await?), "content")?;
    save(api, &template).await?;
    Ok(Json(shown(&template)))
}

/// Writes a template, or a version of one.
pub(crate) async fn save(api: &Api, template: &Template) -> Result<(), Fault> {
    let (id, version) = (template.id.uuid(), template.version);
    put(api, Kind::Template, id, version, &template.name, template).await
}

/// Takes out a template that no rule uses.
pub(crate) async fn delete(api: &Api, id: &str) -> Result<(), Fault> {
    let template = find(api, id).await?;
    let uses = |rule: &Rule| rule.template_id == template.id;
    if let Some(rules) = catalog::rules_that(api, uses).await? {
        let text = format!("The template is used by the rules {rules}.");
        return Err(Fault::conflict(text));
    }
    remove(api, Kind::Template, template.id.uuid(), "Template").await
}

/// A part of a template, if it is one.
fn text(fields: &mut Fields<'_, '_>, name: &str) -> Option<String> {
    let max = if name == "subject" {
        MAX_SUBJECT
    } else {
        MAX_TEXT
    };
    let text = fields.text(name, max)?;
    if let Err(error) = template::check(&text) {
        fields.fault(name, format!("The {name} field does not parse: {error}."));
    }
    Some(text)
}

/// The field that is at fault when a template cannot be rendered, and what is told of it.
pub(crate) fn not_rendered(error: &RenderError) -> (String, String) {
    match error {
        RenderError::MissingVariable { name, .. } => {
            let field = format!("variables.{name}");
            let text = format!("The {field} field is required by the template.");
            (field, text)
        }
        error => ("variables".to_owned(), format!("{error}.")),
    }
}

/// What a new template starts from.
fn nothing() -> Template {
    let now = now();
    Template {
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
    }
}

/// A new template, or the next version of one. The first seed has another word for `content`.
pub(crate) fn check(
    body: &Value,
    before: Option<Template>,
    content: &str,
) -> Result<Template, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let is_new = before.is_none();
    let name = fields.needed(is_new, "name", 255);
    let channel: Option<Channel> = fields
        .needed(is_new, "channel", 64)
        .and_then(|_| fields.word("channel"));
    if (is_new || fields.has(content)) && fields.get(content).is_none() {
        fields.fault(content, format!("The {content} field is required."));
    }
    let content = text(&mut fields, content);
    let subject = text(&mut fields, "subject");
    let html = text(&mut fields, "html");
    let defaults = fields.object("default_variables").cloned();
    let mut template = before.unwrap_or_else(nothing);
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
    template.updated_at = now();
    Ok(template)
}
