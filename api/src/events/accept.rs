//! Taking events in: all of a request are checked before any is written.
//!
//! A client's own id is an idempotency key. What it names, the event's id and time, is kept before
//! the event is written; that it was written, after. So whoever sends it again, be it after a crash
//! in between, sends the same event, and once it is known to be in the log nobody writes it again.

use std::{collections::HashMap, sync::Arc};

use herald_broker::Outgoing;
use herald_runtime::{outbox::OutboxError, setup::EVENT_BYTES, worker::now};
use herald_schemas::{
    ids::{EventId, UnixMs},
    records::Event,
};
use herald_stages::snapshot::Snapshot;
use herald_store::{KeyClaim, KeyHeld, Store, StoreError};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tracing::warn;

use crate::{
    Api,
    body::Fields,
    fault::{Fault, Faults},
    to_the_end,
    trace::Trace,
};

/// The first seed's own word.
pub(super) const TRIGGERED: &str = "Event triggered successfully.";

const MAX_EVENTS: usize = 1_000;
/// The longest id of a client's.
const MAX_ID: usize = 128;
const MAX_KEY: usize = 255;
/// How many keys are answered at once.
const ANSWERED_AT_ONCE: usize = 50;

/// An event as a client sends it.
pub(crate) struct Sent {
    pub(crate) event: String,
    pub(crate) payload: Map<String, Value>,
    id: Option<String>,
    key: Option<String>,
    occurred_at: Option<UnixMs>,
}

/// A request that may be written.
pub(super) struct Request {
    events: Vec<Sent>,
    /// Whether it is one event by itself.
    pub(super) is_one: bool,
    catalog_version: i64,
}

/// Checks a whole request.
pub(super) fn check(body: &Value, catalog: &Snapshot) -> Result<Request, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let request = |events, is_one| Request {
        events,
        is_one,
        catalog_version: catalog.version(),
    };
    let items = match fields.get("events") {
        None if !fields.has("events") => {
            let sent = event(fields, catalog);
            faults.none()?;
            return Ok(request(Vec::from_iter(sent), true));
        }
        Some(Value::Array(items)) if !items.is_empty() => items,
        Some(Value::Array(_)) | None => {
            fields.fault("events", "The events field is required.");
            &Vec::new()
        }
        Some(_) => {
            fields.fault("events", "The events field must be an array.");
            &Vec::new()
        }
    };
    if items.len() > MAX_EVENTS {
        let text = format!("The events field must not have more than {MAX_EVENTS} items.");
        // None of them is looked at: there may be very many.
        return Err(Faults::only("events", text));
    }
    let mut events = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let fields = Fields::at(item, format!("events.{index}."), &mut faults);
        events.extend(event(fields, catalog));
    }
    faults.none()?;
    Ok(request(events, false))
}

/// One event; none when something is wrong with it.
pub(crate) fn event(mut fields: Fields<'_, '_>, catalog: &Snapshot) -> Option<Sent> {
    let name = fields.required("event", 255);
    let given = fields.get("payload");
    if given.is_none() {
        fields.fault("payload", "The payload field is required.");
    }
    let payload = fields.object("payload").cloned().unwrap_or_default();
    let source = name.as_deref().and_then(|name| catalog.source(name));
    if name.is_some() && !source.is_some_and(|source| source.is_active) {
        fields.fault("event", "The selected event is invalid.");
    }
    // An empty list is PHP's empty object.
    let is_object = given.is_some_and(|given| given.is_object() || given.is_array());
    if let Some(name) = name.as_deref().filter(|_| is_object) {
        for fault in catalog.schema_faults(name, &payload) {
            let dot = if fault.path.is_empty() { "" } else { "." };
            let field = format!("payload{dot}{}", fault.path);
            let text = format!(
                "The {field} field is against the schema: {}.",
                fault.message
            );
            fields.fault(&field, text);
        }
    }
    let id = fields.text("id", MAX_ID);
    let key = fields.text("key", MAX_KEY);
    let occurred_at = fields.time("occurred_at");
    Some(Sent {
        event: name?,
        payload,
        id,
        key,
        occurred_at,
    })
}

/// An event that is in the log.
pub(super) struct Accepted {
    pub(super) sent: Sent,
    pub(super) id: EventId,
    pub(super) is_duplicate: bool,
}

