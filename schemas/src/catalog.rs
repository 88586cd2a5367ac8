//! The catalog: which events there are, what is said about them and to whom, and who may ask.
//!
//! The store is its truth; these are the objects as the store keeps them and the API shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    ids::{ApiKeyId, RuleId, SourceId, TemplateId, UnixMs},
    words::{Channel, Priority, Scope},
};

/// A kind of event that may be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventSource {
    /// The source.
    pub id: SourceId,
    /// The events' name, such as `order_created`; unique.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of the payload.
    #[serde(default)]
    pub schema: Option<Value>,
    /// Whether its events are accepted.
    pub is_active: bool,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it last changed.
    pub updated_at: UnixMs,
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The template, the same for all its versions.
    pub id: TemplateId,
    /// From 1; every change makes the next.
    pub version: i32,
    /// Unique among the templates that are not deleted.
    pub name: String,
    /// The channel it is written for.
    pub channel: Channel,
    /// The text, with `{{name}}` placeholders.
    pub content: String,
    /// The subject of a mail, the title of a push message.
    #[serde(default)]
    pub subject: Option<String>,
    /// The HTML part of a mail; values are escaped.
    #[serde(default)]
    pub html: Option<String>,
    /// What a variable is where the request says nothing.
    #[serde(default)]
    pub default_variables: Map<String, Value>,
    /// When the template was made.
    pub created_at: UnixMs,
    /// When this version was made.
    pub updated_at: UnixMs,
}

/// Which notification follows from which event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The rule.
    pub id: RuleId,
    /// For people; unique.
    pub name: String,
    /// The name of the event source.
    pub event: String,
    /// The template that says it; its newest version at the time of the event.
    pub template_id: TemplateId,
    /// A template over the payload, such as `{{customer.email}}`.
    pub recipient: String,
    /// Goes before `recipient`: the recipient of a rule that was made as the first seed's are.
    #[serde(default)]
    pub seed_recipient: Option<SeedRecipient>,
    /// Goes before the template's.
    #[serde(default)]
    pub channel: Option<Channel>,
    /// Dotted payload path → exactly equal value; all must hold.
    #[serde(default)]
    pub conditions: Map<String, Value>,
    /// A CEL expression over `payload` and `event`, asked after the conditions.
    #[serde(default)]
    pub when: Option<String>,
    /// The lane.
    pub priority: Priority,
    /// Whether it is asked at all.
    pub is_active: bool,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it last changed.
    pub updated_at: UnixMs,
}

/// A recipient as the rules of the first seed name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedRecipient {
    /// Dotted payload path; what is there goes first.
    #[serde(default)]
    pub field: Option<String>,
    /// Else, of a rule for e-mail, this.
    #[serde(default)]
    pub email: Option<String>,
    /// Of one for SMS, this.
    #[serde(default)]
    pub phone: Option<String>,
    /// Of one for Slack, this.
    #[serde(default)]
    pub slack_webhook: Option<String>,
}

impl SeedRecipient {
    /// The one that is the same for all payloads.
    pub fn fixed(&self, channel: Channel) -> Option<&str> {
        let fixed = match channel {
            Channel::Email => &self.email,
            Channel::Sms => &self.phone,
            Channel::Slack => &self.slack_webhook,
            Channel::Push | Channel::Webhook | Channel::Log => &None,
        };
        fixed.as_deref()
    }
}

/// A key that lets a client in. The key itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The key's id.
    pub id: ApiKeyId,
    /// For people; unique.
    pub name: String,
    /// How the key begins: enough to tell it from others, no help in guessing it.
    pub prefix: String,
    /// SHA-256 of the whole key, in hexadecimal digits.
    pub digest: String,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// How many requests a minute it may make; none: as many as the configuration says.
    #[serde(default)]
    pub rate_limit: Option<u32>,
    /// From when on it is not good any more.
    #[serde(default)]
    pub expires_at: Option<UnixMs>,
    /// When it was made.
    pub created_at: UnixMs,
}

/// What operators change while everything runs; what is not set here is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Controls {
    /// How many a second all workers together may send; 0: as many as they can.
    pub rate_limits: BTreeMap<Channel, u32>,
    /// What is held back.
    pub paused: Paused,
    /// Where the provider webhook is.
    pub provider: Option<ProviderUrls>,
}

impl Controls {
    /// The id of the one object that they are.
    pub const ID: Uuid = Uuid::nil();
    /// Its name.
    pub const NAME: &str = "controls";
}

/// What is not delivered for now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paused {
    /// All of it.
    pub everything: bool,
    /// These channels.
    pub channels: BTreeSet<Channel>,
    /// These lanes.
    pub lanes: BTreeSet<Priority>,
}

/// Where the provider webhook is, in place of what is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderUrls {
    /// The primary.
    pub url: String,
    /// Asked when the primary fails.
    #[serde(default)]
    pub fallback_url: Option<String>,
}

impl ApiKey {
    /// Whether it has not expired.
    pub fn is_good(&self, now: UnixMs) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// The kinds of catalog objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`EventSource`]
    Source,
    /// [`Template`]
    Template,
    /// [`Rule`]
    Rule,
    /// [`ApiKey`]
    ApiKey,
    /// [`Controls`]
    Controls,
}

impl Kind {
    /// As the store writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Template => "template",
            Self::Rule => "rule",
            Self::ApiKey => "API key",
            Self::Controls => "controls",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The whole catalog at one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Grows with every change. What is here is at least this new.
    pub version: i64,
    /// All event sources.
    pub sources: Vec<EventSource>,
    /// All versions of all templates, those of deleted ones included.
    pub templates: Vec<TemplateVersion>,
    /// All rules.
    pub rules: Vec<Rule>,
    /// All API keys that are not revoked.
    pub api_keys: Vec<ApiKey>,
    /// What operators have set; none: nothing yet.
    pub controls: Option<Controls>,
}

/// A template's version, and whether the template may still be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateVersion {
    /// The version.
    pub template: Template,
    /// Deleted, or not the newest: only for what was accepted with it.
    pub retired: bool,
}
