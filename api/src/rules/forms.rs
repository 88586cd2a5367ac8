//! Rules as clients write and read them.

use herald_schemas::catalog::Rule;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use crate::{
    body::{self, Flag},
    catalog::CatalogMeta,
    example, time,
    words::{ChannelWord, PriorityWord},
};

/// A rule.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct NewRule {
    /// Unique.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: String,
    /// The name of an event source.
    #[oai(validator(min_length = 1, max_length = 255))]
    event: String,
    /// The template that says it.
    #[oai(validator(max_length = 36))]
    template_id: String,
    /// A template over the payload, such as `{{customer.email}}`.
    #[oai(validator(min_length = 1, max_length = 4096))]
    recipient: String,
    /// sms, email, push, slack, webhook or log; the template's unless said.
    #[oai(nullable)]
    channel: Option<ChannelWord>,
    /// Dotted payload path → exactly equal value; all must hold.
    #[oai(nullable)]
    conditions: Option<body::Dictionary>,
    /// A CEL expression over `payload` and `event`, asked after the conditions.
    #[oai(nullable, validator(max_length = 2000))]
    when: Option<String>,
    /// high, normal (the default) or low.
    #[oai(nullable)]
    priority: Option<PriorityWord>,
    /// Whether it is asked at all; true unless said.
    #[oai(nullable)]
    is_active: Option<Flag>,
}

impl Example for NewRule {
    fn example() -> Self {
        Self {
            name: "thank large customers".to_owned(),
            event: example::EVENT.to_owned(),
            template_id: example::OTHER_ID.to_owned(),
            recipient: "{{customer_email}}".to_owned(),
            channel: None,
            conditions: Some(example::object(json!({ "order.paid": true })).into()),
            when: Some("payload.total > 50.0".to_owned()),
            priority: Some(PriorityWord::High),
            is_active: Some(Flag(true)),
        }
    }
}

/// What is to change of a rule.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(super) struct RuleChange {
    /// Unique.
    #[oai(validator(min_length = 1, max_length = 255))]
    name: Option<String>,
    /// The name of an event source.
    #[oai(validator(min_length = 1, max_length = 255))]
    event: Option<String>,
    /// The template that says it.
    #[oai(validator(max_length = 36))]
    template_id: Option<String>,
    /// A template over the payload, such as `{{customer.email}}`.
    #[oai(validator(min_length = 1, max_length = 4096))]
    recipient: Option<String>,
    /// sms, email, push, slack, webhook or log; null for the template's.
    #[oai(nullable)]
    channel: Option<ChannelWord>,
    /// Dotted payload path → exactly equal value; replaces all of them.
    #[oai(nullable)]
    conditions: Option<body::Dictionary>,
    /// A CEL expression over `payload` and `event`; null takes it away.
    #[oai(nullable, validator(max_length = 2000))]
    when: Option<String>,
    /// high, normal or low.
    #[oai(nullable)]
    priority: Option<PriorityWord>,
    /// Whether it is asked at all.
    #[oai(nullable)]
    is_active: Option<Flag>,
}

impl Example for RuleChange {
    fn example() -> Self {
        Self {
            name: None,
            event: None,
            template_id: None,
            recipient: None,
            channel: None,
            conditions: None,
            when: None,
            priority: Some(PriorityWord::Low),
            is_active: Some(Flag(false)),
        }
    }
}

/// A rule.
#[derive(Object)]
#[oai(example)]
pub(super) struct ShownRule {
    /// The rule.
    id: String,
    /// Unique.
    name: String,
    /// The name of an event source.
    event: String,
    /// The template that says it.
    template_id: String,
    /// A template over the payload. Of a rule that was made with the first seed's fields, the first
    /// of those that apply.
    recipient: String,
    /// sms, email, push, slack, webhook or log; null for the template's.
    #[oai(nullable)]
    channel: Option<String>,
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

impl Example for ShownRule {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            name: "thank large customers".to_owned(),
            event: example::EVENT.to_owned(),
            template_id: example::OTHER_ID.to_owned(),
            recipient: "{{customer_email}}".to_owned(),
            channel: None,
            conditions: example::object(json!({ "order.paid": true })),
            when: Some("payload.total > 50.0".to_owned()),
            priority: "high".to_owned(),
            is_active: true,
            created_at: example::TIME.to_owned(),
            updated_at: example::TIME.to_owned(),
        }
    }
}

/// A part of the rules, newest first.
#[derive(Object)]
pub(super) struct Rules {
    /// The rules.
    pub(super) data: Vec<ShownRule>,
    /// Which part of the list this is.
    pub(super) meta: CatalogMeta,
}

pub(super) fn shown(rule: &Rule) -> ShownRule {
    ShownRule {
        id: rule.id.to_string(),
        name: rule.name.clone(),
        event: rule.event.clone(),
        template_id: rule.template_id.to_string(),
        recipient: rule.recipient.clone(),
        channel: rule.channel.map(|channel| channel.to_string()),
        conditions: body::documented(&rule.conditions),
        when: rule.when.clone(),
        priority: rule.priority.to_string(),
        is_active: rule.is_active,
        created_at: time::format(rule.created_at),
        updated_at: time::format(rule.updated_at),
    }
}
