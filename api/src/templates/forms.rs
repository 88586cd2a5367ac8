//! Templates as clients write and read them.

use herald_schemas::catalog::Template;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use crate::{body, catalog::CatalogMeta, example, time, words::ChannelWord};

/// A template.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct NewTemplate {
    /// Unique.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: String,
    /// The channel it is written for: sms, email, push, slack, webhook or log.
    channel: ChannelWord,
    /// The text, with `{{name}}` placeholders; at most 64 KiB.
    #[oai(validator(min_length = 1, max_length = 65536))]
    content: String,
    /// The subject of a mail, the title of a push message.
    #[oai(nullable, validator(max_length = 998))]
    subject: Option<String>,
    /// The HTML part of a mail; values are escaped. At most 64 KiB.
    #[oai(nullable, validator(max_length = 65536))]
    html: Option<String>,
    /// What a variable is where nothing else is said.
    #[oai(nullable)]
    default_variables: Option<body::Dictionary>,
}

impl Example for NewTemplate {
    fn example() -> Self {
        Self {
            name: "welcome".to_owned(),
            channel: ChannelWord::Email,
            content: "Hello {{name}}".to_owned(),
            subject: Some("Welcome, {{name}}".to_owned()),
            html: Some("<p>Hello {{name}}</p>".to_owned()),
            default_variables: Some(example::object(json!({ "name": "Guest" })).into()),
        }
    }
}

/// What is to change of a template.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct TemplateChange {
    /// Unique.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: Option<String>,
    /// The channel it is written for: sms, email, push, slack, webhook or log.
    channel: Option<ChannelWord>,
    /// The text, with `{{name}}` placeholders; at most 64 KiB.
    #[oai(validator(min_length = 1, max_length = 65536))]
    content: Option<String>,
    /// The subject of a mail, the title of a push message; null takes it away.
    #[oai(nullable, validator(max_length = 998))]
    subject: Option<String>,
    /// The HTML part of a mail; values are escaped. Null takes it away.
    #[oai(nullable, validator(max_length = 65536))]
    html: Option<String>,
    /// What a variable is where nothing else is said; replaces all of them.
    #[oai(nullable)]
    default_variables: Option<body::Dictionary>,
}

impl Example for TemplateChange {
    fn example() -> Self {
        Self {
            name: None,
            channel: None,
            content: Some("Hello {{name}}, updated!".to_owned()),
            subject: None,
            html: None,
            default_variables: None,
        }
    }
}

/// That it is gone.
#[derive(Object)]
pub(super) struct DeletedTemplate {
    /// `Template deleted.`
    pub(super) message: String,
}

/// A version of a template.
#[derive(Object)]
#[oai(example)]
pub(super) struct ShownTemplate {
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
    /// When the template was made: ISO 8601.
    created_at: String,
    /// When this version was made: ISO 8601.
    updated_at: String,
}

impl Example for ShownTemplate {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            version: 1,
            name: "welcome".to_owned(),
            channel: "sms".to_owned(),
            content: "Hello {{name}}".to_owned(),
            subject: None,
            html: None,
            default_variables: example::object(json!({ "name": "Guest" })),
            created_at: example::TIME.to_owned(),
            updated_at: example::TIME.to_owned(),
        }
    }
}

/// A part of the templates, newest first.
#[derive(Object)]
pub(super) struct Templates {
    /// The templates.
    pub(super) data: Vec<ShownTemplate>,
    /// Which part of the list this is.
    pub(super) meta: CatalogMeta,
}

pub(super) fn shown(template: &Template) -> ShownTemplate {
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
