//! Making a new notification of a dead letter.
//!
//! A letter's key in the store (see `once`) names the notification that is made of it, so that two
//! who requeue the same one make it once. Written with the letter is what was made, for lists.

use std::time::Duration;

use herald_runtime::{inbox::Inbox, worker::now};
use herald_schemas::{
    ids::{DeadLetterId, NotificationId},
    records::{DeadLetter, DeliveryReady, NotificationRequested},
    rows::{DeadLetterRow, LetterFilter, Order},
    words::{Channel, Priority},
};
use poem::Request;
use serde_json::Value;

use crate::{
    Api,
    fault::{Conflict, Fault, Faults},
    notifications::{
        accept, find_all,
        once::{self, Turn, Wanted},
    },
    pages,
    trace::Trace,
};

/// The longest delay: a year.
pub(crate) const MAX_DELAY_SECONDS: i64 = 366 * 86_400;
pub(crate) const MOST_AT_ONCE: usize = 1_000;
/// How many letters are read at once.
const READ_AT_ONCE: usize = 50;
/// How long a letter remembers that it was requeued; no letter is kept longer.
const KEPT: Duration = Duration::from_secs(3_650 * 86_400);

/// How to requeue.
pub(super) struct Asked {
    priority: Option<Priority>,
    delay_seconds: i64,
}

/// A parameter: of the query or of the body.
fn given(body: &Value, name: &str, query: Option<String>, faults: &mut Faults) -> Option<String> {
    if !body.is_object() {
        faults.add("body", "The body must be an object.");
    }
    let in_query = query.filter(|text| !text.is_empty());
    let in_body = match body.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    if in_query.is_some() && in_body.is_some() && in_query != in_body {
        let text = format!("The {name} in the query is not the one in the body.");
        faults.add(name, text);
    }
    in_query.or(in_body)
}

impl Asked {
    pub(super) fn of(
        body: &Value,
        priority: Option<String>,
        delay_seconds: Option<String>,
    ) -> Result<Self, Fault> {
        let mut faults = Faults::default();
        let priority = given(body, "priority", priority, &mut faults).and_then(|text| {
            let priority = text.parse().ok();
            if priority.is_none() {
                faults.add("priority", "Invalid priority.");
            }
            priority
        });
        let delay = given(body, "delay_seconds", delay_seconds, &mut faults);
        let delay_seconds = delay.map_or(0, |text| {
            let within = |seconds: &i64| (0..=MAX_DELAY_SECONDS).contains(seconds);
            text.parse().ok().filter(within).unwrap_or_else(|| {
                let text =
                    format!("The delay_seconds must be a number from 0 to {MAX_DELAY_SECONDS}.");
                faults.add("delay_seconds", text);
                0
            })
        });
        faults.none()?;
        Ok(Self {
            priority,
            delay_seconds,
        })
    }
}

/// How many letters at the most, and of which channel.
pub(super) fn which(
    body: &Value,
    limit: Option<String>,
    channel: Option<String>,
) -> Result<(usize, Option<Channel>), Fault> {
    let mut faults = Faults::default();
    let limit = given(body, "limit", limit, &mut faults).map_or(100, |text| {
        let within = |limit: &usize| (1..=MOST_AT_ONCE).contains(limit);
        text.parse().ok().filter(within).unwrap_or_else(|| {
            let text = format!("The limit must be a number from 1 to {MOST_AT_ONCE}.");
            faults.add("limit", text);
            0
        })
    });
    let channel = given(body, "channel", channel, &mut faults);
    let channel = pages::read("channel", channel.as_deref(), &mut faults, |text| {
        text.parse().ok()
    });
    faults.none()?;
    Ok((limit, channel))
}

/// Requeues one; answers the new notification.
pub(super) async fn one(
    api: &Api,
    row: &DeadLetterRow,
    asked: &Asked,
    request: &Request,
) -> Result<NotificationId, Fault> {
    let again = |id: NotificationId| {
        Fault::from(Conflict {
            message: "Dead-letter notification was already requeued.".to_owned(),
            notification_id: Some(id.to_string()),
            ..Conflict::default()
        })
    };
    if let Some(id) = row.requeued_as {
        return Err(again(id));
    }
    let of_letter = of_letter(api, &row.letter).await?;
    let wanted = Wanted {
        scope: "requeue".to_owned(),
        key: row.letter.id.to_string(),
        value: NotificationId::random().to_string(),
        digest: String::new(),
        kept: KEPT,
    };
    match once::claim(api, &wanted).await? {
        Turn::Made(held) => match held.value.parse() {
            Ok(id) => {
                // The note may have been lost in a crash.
                api.store.note_requeued(&[(row.letter.id, id)]).await?;
                Err(again(id))
            }
            Err(_) => Err(Fault::conflict(
                "Dead-letter notification was already requeued.",
            )),
        },
        Turn::Ours(ours) => {
            let made = make(api, row.letter.id, of_letter, ours.value(), asked, request).await;
            match &made {
                Ok(_) => once::made(api, &ours, b"requeued").await,
                Err(_) => once::give_back(api, std::slice::from_ref(&ours)).await,
            }
            made
        }
    }
}

