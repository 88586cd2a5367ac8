//! The stage match: an event → a notification for each rule that it satisfies, and what the others
//! said.

use herald_schemas::{
    catalog::{SeedRecipient, Template},
    ids::{EventId, NotificationId},
    records::{
        Event, EventMatched, Failure, Identity, NotificationRequested, RuleOutcome, StatusChanged,
    },
    words::{Channel, Status},
};
use serde_json::{Map, Value};

use crate::{
    Context, Output, SchemaFault, Source, Verdict,
    poison::{letter, poison},
    recipient,
    shortened::{check_keys, shortened},
    snapshot::{CompiledRule, Recipient, Snapshot},
    template::{Escape, Variables, render},
    when::Asked,
};

/// This stage's name.
const STAGE: &str = "match";
/// How many rules of an event are told about.
const MAX_OUTCOMES: usize = 1_000;
/// How much of a payload's value is told.
const MAX_VALUE: usize = 100;
/// How much of a rule's reason: a thousand of them are one record.
const MAX_REASON: usize = 500;

/// What one rule makes of an event.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// The rule.
    pub rule: &'a CompiledRule,
    /// Whom it notifies and by which template, or why nobody.
    pub outcome: Result<Notify<'a>, String>,
}

/// Whom a rule notifies.
#[derive(Debug, Clone, PartialEq)]
pub struct Notify<'a> {
    /// By which template.
    pub template: &'a Template,
    /// By which channel.
    pub channel: Channel,
    /// Whom.
    pub recipient: String,
}

/// Asks every rule of an event.
pub fn evaluate<'a>(
    catalog: &'a Snapshot,
    event: &str,
    payload: &Map<String, Value>,
) -> Vec<Evaluated<'a>> {
    let mut asked = Asked::new(event, payload);
    let rules = catalog.rules(event).iter();
    rules
        .map(|rule| Evaluated {
            rule,
            outcome: ask(catalog, rule, payload, &mut asked),
        })
        .collect()
}

fn ask<'a>(
    catalog: &'a Snapshot,
    compiled: &CompiledRule,
    payload: &Map<String, Value>,
    asked: &mut Asked<'_>,
) -> Result<Notify<'a>, String> {
    let rule = &compiled.rule;
    if !rule.is_active {
        return Err("the rule is not active".to_owned());
    }
    for (path, expected) in &rule.conditions {
        match lookup(payload, path) {
            Some(found) if equal(found, expected) => {}
            Some(found) => {
                let (found, expected) = (told(found), told(expected));
                return Err(format!("{path} is {found}, not {expected}"));
            }
            None => return Err(format!("{path} is missing, not {}", told(expected))),
        }
    }
    match &compiled.when {
        Some(Ok(when)) if !asked.holds(when)? => return Err("when is false".to_owned()),
        Some(Err(reason)) => return Err(reason.clone()),
        Some(Ok(_)) | None => {}
    }
    let template = catalog
        .template(rule.template_id, None)
        .ok_or_else(|| format!("there is no template {}", rule.template_id))?;
    let channel = rule.channel.unwrap_or(template.channel);
    let recipient = recipient_of(&compiled.recipient, channel, payload)?;
    recipient::check(channel, &recipient)
        .map_err(|problem| format!("recipient {recipient:?} {problem}"))?;
    Ok(Notify {
        template,
        channel,
        recipient,
    })
}

fn recipient_of(
    from: &Recipient,
    channel: Channel,
    payload: &Map<String, Value>,
) -> Result<String, String> {
    let found = match from {
        Recipient::Fixed(text) => text.clone(),
        Recipient::Path(path) => at(payload, path)?,
        Recipient::Seed(seed) => of_seed(seed, channel, payload)?,
        Recipient::Template(text) => {
            let variables = Variables {
                given: payload,
                defaults: &Map::new(),
            };
            render(text, variables, Escape::None)
                .map_err(|error| format!("no recipient: {error}"))?
        }
    };
    let trimmed = found.trim();
    if trimmed.is_empty() {
        return Err("no recipient: it is empty".to_owned());
    }
    Ok(trimmed.to_owned())
}

/// What the payload says goes first.
fn of_seed(
    seed: &SeedRecipient,
    channel: Channel,
    payload: &Map<String, Value>,
) -> Result<String, String> {
    let field = seed.field.as_deref();
    match (field.map(|path| at(payload, path)), seed.fixed(channel)) {
        (Some(Ok(found)), _) if !found.trim().is_empty() => Ok(found),
        (_, Some(fixed)) => Ok(fixed.to_owned()),
        (Some(found), None) => found,
        (None, None) => Err("no recipient: the rule names none".to_owned()),
    }
}

/// The recipient at a path.
fn at(payload: &Map<String, Value>, path: &str) -> Result<String, String> {
    match lookup(payload, path) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Null) | None => Err(format!("no recipient: {path} is missing")),
        Some(other) => Err(format!("no recipient: {path} is {}", told(other))),
    }
}

/// The value at a dotted path; a number is an index into a list.
pub fn lookup<'a>(payload: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut steps = path.split('.');
    let mut value = payload.get(steps.next()?)?;
    for step in steps {
        value = match value {
            Value::Object(fields) => fields.get(step)?,
            Value::Array(items) => items.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

fn told(value: &Value) -> String {
    match value {
        // With its quotes it is cut all the same, and what follows need not be looked at.
        Value::String(text) => {
            let beginning: String = text.chars().take(MAX_VALUE).collect();
            shortened(Value::from(beginning), MAX_VALUE)
        }
        other => shortened(other, MAX_VALUE),
    }
}

/// Equal as JSON, and 1 is 1.0.
fn equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            found == expected || found.as_f64() == expected.as_f64()
        }
        _ => found == expected,
    }
}

