//! Templates under the first seed's name, with its word `body` for the content.

use herald_schemas::catalog::Template;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json, types::Example};
use serde_json::{Value, json};

use super::{SeedChanged, SeedDone, SeedList, SeedOne, changed, deleted};
use crate::{
    Api, Parts, Tag,
    body::{self, Body},
    catalog::{self, Asked},
    example,
    fault::Fault,
    keys::{Manager, Reader},
    params::{Given, PageNumber, PerPage},
    templates::{check, current, delete, find, save},
    time,
    words::ChannelWord,
};

const WHAT: &str = "Notification template";

/// A template.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewSeedTemplate {
    /// Unique.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: String,
    /// email, sms or slack; push, webhook and log are taken too.
    channel: ChannelWord,
    /// The subject of a mail.
    #[oai(nullable, validator(max_length = 998))]
    subject: Option<String>,
    /// The text, with `{{name}}` placeholders; at most 64 KiB.
    #[oai(validator(min_length = 1, max_length = 65536))]
    body: String,
    /// The HTML part of a mail; values are escaped. At most 64 KiB.
    #[oai(nullable, validator(max_length = 65536))]
    html: Option<String>,
    /// What a variable is where the payload says nothing.
    #[oai(nullable)]
    default_variables: Option<body::Dictionary>,
}

impl Example for NewSeedTemplate {
    fn example() -> Self {
        Self {
            name: "order created".to_owned(),
            channel: ChannelWord::Email,
            subject: Some("Order {{order_id}}".to_owned()),
            body: "Thank you for order {{order_id}}.".to_owned(),
            html: None,
            default_variables: None,
        }
    }
}

/// What is to change of a template.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct SeedTemplateChange {
    /// Unique.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: Option<String>,
    /// email, sms or slack; push, webhook and log are taken too.
    channel: Option<ChannelWord>,
    /// The subject of a mail; null takes it away.
    #[oai(nullable, validator(max_length = 998))]
    subject: Option<String>,
    /// The text, with `{{name}}` placeholders; at most 64 KiB.
    #[oai(validator(min_length = 1, max_length = 65536))]
    body: Option<String>,
    /// The HTML part of a mail; null takes it away. At most 64 KiB.
    #[oai(nullable, validator(max_length = 65536))]
    html: Option<String>,
    /// What a variable is where the payload says nothing; replaces all of them.
    #[oai(nullable)]
    default_variables: Option<body::Dictionary>,
}

impl Example for SeedTemplateChange {
    fn example() -> Self {
        Self {
            name: None,
            channel: None,
            subject: None,
            body: Some("Thank you for order {{order_id}}, {{name}}.".to_owned()),
            html: None,
            default_variables: Some(example::object(json!({ "name": "Guest" })).into()),
        }
    }
}

/// A template's newest version.
#[derive(Object)]
#[oai(example)]
struct SeedTemplate {
    /// The template.
    id: String,
    /// Unique.
    name: String,
    /// email, sms or slack; or push, webhook or log.
    channel: String,
    /// The subject of a mail.
    #[oai(nullable)]
    subject: Option<String>,
    /// The text, with `{{name}}` placeholders.
    body: String,
    /// The HTML part of a mail.
    #[oai(nullable)]
    html: Option<String>,
    /// What a variable is where the payload says nothing.
    default_variables: body::Object,
    /// From 1; every change makes the next.
    version: i32,
    /// ISO 8601.
    created_at: String,
    /// ISO 8601.
    updated_at: String,
}

impl Example for SeedTemplate {
    fn example() -> Self {
        Self {
            id: example::OTHER_ID.to_owned(),
            name: "order created".to_owned(),
            channel: "email".to_owned(),
            subject: Some("Order {{order_id}}".to_owned()),
            body: "Thank you for order {{order_id}}.".to_owned(),
            html: None,
            default_variables: body::Object::new(),
            version: 1,
            created_at: example::TIME.to_owned(),
            updated_at: example::TIME.to_owned(),
        }
    }
}

fn shown(template: &Template) -> SeedTemplate {
    SeedTemplate {
        id: template.id.to_string(),
        name: template.name.clone(),
        channel: template.channel.to_string(),
        subject: template.subject.clone(),
        body: template.content.clone(),
        html: template.html.clone(),
        default_variables: body::documented(&template.default_variables),
        version: template.version,
        created_at: time::format(template.created_at),
        updated_at: time::format(template.updated_at),
    }
}

#[derive(ApiResponse)]
enum Created {
    /// Made.
    #[oai(status = 201)]
    Created(Json<SeedChanged<SeedTemplate>>),
}

pub(crate) struct Routes;

#[OpenApi(tag = "Tag::FirstSeed")]
impl Routes {
    /// Makes a template, as the first seed does.
    #[oai(path = "/notification-templates", method = "post")]
    async fn create(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: Body<NewSeedTemplate>,
    ) -> Result<Created, Fault> {
        let template = check(&body.value, None, "body")?;
        save(&api, &template).await?;
        let made = changed(WHAT, "created", shown(&template));
        Ok(Created::Created(Json(made)))
    }

    /// Lists the templates, as the first seed does.
    #[oai(path = "/notification-templates", method = "get")]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<SeedList<SeedTemplate>>, Fault> {
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let templates = current(&api).await?;
        let (data, meta) = catalog::page(templates, &asked, |template| template.id, shown)?;
        Ok(Json(SeedList { data, meta }))
    }

    /// Shows a template, as the first seed does.
    #[oai(path = "/notification-templates/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
    ) -> Result<Json<SeedOne<SeedTemplate>>, Fault> {
        let data = shown(&find(&api, &id).await?);
        Ok(Json(SeedOne { data }))
    }

    /// Changes what is given of a template, as the first seed does: a new version.
    #[oai(path = "/notification-templates/:id", method = "put")]
    async fn change(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        body: Body<SeedTemplateChange>,
    ) -> Result<Json<SeedChanged<SeedTemplate>>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Changes what is given of a template, as PUT does.
    #[oai(path = "/notification-templates/:id", method = "patch")]
    async fn change_some(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
        body: Body<SeedTemplateChange>,
    ) -> Result<Json<SeedChanged<SeedTemplate>>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Deletes a template that no rule uses, as the first seed does.
    #[oai(path = "/notification-templates/:id", method = "delete")]
    async fn delete(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The template's id.
        id: Path<String>,
    ) -> Result<Json<SeedDone>, Fault> {
        delete(&api, &id).await?;
        Ok(Json(deleted(WHAT)))
    }
}

async fn change(
    api: &Api,
    id: &str,
    body: &Value,
) -> Result<Json<SeedChanged<SeedTemplate>>, Fault> {
    let template = check(body, Some(find(api, id).await?), "body")?;
    save(api, &template).await?;
    Ok(Json(changed(WHAT, "updated", shown(&template))))
}
