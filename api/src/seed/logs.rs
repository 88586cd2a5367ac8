//! Notifications as the first seed's log of them.

use std::{collections::HashMap, sync::Arc};

use herald_schemas::{
    ids::{EventId, NotificationId},
    rows::{EventRow, Filter, NotificationRow, Page},
    words::Status,
};
use herald_stages::snapshot::Snapshot;
use herald_store::StoreError;
use poem_openapi::{Object, OpenApi, param::Path, payload::Json, types::Example};

use super::SeedOne;
use crate::{
    Api, CATALOG_AGE, Parts, Tag,
    body::{Object as JsonObject, documented},
    example,
    fault::{Fault, Faults},
    keys::Reader,
    notifications::{find, list::counted},
    pages::{page, per_page, read, turn_to},
    params::{Given, Id, LogStatus, PageNumber, PerPage},
    time,
};

/// How much of payloads a list shows in all.
const PAYLOAD_BYTES: usize = 4 << 20;

/// A notification, as the first seed logs it.
#[derive(Object)]
#[oai(example)]
struct SeedLog {
    /// The notification.
    id: String,
    /// The source of its event; null for one that was sent without.
    #[oai(nullable)]
    event_source_id: Option<String>,
    /// The name of that source.
    #[oai(nullable)]
    event: Option<String>,
    /// Its event.
    #[oai(nullable)]
    event_id: Option<String>,
    /// The rule that made it.
    #[oai(nullable)]
    notification_rule_id: Option<String>,
    /// email, sms or slack; or push, webhook or log.
    channel: String,
    /// The event's payload; null without an event, and beyond 4 MiB of them in a list.
    #[oai(nullable)]
    payload: Option<JsonObject>,
    /// Whom it is for.
    recipient: String,
    /// pending until it is sent or failed; or cancelled.
    status: String,
    /// Why the last attempt failed.
    #[oai(nullable)]
    error_message: Option<String>,
    /// How many attempts were made.
    attempts: i32,
    /// When the provider took it: ISO 8601, as are all times.
    #[oai(nullable)]
    sent_at: Option<String>,
    /// When it was accepted.
    created_at: String,
    /// When its status last changed.
    updated_at: String,
}

impl Example for SeedLog {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            event_source_id: Some(example::OTHER_ID.to_owned()),
            event: Some(example::EVENT.to_owned()),
            event_id: Some(example::ID.to_owned()),
            notification_rule_id: Some(example::OTHER_ID.to_owned()),
            channel: "email".to_owned(),
            payload: Some(example::payload()),
            recipient: "john@example.com".to_owned(),
            status: "sent".to_owned(),
            error_message: None,
            attempts: 1,
            sent_at: Some(example::TIME.to_owned()),
            created_at: example::TIME.to_owned(),
            updated_at: example::TIME.to_owned(),
        }
    }
}

/// Notifications, newest first.
#[derive(Object)]
struct SeedLogs {
    /// The notifications.
    data: Vec<SeedLog>,
    /// Which part of the list this is.
    meta: SeedLogsMeta,
}

#[derive(Object)]
#[oai(example)]
struct SeedLogsMeta {
    /// From 1.
    current_page: usize,
    /// How many a page shows at most.
    per_page: usize,
    /// How many there are.
    total: i64,
    /// Where the next page starts; null on the last. Costs the same at every depth.
    #[oai(nullable)]
    next_cursor: Option<String>,
}

impl Example for SeedLogsMeta {
    fn example() -> Self {
        Self {
            current_page: 1,
            per_page: 25,
            total: 31,
            next_cursor: Some(example::ID.to_owned()),
        }
    }
}

pub(crate) struct Routes;

#[OpenApi(tag = "Tag::FirstSeed")]
impl Routes {
    /// Lists notifications, newest first, as the first seed does.
    #[oai(path = "/notification-logs", method = "get")]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// pending, sent, failed or cancelled; one of Herald's own, such as retrying, is taken too.
        status: Given<LogStatus>,
        /// From 1; page × per_page goes to 10,000. Beyond, follow `meta.next_cursor`.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
        /// `meta.next_cursor` of the page before.
        cursor: Given<Id>,
    ) -> Result<Json<SeedLogs>, Fault> {
        list(&api, status.0, page.0, per_page.0, cursor.0)
            .await
            .map(Json)
    }

    /// Shows a notification, as the first seed does.
    #[oai(path = "/notification-logs/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The notification's id.
        id: Path<String>,
    ) -> Result<Json<SeedOne<SeedLog>>, Fault> {
        let missing = || Fault::not_found("Notification log");
        let id: NotificationId = id.parse().map_err(|_| missing())?;
        let row = find(&api, id).await?.ok_or_else(missing)?;
        let mut shown = shown(&api, vec![row], usize::MAX).await?;
        let data = shown.pop().ok_or_else(missing)?;
        Ok(Json(SeedOne { data }))
    }
}

