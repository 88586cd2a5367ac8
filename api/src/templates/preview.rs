//! What a template makes of variables, before it is used.

use herald_schemas::catalog::Template;
use herald_schemas::{ids::TemplateId, words::Channel};
use herald_stages::{Settings, snapshot::Snapshot, template::render_message};
use poem_openapi::{Object, types::Example};
use serde_json::{Value, json};

use super::{not_rendered, nothing, text};
use crate::{
    body::{self, Fields},
    example,
    fault::{Fault, Faults},
    words::ChannelWord,
};

/// What is to be rendered: a template, or the texts of one that is still being written.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct PreviewRequest {
    /// The template; without it `content` is needed.
    #[oai(nullable, validator(max_length = 36))]
    template_id: Option<String>,
    /// Which of its versions; the newest unless said.
    #[oai(nullable, validator(minimum(value = "1")))]
    version: Option<i32>,
    /// Goes before the template's.
    #[oai(nullable, validator(max_length = 65536))]
    content: Option<String>,
    /// Goes before the template's.
    #[oai(nullable, validator(max_length = 998))]
    subject: Option<String>,
    /// Goes before the template's.
    #[oai(nullable, validator(max_length = 65536))]
    html: Option<String>,
    /// Goes before the template's. Where there is one, the text is held against its limit.
    #[oai(nullable)]
    channel: Option<ChannelWord>,
    /// The variables, over the template's defaults.
    #[oai(nullable)]
    variables: Option<body::Dictionary>,
}

impl Example for PreviewRequest {
    fn example() -> Self {
        Self {
            template_id: Some(example::ID.to_owned()),
            version: None,
            content: None,
            subject: None,
            html: None,
            channel: None,
            variables: Some(example::object(json!({ "name": "Ada" })).into()),
        }
    }
}

/// What would be sent.
#[derive(Object)]
#[oai(example)]
pub(super) struct Preview {
    /// The template; null where there was none.
    #[oai(nullable)]
    template_id: Option<String>,
    /// The template's version.
    #[oai(nullable)]
    version: Option<i32>,
    /// The text.
    content: String,
    /// The subject of a mail, the title of a push message.
    #[oai(nullable)]
    subject: Option<String>,
    /// The HTML part of a mail.
    #[oai(nullable)]
    html: Option<String>,
    /// The variables, as they were sent.
    variables: body::Object,
}

impl Example for Preview {
    fn example() -> Self {
        Self {
            template_id: Some(example::ID.to_owned()),
            version: Some(1),
            content: "Hello Ada".to_owned(),
            subject: Some("Welcome, Ada".to_owned()),
            html: Some("<p>Hello Ada</p>".to_owned()),
            variables: example::object(json!({ "name": "Ada" })),
        }
    }
}

pub(super) fn preview(
    body: &Value,
    catalog: &Snapshot,
    settings: &Settings,
) -> Result<Preview, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let id: Option<TemplateId> = fields.id("template_id");
    let version = fields.get("version");
    let number = version.and_then(Value::as_i64);
    let number = number.and_then(|number| i32::try_from(number).ok());
    if version.is_some() && number.is_none_or(|number| number < 1) {
        fields.fault("version", "The version field must be an integer above 0.");
    }
    let found = id.and_then(|id| catalog.template(id, number));
    if id.is_some() && found.is_none() {
        fields.fault("template_id", "The selected template_id is invalid.");
    }
    let mut template = found.map_or_else(nothing, |found| Template::clone(found));
    let content = text(&mut fields, "content");
    if fields.get("template_id").is_none() && fields.get("content").is_none() {
        fields.fault("content", "Either content or template_id is required.");
    }
    template.content = content.unwrap_or(template.content);
    template.subject = text(&mut fields, "subject").or(template.subject);
    template.html = text(&mut fields, "html").or(template.html);
    let channel: Option<Channel> = fields.word("channel");
    let channel = channel.or(found.map(|found| found.channel));
    let variables = fields.object("variables").cloned().unwrap_or_default();
    faults.none()?;
    let rendered = render_message(&template, &variables).map_err(|error| {
        let (field, text) = not_rendered(&error);
        Faults::only(&field, text)
    })?;
    if let Some(Err(problem)) =
        channel.map(|channel| settings.limits.check(channel, &rendered.content))
    {
        return Err(Faults::only("content", problem));
    }
    Ok(Preview {
        template_id: found.map(|found| found.id.to_string()),
        version: found.map(|found| found.version),
        content: rendered.content,
        subject: rendered.subject,
        html: rendered.html,
        variables: body::documented(&variables),
    })
}
