//! An event as clients see it.

use std::time::Duration;

use herald_runtime::worker::now;
use herald_schemas::{
    ids::EventId,
    records::RuleOutcome,
    rows::{EventRow, Filter, Index},
};
use poem_openapi::Object;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    Api,
    fault::Fault,
    notifications::show::{Notification, full},
    time,
};

/// How long a read waits for what was just written.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many of an event's notifications are shown with it.
const SHOWN: usize = 1_000;

/// An event and what the rules made of it.
#[derive(Object)]
pub(super) struct Event {
    /// The event.
    id: String,
    /// The name of its source.
    event: String,
    /// What the rules and templates work on.
    payload: Value,
    /// When it happened. ISO 8601, as are all times.
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
    /// What was made of it, newest first, the first 1,000.
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

pub(super) async fn event(api: &Api, id: &str) -> Result<Event, Fault> {
    let missing = || Fault::not_found("Event");
    let id: EventId = id.parse().map_err(|_| missing())?;
    let row = find(api, id).await?.ok_or_else(missing)?;
    let filter = Filter {
        index: Some(Index::Event(id.to_string())),
        ..Filter::default()
    };
    let page = api.store.list_notifications(&filter, None, SHOWN).await?;
    Ok(shown(row, page.items.iter().map(full).collect()))
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