async fn make(
    api: &Api,
    letter: DeadLetterId,
    of_letter: NotificationRequested,
    id: &str,
    asked: &Asked,
    request: &Request,
) -> Result<NotificationId, Fault> {
    let (now, trace) = (now(), Trace::of(request));
    let priority = asked.priority.map(|priority| priority.to_string());
    let requeued = NotificationRequested {
        id: Some(id.to_owned()),
        priority: priority.unwrap_or(of_letter.priority),
        // The client's key named the old one.
        idempotency_key: None,
        correlation_id: of_letter.correlation_id.or(Some(trace.correlation_id)),
        traceparent: Some(trace.traceparent),
        batch_id: None,
        created_at: now,
        send_at: (asked.delay_seconds > 0).then(|| now + asked.delay_seconds * 1_000),
        expires_at: None,
        accepted_by: Some("requeue".to_owned()),
        ..of_letter
    };
    let rows = accept::write(api, None, vec![requeued]).await?;
    let id = rows.first().map(|row| row.id());
    let id = id.ok_or_else(|| Fault::unavailable("The notification could not be made."))?;
    api.store.note_requeued(&[(letter, id)]).await?;
    // So that it can be read by the id that is answered.
    find_all(api, &[id]).await?;
    Ok(id)
}

/// Requeues the oldest ones that were not; answers how many.
pub(super) async fn many(
    api: &Api,
    limit: usize,
    channel: Option<Channel>,
    asked: &Asked,
    request: &Request,
) -> Result<usize, Fault> {
    let filter = LetterFilter {
        channel,
        open_only: true,
        ..LetterFilter::default()
    };
    let (mut looked_at, mut requeued, mut past) = (0, 0, None);
    while looked_at < limit {
        let at_once = READ_AT_ONCE.min(limit - looked_at);
        let page = api
            .store
            .list_dead_letters(&filter, Order::Oldest, past, at_once)
            .await?;
        for head in &page.items {
            looked_at += 1;
            let Some(row) = api.store.dead_letter(head.letter.id).await? else {
                continue;
            };
            match one(api, &row, asked, request).await {
                Ok(_) => requeued += 1,
                // What cannot be requeued is left where it is.
                Err(Fault::Conflict(_) | Fault::Invalid(_)) => {}
                Err(fault) if requeued == 0 => return Err(fault),
                Err(_) => return Ok(requeued),
            }
        }
        past = page.next;
        if past.is_none() {
            break;
        }
    }
    Ok(requeued)
}

/// The request that a letter's record was made of, as far as it can be read.
async fn of_letter(api: &Api, letter: &DeadLetter) -> Result<NotificationRequested, Fault> {
    let missing = || {
        Faults::only(
            "dead_letter",
            "Dead-letter item is missing recipient or channel.",
        )
    };
    let identity = letter.identity.as_ref().ok_or_else(missing)?;
    let from = Some(identity.id);
    if let Some(delivery) = read::<DeliveryReady>(&api.inbox, &letter.value).await? {
        let DeliveryReady {
            identity, message, ..
        } = delivery;
        return Ok(NotificationRequested {
            id: None,
            recipient: identity.recipient,
            channel: identity.channel.to_string(),
            priority: identity.priority.to_string(),
            content: Some(message.content),
            subject: message.subject,
            html: message.html,
            template_id: identity.template_id,
            template_version: identity.template_version,
            variables: None,
            metadata: message.metadata,
            idempotency_key: None,
            correlation_id: identity.correlation_id,
            traceparent: identity.traceparent,
            batch_id: identity.batch_id,
            event_id: identity.event_id,
            rule_id: identity.rule_id,
            requeued_from: from,
            created_at: identity.created_at,
            send_at: None,
            expires_at: None,
            catalog_version: identity.catalog_version,
            accepted_by: None,
        });
    }
    let request = read::<NotificationRequested>(&api.inbox, &letter.value).await?;
    let request = request.ok_or_else(missing)?;
    Ok(NotificationRequested {
        requeued_from: from,
        ..request
    })
}

async fn read<R: herald_schemas::codec::AvroRecord>(
    inbox: &Inbox,
    bytes: &[u8],
) -> Result<Option<R>, Fault> {
    let read = inbox.decode::<R>(bytes).await;
    let read = read.map_err(|error| {
        tracing::warn!(%error, "request not served");
        Fault::unavailable("The schema registry is not available.")
    })?;
    Ok(read.ok())
}