/// Writes what of a request was not written before.
pub(super) async fn accept(
    api: &Api,
    scope: &str,
    trace: &Trace,
    request: Request,
) -> Result<Vec<Accepted>, Fault> {
    let now = now();
    let mut known = known(api, scope, &request.events, now).await?;
    let mut accepted = Vec::with_capacity(request.events.len());
    let (mut records, mut places, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for (index, sent) in request.events.into_iter().enumerate() {
        let (named, is_duplicate, is_written) = match &sent.id {
            None => (Named::new(&sent, now), false, false),
            Some(own) => {
                let known = known.get_mut(own).ok_or_else(lost)?;
                let in_request = std::mem::replace(&mut known.was_sent, true);
                let is_written = known.held.answer.is_some() || in_request;
                let is_duplicate = !known.held.is_new || in_request;
                if !is_written {
                    written.push((own.clone(), known.held.clone()));
                }
                (known.named, is_duplicate, is_written)
            }
        };
        if !is_written {
            let event = record(&sent, named, request.catalog_version, trace);
            records.push((sent.key.clone(), event));
            places.push(index);
        }
        accepted.push(Accepted {
            sent,
            id: named.id,
            is_duplicate,
        });
    }
    let records = api.outbox.encode_events(&records)?;
    fit(&records, &places, request.is_one)?;
    if !records.is_empty() {
        write(api, scope, records, written).await?;
    }
    Ok(accepted)
}

/// What a client's id names.
#[derive(Clone, Copy)]
struct Named {
    id: EventId,
    occurred_at: UnixMs,
}

impl Named {
    fn new(sent: &Sent, now: UnixMs) -> Self {
        Self {
            id: EventId::random(),
            occurred_at: sent.occurred_at.unwrap_or(now),
        }
    }

    fn read(value: &str) -> Option<Self> {
        let (id, occurred_at) = value.split_once(' ')?;
        Some(Self {
            id: id.parse().ok()?,
            occurred_at: occurred_at.parse().ok()?,
        })
    }

    fn value(self) -> String {
        format!("{} {}", self.id, self.occurred_at)
    }
}

/// A client's id as it stands.
struct Known {
    named: Named,
    held: KeyHeld,
    was_sent: bool,
}

/// Keeps what the clients' ids name, unless they name something already.
async fn known(
    api: &Api,
    scope: &str,
    events: &[Sent],
    now: UnixMs,
) -> Result<HashMap<String, Known>, Fault> {
    let mut claims: HashMap<&str, KeyClaim> = HashMap::new();
    for sent in events {
        let Some(own) = sent.id.as_deref() else {
            continue;
        };
        claims.entry(own).or_insert_with(|| KeyClaim {
            scope: scope.to_owned(),
            key: own.to_owned(),
            value: Named::new(sent, now).value(),
            digest: String::new(),
            // Who comes next need not wait: it writes the same.
            leased_until: now,
            kept_until: now.saturating_add(api.keys_kept.as_millis() as UnixMs),
        });
    }
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    let claims: Vec<KeyClaim> = claims.into_values().collect();
    let held = api.store.take_keys(&claims).await?;
    let known = claims.into_iter().zip(held).map(|(claim, held)| {
        let known = Known {
            named: Named::read(&held.value).ok_or_else(lost)?,
            held,
            was_sent: false,
        };
        Ok((claim.key, known))
    });
    known.collect()
}

fn lost() -> Fault {
    StoreError::Fatal("an event's key cannot be read".to_owned()).into()
}

fn record(sent: &Sent, named: Named, catalog_version: i64, trace: &Trace) -> Event {
    Event {
        id: Some(named.id.to_string()),
        event: sent.event.clone(),
        payload: Value::Object(sent.payload.clone()).to_string(),
        occurred_at: named.occurred_at,
        catalog_version,
        correlation_id: Some(trace.correlation_id.clone()),
        traceparent: Some(trace.traceparent.clone()),
    }
}

/// Whether the topic takes each of them: else the broker might take some and refuse the others.
fn fit(records: &[Outgoing], places: &[usize], is_one: bool) -> Result<(), Fault> {
    let mut faults = Faults::default();
    for (record, place) in records.iter().zip(places) {
        if record.bytes() > EVENT_BYTES {
            let field = match is_one {
                true => "payload".to_owned(),
                false => format!("events.{place}.payload"),
            };
            faults.add(field, format!("The event exceeds {EVENT_BYTES} bytes."));
        }
    }
    faults.none()
}

async fn write(
    api: &Api,
    scope: &str,
    records: Vec<Outgoing>,
    written: Vec<(String, KeyHeld)>,
) -> Result<(), Fault> {
    let (outbox, store) = (Arc::clone(&api.outbox), Arc::clone(&api.store));
    let scope: Arc<str> = scope.into();
    to_the_end(async move {
        outbox.enqueue(records).await?.await?;
        answer(&store, &scope, written).await;
        Ok::<_, OutboxError>(())
    })
    .await
}

/// Keeps that the events are in the log. Where that fails they are written once more when they come
/// again, which changes nothing.
async fn answer(store: &Arc<dyn Store>, scope: &Arc<str>, mut written: Vec<(String, KeyHeld)>) {
    while !written.is_empty() {
        let mut answers = JoinSet::new();
        for (key, held) in written.drain(..written.len().min(ANSWERED_AT_ONCE)) {
            let (store, scope) = (Arc::clone(store), Arc::clone(scope));
            answers.spawn(async move { store.answer_key(&scope, &key, &held, b"written").await });
        }
        while let Some(answered) = answers.join_next().await {
            if let Ok(Err(error)) = answered {
                warn!(%error, "an event's key is left without its answer");
            }
        }
    }
}