async fn list(
    api: &Api,
    status: Option<String>,
    page_asked: Option<String>,
    per_page_asked: Option<String>,
    cursor: Option<String>,
) -> Result<SeedLogs, Fault> {
    let mut faults = Faults::default();
    let statuses = read("status", status.as_deref(), &mut faults, meant_by).unwrap_or_default();
    let per_page = per_page(per_page_asked.as_deref(), &mut faults);
    let current_page = page(page_asked.as_deref(), per_page, &mut faults);
    let before: Option<NotificationId> = read("cursor", cursor.as_deref(), &mut faults, |text| {
        text.parse().ok()
    });
    faults.none()?;
    let some = |before, most| newest(api, &statuses, before, most);
    let shown_page = turn_to(before, current_page, per_page, some).await?;
    let is_such = |status: Status| statuses.is_empty() || statuses.contains(&status);
    let meta = SeedLogsMeta {
        current_page,
        per_page,
        total: counted(api, |key| is_such(key.status)).await?,
        next_cursor: shown_page.next.map(|id| id.to_string()),
    };
    let data = shown(api, shown_page.items, PAYLOAD_BYTES).await?;
    Ok(SeedLogs { data, meta })
}

/// The statuses that a word of the first seed's means.
fn meant_by(word: &str) -> Option<Vec<Status>> {
    match word {
        "pending" => Some(
            Status::ALL
                .iter()
                .copied()
                .filter(|status| said(*status) == "pending")
                .collect(),
        ),
        word => word.parse().ok().map(|status| vec![status]),
    }
}

/// The word that the first seed has for a status.
fn said(status: Status) -> &'static str {
    match status {
        Status::Pending | Status::Scheduled | Status::Processing | Status::Retrying => "pending",
        Status::Sent => "sent",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    }
}

/// The newest of all that are in one of the statuses; of all without any.
async fn newest(
    api: &Api,
    statuses: &[Status],
    before: Option<NotificationId>,
    limit: usize,
) -> Result<Page<NotificationRow>, StoreError> {
    let mut filters: Vec<Filter> = statuses
        .iter()
        .map(|status| Filter {
            status: Some(*status),
            ..Filter::default()
        })
        .collect();
    if filters.is_empty() {
        filters.push(Filter::default());
    }
    let mut pages = Vec::with_capacity(filters.len());
    for filter in &filters {
        pages.push(api.store.list_notifications(filter, before, limit).await?);
    }
    Ok(merged(pages, limit))
}

/// One page of several: as far down as all of them go.
fn merged(pages: Vec<Page<NotificationRow>>, limit: usize) -> Page<NotificationRow> {
    let horizon = pages.iter().filter_map(|page| page.next).max();
    let items = pages.into_iter().flat_map(|page| page.items);
    let mut items: Vec<NotificationRow> = items
        .filter(|row| horizon.is_none_or(|horizon| row.id() >= horizon))
        .collect();
    items.sort_unstable_by_key(|row| std::cmp::Reverse(row.id()));
    // What changes its status between two of the questions is in both answers.
    items.dedup_by_key(|row| row.id());
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more {
        items.last().map(NotificationRow::id)
    } else {
        horizon
    };
    Page { items, next }
}

/// The rows with their events, of whose payloads so many bytes are shown.
async fn shown(
    api: &Api,
    rows: Vec<NotificationRow>,
    payload_bytes: usize,
) -> Result<Vec<SeedLog>, Fault> {
    let catalog = api.catalogs.fresh(CATALOG_AGE).await?;
    let mut events: HashMap<EventId, Option<Arc<EventRow>>> = HashMap::new();
    let (mut logs, mut left) = (Vec::with_capacity(rows.len()), payload_bytes);
    for row in rows {
        let event = match row.identity.event_id {
            None => None,
            Some(id) => match events.get(&id) {
                Some(known) => known.clone(),
                None => {
                    let read = api.store.event(id).await?.map(Arc::new);
                    events.entry(id).or_insert(read).clone()
                }
            },
        };
        let mut log = log(&row, event.as_deref(), &catalog);
        if let Some(event) = event {
            match left.checked_sub(event.payload.len()) {
                Some(rest) => left = rest,
                None => log.payload = None,
            }
        }
        logs.push(log);
    }
    Ok(logs)
}

fn log(row: &NotificationRow, event: Option<&EventRow>, catalog: &Snapshot) -> SeedLog {
    let identity = &row.identity;
    let source = event.and_then(|event| catalog.source(&event.event));
    let payload = event.and_then(|event| serde_json::from_str(&event.payload).ok());
    SeedLog {
        id: identity.id.to_string(),
        event_source_id: source.map(|source| source.id.to_string()),
        event: event.map(|event| event.event.clone()),
        event_id: identity.event_id.map(|id| id.to_string()),
        notification_rule_id: identity.rule_id.map(|id| id.to_string()),
        channel: identity.channel.to_string(),
        payload: payload.as_ref().map(documented),
        recipient: identity.recipient.clone(),
        status: said(row.status).to_owned(),
        error_message: row.last_error.as_ref().map(|error| error.message.clone()),
        attempts: row.attempts,
        sent_at: row.sent_at.map(time::format),
        created_at: time::format(identity.created_at),
        updated_at: time::format(row.updated_at),
    }
}
