//! A catalog, a record and a time that the tables start from and change.

use herald_schemas::{
    catalog::{Catalog, EventSource, Rule, Template, TemplateVersion},
    ids::{NotificationId, RuleId, SourceId, TemplateId, UnixMs},
    records::{DeliveryReady, Event, Failure, Identity, Message, NotificationRequested},
    words::{Channel, Priority},
};
use herald_stages::{Context, Output, Settings, Source, snapshot::Snapshot};
use serde_json::{Map, Value, json};

pub(crate) const NOW: UnixMs = 1_700_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a decision may depend on besides the record.
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) settings: Settings,
    pub(crate) now: UnixMs,
    pub(crate) seed: u64,
}

impl World {
    /// One event, one template for it in two versions, one rule.
    pub(crate) fn new() -> Self {
        let catalog = Catalog {
            version: 7,
            sources: vec![event_source("order_created")],
            templates: vec![
                TemplateVersion {
                    template: Template {
                        version: 1,
                        content: "Dear {{name}}".to_owned(),
                        ..template()
                    },
                    retired: true,
                },
                TemplateVersion {
                    template: template(),
                    retired: false,
                },
            ],
            rules: vec![rule("thanks")],
            api_keys: Vec::new(),
            controls: None,
        };
        Self {
            catalog,
            settings: Settings::default(),
            now: NOW,
            seed: 17,
        }
    }

    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Context<'_>) -> T) -> T {
        let (catalog, _) = Snapshot::compile(&self.catalog);
        question(&Context {
            now: self.now,
            seed: self.seed,
            catalog: &catalog,
            settings: &self.settings,
        })
    }
}

pub(crate) fn source(topic: &'static str) -> Source<'static> {
    Source {
        topic,
        partition: 3,
        offset: 17,
        timestamp: NOW - 5,
        key: Some(b"key"),
        value: b"as it was",
        headers: Vec::new(),
    }
}

pub(crate) fn event_source(name: &str) -> EventSource {
    EventSource {
        id: SourceId::derived(NOW, &[name.as_bytes()]),
        name: name.to_owned(),
        description: None,
        schema: None,
        is_active: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

/// The newest version of the one template.
pub(crate) fn template() -> Template {
    Template {
        id: TemplateId::derived(NOW, &[b"template"]),
        version: 2,
        name: "thanks".to_owned(),
        channel: Channel::Email,
        content: "Hello {{name}}, your order {{order.id}} at {{shop}}".to_owned(),
        subject: Some("Order {{order.id}}".to_owned()),
        html: Some("<p>{{name}}</p>".to_owned()),
        default_variables: object(json!({"shop": "Herald"})),
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(crate) fn rule(name: &str) -> Rule {
    Rule {
        id: RuleId::derived(NOW, &[name.as_bytes()]),
        name: name.to_owned(),
        event: "order_created".to_owned(),
        template_id: template().id,
        recipient: "{{customer.email}}".to_owned(),
        seed_recipient: None,
        channel: None,
        conditions: Map::new(),
        when: None,
        priority: Priority::High,
        is_active: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub(crate) fn payload() -> Value {
    json!({
        "name": "Ada <3",
        "order": {"id": 17, "total": 99.5, "lines": [{"sku": "a"}]},
        "customer": {"email": "ada@example.com", "vip": true},
        "note": null,
        "blank": "  ",
    })
}

pub(crate) fn event() -> Event {
    Event {
        id: some("order-17"),
        event: "order_created".to_owned(),
        payload: payload().to_string(),
        occurred_at: NOW - 10,
        catalog_version: 7,
        correlation_id: None,
        traceparent: None,
    }
}

/// What a producer outside writes that wants the template rendered.
pub(crate) fn request() -> NotificationRequested {
    NotificationRequested {
        id: some("n-1"),
        recipient: "ada@example.com".to_owned(),
        channel: "email".to_owned(),
        priority: "normal".to_owned(),
        content: None,
        subject: None,
        html: None,
        template_id: Some(template().id),
        template_version: None,
        variables: Some(payload().to_string()),
        metadata: None,
        idempotency_key: None,
        correlation_id: None,
        traceparent: None,
        batch_id: None,
        event_id: None,
        rule_id: None,
        requeued_from: None,
        created_at: NOW - 5,
        send_at: None,
        expires_at: None,
        catalog_version: 0,
        accepted_by: None,
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        id: NotificationId::derived(NOW, &[b"n"]),
        recipient: "ada@example.com".to_owned(),
        channel: Channel::Email,
        priority: Priority::High,
        batch_id: None,
        event_id: None,
        rule_id: None,
        requeued_from: None,
        template_id: None,
        template_version: None,
        idempotency_key: None,
        correlation_id: None,
        traceparent: None,
        created_at: NOW,
        send_at: None,
        expires_at: None,
        catalog_version: 7,
        source: None,
    }
}

pub(crate) fn message(content: &str) -> Message {
    Message {
        content: content.to_owned(),
        subject: None,
        html: None,
        metadata: None,
    }
}

pub(crate) fn delivery() -> DeliveryReady {
    DeliveryReady {
        identity: identity(),
        message: message("Hello"),
        message_known: true,
        attempts: 0,
        due_at: None,
        last_error: None,
    }
}

pub(crate) fn failure(kind: &str, code: &str) -> Failure {
    Failure {
        kind: kind.to_owned(),
        code: code.to_owned(),
        message: format!("{code} happened"),
    }
}

pub(crate) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The kinds of what is written, in order.
pub(crate) fn kinds(outputs: &[Output]) -> Vec<&'static str> {
    let kind = |output: &Output| match output {
        Output::Request(_) => "request",
        Output::Schedule(_) => "schedule",
        Output::Deliver(_) => "deliver",
        Output::Retry { .. } => "retry",
        Output::Status(_) => "status",
        Output::Batch(_) => "batch",
        Output::Matched(_) => "matched",
        Output::DeadLetter(_) => "dead letter",
    };
    outputs.iter().map(kind).collect()
}