/// An event → a request and a first status for each rule that holds, and what all rules said.
pub fn process(event: Event, source: &Source<'_>, context: &Context<'_>) -> Verdict {
    let id = event.event_id(
        source.topic,
        source.partition,
        source.offset,
        source.timestamp,
    );
    let payload = match check(&event, context.catalog) {
        Ok(payload) => payload,
        Err(error) => return refuse(id, error, source, context),
    };
    let evaluated = evaluate(context.catalog, &event.event, &payload);
    let mut outputs = Vec::new();
    let mut rules = Vec::with_capacity(evaluated.len().min(MAX_OUTCOMES));
    let omitted = evaluated.len().saturating_sub(MAX_OUTCOMES) as i32;
    for Evaluated { rule, outcome } in evaluated {
        let (notification_id, reason) = match outcome {
            Ok(notify) => {
                let request = request(id, &event, rule, notify, source, context);
                let notification = request.0;
                outputs.extend(request.1);
                (Some(notification), None)
            }
            Err(reason) => (None, Some(shortened(reason, MAX_REASON))),
        };
        if rules.len() < MAX_OUTCOMES {
            let rule = &rule.rule;
            rules.push(RuleOutcome {
                rule_id: rule.id,
                rule: rule.name.clone(),
                notification_id,
                reason,
            });
        }
    }
    outputs.push(Output::Matched(EventMatched {
        event_id: id,
        catalog_version: context.catalog.version(),
        at: context.now,
        rules,
        omitted,
        error: None,
    }));
    Verdict::Emit(outputs)
}

fn check(event: &Event, catalog: &Snapshot) -> Result<Map<String, Value>, Failure> {
    match catalog.source(&event.event) {
        None => {
            let message = format!("there is no event source {:?}", event.event);
            return Err(poison("unknown_event", message));
        }
        Some(source) if !source.is_active => {
            let message = format!("the event source {:?} is not active", event.event);
            return Err(poison("inactive_event", message));
        }
        Some(_) => {}
    }
    check_keys(&[
        ("correlation_id", &event.correlation_id),
        ("traceparent", &event.traceparent),
    ])
    .map_err(|problem| poison("invalid_event", problem))?;
    let payload = serde_json::from_str(&event.payload).map_err(|error| {
        poison(
            "invalid_payload",
            format!("the payload is no JSON object: {error}"),
        )
    })?;
    let faults = catalog.schema_faults(&event.event, &payload);
    if faults.is_empty() {
        return Ok(payload);
    }
    let faults: Vec<String> = faults.iter().map(SchemaFault::to_string).collect();
    Err(poison("schema_violation", faults.join("; ")))
}

fn refuse(id: EventId, error: Failure, source: &Source<'_>, context: &Context<'_>) -> Verdict {
    let letter = letter(STAGE, source, error.clone(), context.now, 0, None, Some(id));
    let matched = EventMatched {
        event_id: id,
        catalog_version: context.catalog.version(),
        at: context.now,
        rules: Vec::new(),
        omitted: 0,
        error: Some(error),
    };
    Verdict::DeadLetter(vec![Output::DeadLetter(letter), Output::Matched(matched)])
}

fn request(
    event_id: EventId,
    event: &Event,
    rule: &CompiledRule,
    notify: Notify<'_>,
    source: &Source<'_>,
    context: &Context<'_>,
) -> (NotificationId, [Output; 2]) {
    let Notify {
        template,
        channel,
        recipient,
    } = notify;
    let rule = &rule.rule;
    let identity = Identity {
        id: NotificationId::of_rule(event_id, rule.id),
        recipient,
        channel,
        priority: rule.priority,
        batch_id: None,
        event_id: Some(event_id),
        rule_id: Some(rule.id),
        requeued_from: None,
        template_id: Some(template.id),
        template_version: Some(template.version),
        idempotency_key: None,
        correlation_id: event
            .correlation_id
            .clone()
            .or_else(|| source.correlation_id()),
        traceparent: event.traceparent.clone().or_else(|| source.traceparent()),
        // The record's own time: the same on every replay.
        created_at: source.timestamp,
        send_at: None,
        expires_at: None,
        catalog_version: context.catalog.version(),
        source: Some(source.provenance()),
    };
    let request = NotificationRequested {
        id: Some(identity.id.to_string()),
        recipient: identity.recipient.clone(),
        channel: identity.channel.as_str().to_owned(),
        priority: identity.priority.as_str().to_owned(),
        content: None,
        subject: None,
        html: None,
        template_id: identity.template_id,
        template_version: identity.template_version,
        variables: Some(event.payload.clone()),
        metadata: None,
        idempotency_key: None,
        correlation_id: identity.correlation_id.clone(),
        traceparent: identity.traceparent.clone(),
        batch_id: None,
        event_id: identity.event_id,
        rule_id: identity.rule_id,
        requeued_from: None,
        created_at: identity.created_at,
        send_at: None,
        expires_at: None,
        catalog_version: identity.catalog_version,
        accepted_by: Some(STAGE.to_owned()),
    };
    let id = identity.id;
    let status = StatusChanged {
        identity,
        status: Status::Pending,
        attempts: 0,
        at: source.timestamp,
        message: None,
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    };
    (id, [Output::Request(request), Output::Status(status)])
}
