//! Rules as clients of the first seed write and read them.

use herald_schemas::{
    catalog::{Catalog, Rule, SeedRecipient},
    words::Channel,
};
use poem_openapi::{Object, types::Example};
use serde_json::json;

use crate::{
    body::{self, Flag},
    example, time,
    words::ChannelWord,
};

/// A rule.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct NewSeedRule {
    /// The event source.
    #[oai(validator(max_length = 36))]
    event_source_id: String,
    /// The template that says it.
    #[oai(validator(max_length = 36))]
    notification_template_id: String,
    /// email, sms or slack; push, webhook and log are taken too.
    channel: ChannelWord,
    /// Dotted payload path → exactly equal value; all must hold, and without any it always does.
    #[oai(nullable)]
    conditions: Option<body::Dictionary>,
    /// Dotted payload path of the recipient; what is there goes first.
    #[oai(nullable, validator(max_length = 255))]
    recipient_field: Option<String>,
    /// Else, for e-mail, this address.
    #[oai(nullable, validator(max_length = 255))]
    recipient_email: Option<String>,
    /// Else, for SMS, this number, in E.164.
    #[oai(nullable, validator(max_length = 255))]
    recipient_phone: Option<String>,
    /// Else, for Slack, this webhook.
    #[oai(nullable, validator(max_length = 4096))]
    recipient_slack_webhook: Option<String>,
    /// Whether it is asked at all; true unless said.
    #[oai(nullable)]
    is_active: Option<Flag>,
}

impl Example for NewSeedRule {
    fn example() -> Self {
        Self {
            event_source_id: example::ID.to_owned(),
            notification_template_id: example::OTHER_ID.to_owned(),
            channel: ChannelWord::Email,
            conditions: Some(example::object(json!({ "order.paid": true })).into()),
            recipient_field: Some("customer_email".to_owned()),
            recipient_email: Some("sales@example.com".to_owned()),
            recipient_phone: None,
            recipient_slack_webhook: None,
            is_active: Some(Flag(true)),
        }
    }
}

/// What is to change of a rule.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct SeedRuleChange {
    /// The event source.
    #[oai(validator(max_length = 36))]
    event_source_id: Option<String>,
    /// The template that says it.
    #[oai(validator(max_length = 36))]
    notification_template_id: Option<String>,
    /// email, sms or slack; push, webhook and log are taken too.
    channel: Option<ChannelWord>,
    /// Dotted payload path → exactly equal value; replaces all of them.
    #[oai(nullable)]
    conditions: Option<body::Dictionary>,
    /// Dotted payload path of the recipient; null takes it away.
    #[oai(nullable, validator(max_length = 255))]
    recipient_field: Option<String>,
    /// For e-mail; null takes it away.
    #[oai(nullable, validator(max_length = 255))]
    recipient_email: Option<String>,
    /// For SMS, in E.164; null takes it away.
    #[oai(nullable, validator(max_length = 255))]
    recipient_phone: Option<String>,
    /// For Slack; null takes it away.
    #[oai(nullable, validator(max_length = 4096))]
    recipient_slack_webhook: Option<String>,
    /// Whether it is asked at all.
    #[oai(nullable)]
    is_active: Option<Flag>,
}

impl Example for SeedRuleChange {
    fn example() -> Self {
        Self {
            event_source_id: None,
            notification_template_id: None,
            channel: None,
            conditions: None,
            recipient_field: None,
            recipient_email: Some("shop@example.com".to_owned()),
            recipient_phone: None,
            recipient_slack_webhook: None,
            is_active: Some(Flag(false)),
        }
    }
}

