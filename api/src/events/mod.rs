//! Events: what happened in producers' systems.

use std::time::Duration;

use herald_broker::BrokerError;
use herald_runtime::{outbox::OutboxError, setup::EVENT_BYTES, worker::now};
use herald_schemas::{
    ids::EventId,
    records::{Event as EventRecord, RuleOutcome},
    rows::{EventRow, Filter, Index},
};
use herald_stages::snapshot::Snapshot;
use poem::Request;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::{
    Api, Parts, Tag,
    body::{self, Body, Fields},
    fault::{Fault, Faults},
    keys::Caller,
    notifications::show::{Notification, full},
    time,
    trace::Trace,
};

/// How long a read waits for what was just written.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many of an event's notifications are shown with it.
const SHOWN: usize = 1_000;

/// An event to be sent.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewEvent {
    /// The name of an event source.
    #[oai(validator(max_length = 255))]
    event: String,
    /// What the rules and templates work on.
    payload: body::Object,
}

/// An accepted event.
#[derive(Object)]
struct AcceptedEvent {
    /// `Event triggered successfully.`
    message: String,
    /// The event's name, as it was sent.
    event: String,
    /// The payload, as it was sent.
    payload: body::Object,
    /// The event's id.
    id: String,
}

#[derive(ApiResponse)]
enum Triggered {
    /// It is in the log; the rules are asked next.
    #[oai(status = 202)]
    Accepted(
        Json<AcceptedEvent>,
        /// The request's, or a new one.
        #[oai(header = "X-Correlation-Id")]
        String,
        /// The request's, or a new one.
        #[oai(header = "traceparent")]
        String,
    ),
}

/// An event and what the rules made of it.
#[derive(Object)]
struct Event {
    /// The event.
    id: String,
    /// The name of its source.
    event: String,
    /// What the rules and templates work on.
    payload: Value,
    /// ISO 8601.
    occurred_at: String,
    /// The request's, or the producer's.
    #[oai(nullable)]
    correlation_id: Option<String>,
    /// The version of the catalog that decided; null until the rules were asked.
    #[oai(nullable)]
    catalog_version: Option<i64>,
    /// One entry for each rule of this event; null until they were asked.
    #[oai(nullable)]
    rules: Option<Vec<RuleVerdict>>,
    /// Why no rule was asked at all.
    #[oai(nullable)]
    error: Option<String>,
    /// What was made of it.
    notifications: Vec<Notification>,
}

/// What a rule said.
#[derive(Object)]
struct RuleVerdict {
    /// The rule.
    id: String,
    /// Its name at that time.
    name: String,
    /// Whether it made a notification.
    matched: bool,
    /// Why it did not match.
    #[oai(nullable)]
    reason: Option<String>,
    /// The notification it made.
    #[oai(nullable)]
    notification_id: Option<String>,
}

pub(crate) struct Routes;

#[OpenApi(tag = "Tag::Events")]
impl Routes {
    /// Sends an event, as the first seed does.
    #[oai(path = "/events", method = "post")]
    async fn trigger(
        &self,
        _caller: Caller,
        request: &Request,
        api: Parts<'_>,
        body: Body<NewEvent>,
    ) -> Result<Triggered, Fault> {
        accept(&api, request, &body.value).await
    }

    /// Sends an event.
    #[oai(path = "/v1/events", method = "post")]
    async fn trigger_v1(
        &self,
        _caller: Caller,
        request: &Request,
        api: Parts<'_>,
        body: Body<NewEvent>,
    ) -> Result<Triggered, Fault> {
        accept(&api, request, &body.value).await
    }

    /// Shows an event, what the rules said of it, and what was made of it.
    #[oai(path = "/v1/events/:id", method = "get")]
    async fn event(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The event's id.
        id: Path<String>,
    ) -> Result<Json<Event>, Fault> {
        let missing = || Fault::not_found("Event");
        let id: EventId = id.parse().map_err(|_| missing())?;
        let row = find(&api, id).await?.ok_or_else(missing)?;
        let filter = Filter {
            index: Some(Index::Event(id.to_string())),
            ..Filter::default()
        };
        let page = api.store.list_notifications(&filter, None, SHOWN).await?;
        Ok(Json(shown(row, page.items.iter().map(full).collect())))
    }
}

async fn accept(api: &Api, request: &Request, body: &Value) -> Result<Triggered, Fault> {
    let trace = Trace::of(request);
    let (name, payload, version) = api.checked(|catalog| check(body, catalog)).await?;
    let id = EventId::random();
    let event = EventRecord {
        id: Some(id.to_string()),
        event: name.clone(),
        payload: Value::Object(payload.clone()).to_string(),
        occurred_at: now(),
        catalog_version: version,
        correlation_id: Some(trace.correlation_id.clone()),
        traceparent: Some(trace.traceparent.clone()),
    };
    match api.outbox.send_events(&[(None, event)]).await {
        Err(OutboxError::Broker(BrokerError::TooLarge { .. })) => {
            let text = format!("The event exceeds {EVENT_BYTES} bytes.");
            return Err(Faults::only("payload", text));
        }
        sent => sent?,
    };
    let accepted = AcceptedEvent {
        message: "Event triggered successfully.".to_owned(),
        event: name,
        payload: body::documented(&payload),
        id: id.to_string(),
    };
    Ok(Triggered::Accepted(
        Json(accepted),
        trace.correlation_id,
        trace.traceparent,
    ))
}

/// The event's name, its payload, and the version of the catalog that lets it through.
fn check(body: &Value, catalog: &Snapshot) -> Result<(String, Map<String, Value>, i64), Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let name = fields.required("event", 255).unwrap_or_default();
    let payload = fields.object("payload").cloned().unwrap_or_default();
    if fields.get("payload").is_none() {
        fields.fault("payload", "The payload field is required.");
    }
    if !name.is_empty() && !catalog.source(&name).is_some_and(|source| source.is_active) {
        fields.fault("event", "The selected event is invalid.");
    }
    faults.none()?;
    Ok((name, payload, catalog.version()))
}

/// The event; one that was just sent may still be on its way to the store.
async fn find(api: &Api, id: EventId) -> Result<Option<EventRow>, Fault> {
    let until = Instant::now() + PATIENCE;
    let is_recent = (now() - id.unix_ms()).abs() < 60_000;
    loop {
        let found = api.store.event(id).await?;
        if found.is_some() || !is_recent || Instant::now() >= until {
            return Ok(found);
        }
        sleep(LOOK_EVERY).await;
    }
}

fn shown(row: EventRow, notifications: Vec<Notification>) -> Event {
    let rules = row.matched.as_ref().map(|matched| {
        let rule = |outcome: &RuleOutcome| RuleVerdict {
            id: outcome.rule_id.to_string(),
            name: outcome.rule.clone(),
            matched: outcome.notification_id.is_some(),
            reason: outcome.reason.clone(),
            notification_id: outcome.notification_id.map(|id| id.to_string()),
        };
        matched.rules.iter().map(rule).collect()
    });
    Event {
        id: row.id.to_string(),
        event: row.event,
        payload: serde_json::from_str(&row.payload).unwrap_or(Value::String(row.payload)),
        occurred_at: time::format(row.occurred_at),
        correlation_id: row.correlation_id,
        catalog_version: row.matched.as_ref().map(|matched| matched.catalog_version),
        error: row
            .matched
            .and_then(|matched| matched.error)
            .map(|error| error.message),
        rules,
        notifications,
    }
}
