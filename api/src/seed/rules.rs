//! Rules under the first seed's name, with its fields.

use herald_runtime::worker::now;
use herald_schemas::{
    catalog::{Catalog, Kind, Rule, SeedRecipient},
    ids::{SourceId, TemplateId},
    words::Channel,
};
use herald_stages::recipient;
use poem_openapi::{ApiResponse, OpenApi, param::Path, payload::Json};
use serde_json::Value;

use super::{
    SeedChanged, SeedDone, SeedList, SeedOne, changed, deleted,
    rule_forms::{NewSeedRule, SeedRule, SeedRuleChange, channel_of, recipient_of, shown},
};
use crate::{
    Api, Parts, Tag,
    body::{Body, Fields},
    catalog::{self, Asked, put},
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    pages::read,
    params::{ChannelName, Given, Id, PageNumber, PerPage, YesOrNo},
    rules::{delete, find, nothing},
};

const WHAT: &str = "Notification rule";

#[derive(ApiResponse)]
enum Created {
    /// Made; it is asked about the very next event.
    #[oai(status = 201)]
    Created(Json<SeedChanged<SeedRule>>),
}

pub(crate) struct Routes;

#[OpenApi(tag = "Tag::FirstSeed")]
impl Routes {
    /// Makes a rule, as the first seed does.
    #[oai(path = "/notification-rules", method = "post")]
    async fn create(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        body: Body<NewSeedRule>,
    ) -> Result<Created, Fault> {
        let catalog = api.store.catalog().await?;
        let rule = check(&body.value, None, &catalog)?;
        put(&api, Kind::Rule, rule.id.uuid(), 1, &rule.name, &rule).await?;
        let made = changed(WHAT, "created", shown(&rule, &catalog));
        Ok(Created::Created(Json(made)))
    }

    /// Lists the rules, as the first seed does.
    #[oai(path = "/notification-rules", method = "get")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// Of one event source.
        event_source_id: Given<Id>,
        /// Of one channel.
        channel: Given<ChannelName>,
        /// `true` or `1` for those that are asked, `false` or `0` for the others.
        is_active: Given<YesOrNo>,
        /// From 1.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
    ) -> Result<Json<SeedList<SeedRule>>, Fault> {
        let catalog = api.store.catalog().await?;
        let wanted = Wanted::read(event_source_id.0, channel.0, is_active.0, &catalog)?;
        let asked = Asked {
            page: page.0,
            per_page: per_page.0,
        };
        let rules = catalog
            .rules
            .iter()
            .filter(|rule| wanted.has(rule, &catalog));
        let show = |rule: &&Rule| shown(rule, &catalog);
        let (data, meta) = catalog::page(rules.collect(), &asked, |rule| rule.id, show)?;
        Ok(Json(SeedList { data, meta }))
    }

    /// Shows a rule, as the first seed does.
    #[oai(path = "/notification-rules/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
    ) -> Result<Json<SeedOne<SeedRule>>, Fault> {
        let rule = find(&api, &id).await?;
        let data = shown(&rule, &api.store.catalog().await?);
        Ok(Json(SeedOne { data }))
    }

    /// Changes what is given of a rule, as the first seed does.
    #[oai(path = "/notification-rules/:id", method = "put")]
    async fn change(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
        body: Body<SeedRuleChange>,
    ) -> Result<Json<SeedChanged<SeedRule>>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Changes what is given of a rule, as PUT does.
    #[oai(path = "/notification-rules/:id", method = "patch")]
    async fn change_some(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
        body: Body<SeedRuleChange>,
    ) -> Result<Json<SeedChanged<SeedRule>>, Fault> {
        change(&api, &id, &body.value).await
    }

    /// Deletes a rule, as the first seed does.
    #[oai(path = "/notification-rules/:id", method = "delete")]
    async fn delete(
        &self,
        _manager: Manager,
        api: Parts<'_>,
        /// The rule's id.
        id: Path<String>,
    ) -> Result<Json<SeedDone>, Fault> {
        delete(&api, &id).await?;
        Ok(Json(deleted(WHAT)))
    }
}

async fn change(api: &Api, id: &str, body: &Value) -> Result<Json<SeedChanged<SeedRule>>, Fault> {
    let before = find(api, id).await?;
    let catalog = api.store.catalog().await?;
    let rule = check(body, Some(before), &catalog)?;
    put(api, Kind::Rule, rule.id.uuid(), 2, &rule.name, &rule).await?;
    Ok(Json(changed(WHAT, "updated", shown(&rule, &catalog))))
}

/// Which rules a list shows.
struct Wanted {
    event: Option<String>,
    channel: Option<Channel>,
    is_active: Option<bool>,
}

impl Wanted {
    fn read(
        source: Option<String>,
        channel: Option<String>,
        is_active: Option<String>,
        catalog: &Catalog,
    ) -> Result<Self, Fault> {
        let mut faults = Faults::default();
        let source: Option<SourceId> =
            read("event_source_id", source.as_deref(), &mut faults, |text| {
                text.parse().ok()
            });
        let channel = read("channel", channel.as_deref(), &mut faults, |text| {
            text.parse().ok()
        });
        let is_active = read(
            "is_active",
            is_active.as_deref(),
            &mut faults,
            |text| match text {
                "1" | "true" => Some(true),
                "0" | "false" => Some(false),
                _ => None,
            },
        );
        faults.none()?;
        let named = |id: SourceId| {
            let source = catalog.sources.iter().find(|source| source.id == id);
            source.map_or_else(String::new, |source| source.name.clone())
        };
        Ok(Self {
            event: source.map(named),
            channel,
            is_active,
        })
    }

