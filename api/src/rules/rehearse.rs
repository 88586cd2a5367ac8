//! What the rules would make of an event.

use herald_runtime::worker::now;
use herald_schemas::{
    ids::EventId,
    records::{DeliveryReady, Event, Failure},
};
use herald_stages::{
    Context, Settings,
    rehearsal::{self, Outcome},
    snapshot::Snapshot,
};
use poem_openapi::{Object, types::Example};
use serde_json::Value;

use crate::{
    body::{self, Fields},
    events::accept,
    example,
    fault::{Fault, Faults},
};

/// What would follow from an event.
#[derive(Object)]
pub(super) struct Rehearsal {
    /// The event's name, as it was sent.
    event: String,
    /// The payload, as it was sent.
    payload: body::Object,
    /// The version of the catalog that was asked.
    catalog_version: i64,
    /// How many rules match.
    matched: usize,
    /// One entry for each rule of this event, the first 1,000.
    rules: Vec<RehearsedRule>,
    /// How many more rules there are.
    omitted: i32,
    /// Why no rule was asked at all.
    #[oai(nullable)]
    error: Option<NamedError>,
}

/// What would follow from a rule.
#[derive(Object)]
#[oai(example)]
struct RehearsedRule {
    /// The rule.
    id: String,
    /// Its name.
    name: String,
    /// Whether it matches.
    matched: bool,
    /// Why it does not match.
    #[oai(nullable)]
    reason: Option<String>,
    /// What would be sent.
    #[oai(nullable)]
    notification: Option<RehearsedNotification>,
    /// Why what it asks for would be a dead letter.
    #[oai(nullable)]
    error: Option<NamedError>,
}

impl Example for RehearsedRule {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            name: "thank large customers".to_owned(),
            matched: true,
            reason: None,
            notification: Some(RehearsedNotification {
                recipient: "john@example.com".to_owned(),
                channel: "email".to_owned(),
                priority: "high".to_owned(),
                subject: Some("Order 444".to_owned()),
                content: "Thank you for order 444.".to_owned(),
                html: None,
                template_id: Some(example::OTHER_ID.to_owned()),
                template_version: Some(1),
            }),
            error: None,
        }
    }
}

/// A notification that is not sent.
#[derive(Object)]
struct RehearsedNotification {
    /// A phone number, an address, a token or a URL, by channel.
    recipient: String,
    /// sms, email, push, slack, webhook or log.
    channel: String,
    /// high, normal or low.
    priority: String,
    /// The subject of a mail, the title of a push message.
    #[oai(nullable)]
    subject: Option<String>,
    /// The text.
    content: String,
    /// The HTML part of a mail.
    #[oai(nullable)]
    html: Option<String>,
    /// The template that made it.
    #[oai(nullable)]
    template_id: Option<String>,
    /// The template's version.
    #[oai(nullable)]
    template_version: Option<i32>,
}

/// What a dead letter would say.
#[derive(Object)]
#[oai(example)]
struct NamedError {
    /// Such as `missing_variable` or `content_too_long`.
    code: String,
    /// For people.
    message: String,
}

impl Example for NamedError {
    fn example() -> Self {
        Self {
            code: "missing_variable".to_owned(),
            message: "variable \"customer.name\" is missing (line 1, column 7)".to_owned(),
        }
    }
}

/// Checks an event as one that is sent is checked, and asks the rules about it.
pub(super) fn rehearse(
    body: &Value,
    catalog: &Snapshot,
    settings: &Settings,
) -> Result<Rehearsal, Fault> {
    let mut faults = Faults::default();
    let sent = accept::event(Fields::of(body, &mut faults), catalog);
    faults.none()?;
    let sent = sent.ok_or_else(|| Fault::bad_request("The body is no event."))?;
    let context = Context {
        now: now(),
        seed: 0,
        catalog,
        settings,
    };
    let payload = body::documented(&sent.payload);
    let event = Event {
        id: Some(EventId::random().to_string()),
        event: sent.event.clone(),
        payload: Value::Object(sent.payload).to_string(),
        occurred_at: context.now,
        catalog_version: catalog.version(),
        correlation_id: None,
        traceparent: None,
    };
    let rehearsed = rehearsal::rehearse(event, &context);
    let rules: Vec<RehearsedRule> = rehearsed.rules.into_iter().map(rule).collect();
    Ok(Rehearsal {
        event: sent.event,
        payload,
        catalog_version: catalog.version(),
        matched: rules.iter().filter(|rule| rule.matched).count(),
        rules,
        omitted: rehearsed.omitted,
        error: rehearsed.error.map(named),
    })
}

fn rule(rehearsed: rehearsal::Rehearsed) -> RehearsedRule {
    let mut rule = RehearsedRule {
        id: rehearsed.rule_id.to_string(),
        name: rehearsed.rule,
        matched: true,
        reason: None,
        notification: None,
        error: None,
    };
    match rehearsed.outcome {
        Outcome::Silent(reason) => (rule.matched, rule.reason) = (false, Some(reason)),
        Outcome::Sends(delivery) => rule.notification = Some(notification(*delivery)),
        Outcome::Fails(failure) => rule.error = Some(named(failure)),
    }
    rule
}

fn notification(delivery: DeliveryReady) -> RehearsedNotification {
    let DeliveryReady {
        identity, message, ..
    } = delivery;
    RehearsedNotification {
        recipient: identity.recipient,
        channel: identity.channel.to_string(),
        priority: identity.priority.to_string(),
        subject: message.subject,
        content: message.content,
        html: message.html,
        template_id: identity.template_id.map(|id| id.to_string()),
        template_version: identity.template_version,
    }
}

fn named(failure: Failure) -> NamedError {
    NamedError {
        code: failure.code,
        message: failure.message,
    }
}