/// A rule.
#[derive(Object)]
#[oai(example)]
pub(super) struct SeedRule {
    /// The rule.
    id: String,
    /// The event source.
    #[oai(nullable)]
    event_source_id: Option<String>,
    /// The template that says it.
    notification_template_id: String,
    /// email, sms or slack; or push, webhook or log.
    #[oai(nullable)]
    channel: Option<String>,
    /// Dotted payload path → exactly equal value; all must hold.
    conditions: body::Object,
    /// Dotted payload path of the recipient; what is there goes first.
    #[oai(nullable)]
    recipient_field: Option<String>,
    /// Else, for e-mail, this address.
    #[oai(nullable)]
    recipient_email: Option<String>,
    /// Else, for SMS, this number.
    #[oai(nullable)]
    recipient_phone: Option<String>,
    /// Else, for Slack, this webhook.
    #[oai(nullable)]
    recipient_slack_webhook: Option<String>,
    /// Whether it is asked at all.
    is_active: bool,
    /// Herald's own: a unique name.
    name: String,
    /// Herald's own: the recipient as a template, where that says more than the fields above can.
    recipient: String,
    /// Herald's own: a CEL expression, asked after the conditions.
    #[oai(nullable)]
    when: Option<String>,
    /// Herald's own: high, normal or low.
    priority: String,
    /// ISO 8601.
    created_at: String,
    /// ISO 8601.
    updated_at: String,
}

impl Example for SeedRule {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            event_source_id: Some(example::ID.to_owned()),
            notification_template_id: example::OTHER_ID.to_owned(),
            channel: Some("email".to_owned()),
            conditions: example::object(json!({ "order.paid": true })),
            recipient_field: Some("customer_email".to_owned()),
            recipient_email: Some("sales@example.com".to_owned()),
            recipient_phone: None,
            recipient_slack_webhook: None,
            is_active: true,
            name: "rule 01980c2f-7d1a-7c3e-9a55-3f2b8c0d4e6f".to_owned(),
            recipient: "{{ customer_email }}".to_owned(),
            when: None,
            priority: "normal".to_owned(),
            created_at: example::TIME.to_owned(),
            updated_at: example::TIME.to_owned(),
        }
    }
}

pub(super) fn shown(rule: &Rule, catalog: &Catalog) -> SeedRule {
    let source = catalog
        .sources
        .iter()
        .find(|source| source.name == rule.event);
    let recipient = recipient_of(rule, catalog);
    SeedRule {
        id: rule.id.to_string(),
        event_source_id: source.map(|source| source.id.to_string()),
        notification_template_id: rule.template_id.to_string(),
        channel: channel_of(rule, catalog).map(|channel| channel.to_string()),
        conditions: body::documented(&rule.conditions),
        recipient_field: recipient.field,
        recipient_email: recipient.email,
        recipient_phone: recipient.phone,
        recipient_slack_webhook: recipient.slack_webhook,
        is_active: rule.is_active,
        name: rule.name.clone(),
        recipient: rule.recipient.clone(),
        when: rule.when.clone(),
        priority: rule.priority.to_string(),
        created_at: time::format(rule.created_at),
        updated_at: time::format(rule.updated_at),
    }
}

/// The channel of a rule, its template's where it has none of its own.
pub(super) fn channel_of(rule: &Rule, catalog: &Catalog) -> Option<Channel> {
    let newest = catalog
        .templates
        .iter()
        .find(|version| !version.retired && version.template.id == rule.template_id);
    rule.channel
        .or(newest.map(|version| version.template.channel))
}

/// A rule's recipient in the first seed's fields, as far as they can say it.
pub(super) fn recipient_of(rule: &Rule, catalog: &Catalog) -> SeedRecipient {
    if let Some(recipient) = &rule.seed_recipient {
        return recipient.clone();
    }
    let mut recipient = SeedRecipient::default();
    let text = rule.recipient.trim();
    let inside = text
        .strip_prefix("{{")
        .and_then(|text| text.strip_suffix("}}"));
    match (inside, channel_of(rule, catalog)) {
        (Some(inside), _) if !inside.contains(['{', '}', '|']) => {
            recipient.field = Some(inside.trim().to_owned());
        }
        _ if text.contains("{{") => {}
        (_, Some(Channel::Email)) => recipient.email = Some(text.to_owned()),
        (_, Some(Channel::Sms)) => recipient.phone = Some(text.to_owned()),
        (_, Some(Channel::Slack)) => recipient.slack_webhook = Some(text.to_owned()),
        _ => {}
    }
    recipient
}