    fn has(&self, rule: &Rule, catalog: &Catalog) -> bool {
        self.event.as_ref().is_none_or(|event| rule.event == *event)
            && (self.channel).is_none_or(|channel| channel_of(rule, catalog) == Some(channel))
            && self
                .is_active
                .is_none_or(|is_active| rule.is_active == is_active)
    }
}

/// A new rule, or a changed one.
fn check(body: &Value, before: Option<Rule>, catalog: &Catalog) -> Result<Rule, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let is_new = before.is_none();
    let event = event(&mut fields, is_new, catalog);
    let template_id = template_id(&mut fields, is_new, catalog);
    let channel: Option<Channel> = fields
        .needed(is_new, "channel", 64)
        .and_then(|_| fields.word("channel"));
    let conditions = fields.object("conditions").cloned();
    let has_conditions = fields.has("conditions");
    let names_recipient = RECIPIENTS.iter().any(|name| fields.has(name));
    let known = before.as_ref().map(|rule| recipient_of(rule, catalog));
    let recipient = recipient(&mut fields, known.unwrap_or_default());
    let is_active = fields.boolean("is_active");
    faults.none()?;
    let mut rule = match (before, template_id) {
        (Some(rule), _) => rule,
        (None, Some(template_id)) => new(template_id),
        (None, None) => return Err(Fault::bad_request("The body is no rule.")),
    };
    if is_new || names_recipient {
        rule.seed_recipient = Some(recipient);
    }
    rule.event = event.unwrap_or(rule.event);
    rule.template_id = template_id.unwrap_or(rule.template_id);
    rule.channel = channel.or(rule.channel);
    if has_conditions {
        rule.conditions = conditions.unwrap_or_default();
    }
    if let Some(recipient) = &rule.seed_recipient {
        rule.recipient = as_template(recipient, channel_of(&rule, catalog));
    }
    rule.is_active = is_active.unwrap_or(rule.is_active);
    rule.updated_at = now();
    Ok(rule)
}

/// What a new rule starts from. The first seed's have no names.
fn new(template_id: TemplateId) -> Rule {
    let rule = nothing(template_id, now());
    Rule {
        name: format!("rule {}", rule.id),
        ..rule
    }
}

/// The name of the event source that is meant.
fn event(fields: &mut Fields<'_, '_>, is_new: bool, catalog: &Catalog) -> Option<String> {
    let name = "event_source_id";
    let id: SourceId = fields
        .needed(is_new, name, 64)
        .and_then(|_| fields.id(name))?;
    let source = catalog.sources.iter().find(|source| source.id == id);
    if source.is_none() {
        fields.fault(name, format!("The selected {name} is invalid."));
    }
    source.map(|source| source.name.clone())
}

fn template_id(fields: &mut Fields<'_, '_>, is_new: bool, catalog: &Catalog) -> Option<TemplateId> {
    let name = "notification_template_id";
    let id: TemplateId = fields
        .needed(is_new, name, 64)
        .and_then(|_| fields.id(name))?;
    let mut templates = catalog.templates.iter();
    if !templates.any(|version| !version.retired && version.template.id == id) {
        fields.fault(name, format!("The selected {name} is invalid."));
    }
    Some(id)
}

const RECIPIENTS: [&str; 4] = [
    "recipient_field",
    "recipient_email",
    "recipient_phone",
    "recipient_slack_webhook",
];

/// The recipient with what is given of it changed.
fn recipient(fields: &mut Fields<'_, '_>, before: SeedRecipient) -> SeedRecipient {
    let mut changed = |name: &str, channel: Option<Channel>, before: Option<String>| {
        if !fields.has(name) {
            return before;
        }
        let max = if channel == Some(Channel::Slack) {
            4_096
        } else {
            255
        };
        let text = fields.text(name, max);
        if let (Some(channel), Some(text)) = (channel, &text)
            && let Err(problem) = recipient::check(channel, text)
        {
            fields.fault(name, format!("The {name} {problem}."));
        }
        text
    };
    let [field, email, phone, slack_webhook] = RECIPIENTS;
    SeedRecipient {
        field: changed(field, None, before.field),
        email: changed(email, Some(Channel::Email), before.email),
        phone: changed(phone, Some(Channel::Sms), before.phone),
        slack_webhook: changed(slack_webhook, Some(Channel::Slack), before.slack_webhook),
    }
}

/// What Herald's own form shows of it: the first that applies.
fn as_template(recipient: &SeedRecipient, channel: Option<Channel>) -> String {
    let fixed = channel.and_then(|channel| recipient.fixed(channel));
    match &recipient.field {
        Some(field) => format!("{{{{ {field} }}}}"),
        None => fixed.unwrap_or_default().to_owned(),
    }
}
