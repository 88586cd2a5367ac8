//! Notifications: taken, shown, listed, cancelled.

pub(crate) mod accept;
mod create;
pub(crate) mod list;
pub(crate) mod once;
pub(crate) mod show;

use std::{sync::Arc, time::Duration};

use herald_runtime::{
    cancel::{self, Cancelled},
    worker::now,
};
use herald_schemas::{ids::NotificationId, rows::NotificationRow, words::Status};
use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::Example,
};

use self::{
    list::Asked,
    show::{Notification, NotificationDetails, full, whole},
};
use crate::{
    Api, Parts, Tag,
    body::{self, Body},
    fault::{Conflict, Fault},
    keys::{Reader, Sender},
    params::{ChannelName, Given, Id, PageNumber, PerPage, PriorityName, StatusName, Time},
    to_the_end,
    words::{ChannelWord, PriorityWord},
};

/// How long a read waits for what was written before it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What to send, to whom.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewNotification {
    /// A phone number in E.164, an address, a token or a URL, by channel.
    recipient: String,
    /// How it is sent.
    channel: ChannelWord,
    /// Its lane; normal unless said.
    #[oai(nullable)]
    priority: Option<PriorityWord>,
    /// The text; or a template.
    #[oai(nullable)]
    content: Option<String>,
    /// The subject of a mail, the title of a push message.
    #[oai(nullable)]
    subject: Option<String>,
    /// The template that makes the text.
    #[oai(nullable)]
    template_id: Option<String>,
    /// The template's variables, over its defaults.
    #[oai(nullable)]
    variables: Option<body::Dictionary>,
    /// Passed on to the provider.
    #[oai(nullable)]
    metadata: Option<body::Dictionary>,
    /// Makes it once: a notification with a key that was seen before is not made again. Also passed
    /// on to the provider.
    #[oai(nullable, validator(max_length = 128))]
    idempotency_key: Option<String>,
    /// Goes before the request's.
    #[oai(nullable, validator(max_length = 128))]
    correlation_id: Option<String>,
    /// Not sent before this time: ISO 8601, UTC unless it has an offset. One that is past: at once.
    #[oai(nullable)]
    scheduled_at: Option<String>,
}

/// What is said of a batch as a whole.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewBatch {
    /// Makes the batch once: 409 when the key was seen before.
    #[oai(nullable, validator(max_length = 128))]
    idempotency_key: Option<String>,
    /// Goes before the request's.
    #[oai(nullable, validator(max_length = 128))]
    correlation_id: Option<String>,
    /// Answered with the batch.
    #[oai(nullable)]
    metadata: Option<body::Dictionary>,
}

/// What to send.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewNotifications {
    /// What is said of all of them; more than one are a batch even without it.
    #[oai(nullable)]
    batch: Option<NewBatch>,
    /// 1 to 1,000.
    #[oai(validator(min_items = 1, max_items = 1000))]
    notifications: Vec<NewNotification>,
}

impl Example for NewNotifications {
    fn example() -> Self {
        let notification = NewNotification {
            recipient: "me".to_owned(),
            channel: ChannelWord::Log,
            priority: Some(PriorityWord::High),
            content: Some("Hello!".to_owned()),
            subject: None,
            template_id: None,
            variables: None,
            metadata: None,
            idempotency_key: None,
            correlation_id: None,
            scheduled_at: None,
        };
        Self {
            batch: None,
            notifications: vec![notification],
        }
    }
}

/// What was accepted.
#[derive(Object)]
struct AcceptedNotifications {
    /// Null for a single notification without `batch`; so are the next three.
    #[oai(nullable)]
    batch_id: Option<String>,
    /// Of `traceparent`.
    #[oai(nullable)]
    trace_id: Option<String>,
    /// Of `traceparent`.
    #[oai(nullable)]
    span_id: Option<String>,
    /// trace_id and span_id, with the client's own over them.
    #[oai(nullable)]
    metadata: Option<body::Object>,
    /// How many were accepted.
    created: usize,
    /// How many were left out, as their key was seen before.
    duplicates: usize,
    /// What was accepted, in the order of the request.
    notifications: Vec<Notification>,
}

#[derive(ApiResponse)]
enum Created {
    /// All of them are in the log.
    #[oai(status = 201)]
    Created(
        Json<AcceptedNotifications>,
        /// The request's, or a new one.
        #[oai(header = "X-Correlation-Id")]
        String,
        /// The request's, or a new one.
        #[oai(header = "traceparent")]
        String,
        /// `true` where this is the answer that the same `Idempotency-Key` was given before.
        #[oai(header = "Idempotency-Replayed")]
        Option<String>,
    ),
}

/// A notification that was cancelled.
#[derive(Object)]
struct CancelledNotification {
    /// `Notification cancelled.`
    message: String,
    /// The notification.
    notification: Notification,
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Notifications")]
impl Routes {
    /// Sends 1 to 1,000 notifications.
    #[oai(path = "/notifications", method = "post")]
    async fn create(
        &self,
        sender: Sender,
        request: &Request,
        api: Parts<'_>,
        /// The same body with the same key is carried out once, and answered alike.
        #[oai(
            name = "Idempotency-Key",
            validator(min_length = 1, max_length = 255, pattern = r"^[\x21-\x7e]+$")
        )]
        _idempotency_key: Header<Option<String>>,
        body: Body<NewNotifications>,
    ) -> Result<Created, Fault> {
        create::create(&api, &sender.0, request, &body.value).await
    }

    /// Lists notifications, newest first.
    #[oai(path = "/notifications", method = "get")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// pending, scheduled, processing, retrying, sent, failed or cancelled.
        status: Given<StatusName>,
        /// sms, email, push, slack, webhook or log.
        channel: Given<ChannelName>,
        /// high, normal or low.
        priority: Given<PriorityName>,
        /// Of one batch.
        batch_id: Given<Id>,
        /// To one recipient, exactly.
        recipient: Query<Option<String>>,
        /// Of one correlation id, exactly.
        correlation_id: Query<Option<String>>,
        /// Made of one event.
        event_id: Given<Id>,
        /// Accepted at or after this time: ISO 8601, or a date.
        from: Given<Time>,
        /// Accepted at or before this time; of a date, its whole day.
        to: Given<Time>,
        /// From 1; page × per_page goes to 10,000. Beyond, follow `meta.next_cursor`.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
        /// `meta.next_cursor` of the page before; costs the same at every depth.
        cursor: Given<Id>,
    ) -> Result<Json<list::Notifications>, Fault> {
        let asked = Asked {
            status: status.0,
            channel: channel.0,
            priority: priority.0,
            batch_id: batch_id.0,
            recipient: recipient.0,
            correlation_id: correlation_id.0,
            event_id: event_id.0,
            from: from.0,
            to: to.0,
            page: page.0,
            per_page: per_page.0,
            cursor: cursor.0,
        };
        list::list(&api, asked).await.map(Json)
    }

    /// Shows a notification and every call made for it.
    #[oai(path = "/notifications/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The notification's id.
        id: Path<String>,
    ) -> Result<Json<NotificationDetails>, Fault> {
        let missing = || Fault::not_found("Notification");
        let id: NotificationId = id.parse().map_err(|_| missing())?;
        let row = find(&api, id).await?.ok_or_else(missing)?;
        let calls = api.store.calls(id).await?;
        Ok(Json(whole(&row, &calls)))
    }

    /// Cancels a notification that is pending or scheduled: it is never sent.
    #[oai(path = "/notifications/:id/cancel", method = "post")]
    async fn cancel(
        &self,
        _sender: Sender,
        api: Parts<'_>,
        /// The notification's id.
        id: Path<String>,
    ) -> Result<Json<CancelledNotification>, Fault> {
        let missing = || Fault::not_found("Notification");
        let id: NotificationId = id.parse().map_err(|_| missing())?;
        let row = find(&api, id).await?.ok_or_else(missing)?;
        let row = cancel_one(&api, row).await?;
        Ok(Json(CancelledNotification {
            message: "Notification cancelled.".to_owned(),
            notification: full(&row),
        }))
    }
}

/// Cancels what is in one of the statuses `from`, and waits until that can be read. Answers the rows
/// as they are then, and what became of each.
pub(crate) async fn cancel_all(
    api: &Api,
    mut rows: Vec<NotificationRow>,
    from: &[Status],
) -> Result<Vec<(NotificationRow, Cancelled)>, Fault> {
    let ends = cancel::cancel(api.store.as_ref(), &rows, from, &api.settings).await?;
    let now = now();
    let mut outputs = Vec::new();
    for (row, end) in rows.iter_mut().zip(&ends) {
        if *end == Cancelled::Yes && row.status != Status::Cancelled {
            outputs.push(cancel::status(row, now));
            row.status = Status::Cancelled;
            row.cancelled_at = Some(now);
        }
    }
    if !outputs.is_empty() {
        let outbox = Arc::clone(&api.outbox);
        to_the_end(async move { outbox.send(&outputs).await }).await?;
        // A read that comes after this answer is not to say what was before.
        api.progress.wait_for_all(PATIENCE).await?;
    }
    Ok(rows.into_iter().zip(ends).collect())
}

async fn cancel_one(api: &Api, row: NotificationRow) -> Result<NotificationRow, Fault> {
    let from = [Status::Pending, Status::Scheduled];
    let refused = |status: Status| {
        Fault::from(Conflict {
            message: "Notification cannot be cancelled.".to_owned(),
            status: Some(status.to_string()),
            ..Conflict::default()
        })
    };
    if !from.contains(&row.status) {
        return Err(refused(row.status));
    }
    match cancel_all(api, vec![row], &from).await?.pop() {
        Some((row, Cancelled::Yes)) => Ok(row),
        Some((_, Cancelled::No(status))) => Err(refused(status)),
        None => Err(Fault::not_found("Notification")),
    }
}

/// The notifications with these ids that there are, in no order; misses as in [`find`].
pub(crate) async fn find_all(
    api: &Api,
    ids: &[NotificationId],
) -> Result<Vec<NotificationRow>, Fault> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = api.store.notifications(ids).await?;
    if rows.iter().all(Option::is_some) {
        return Ok(rows.into_iter().flatten().collect());
    }
    let passed = api.progress.wait_for_all(PATIENCE).await?;
    let rows = api.store.notifications(ids).await?;
    if !passed && rows.iter().any(Option::is_none) {
        return Err(Fault::unavailable(
            "The notifications may not be readable yet.",
        ));
    }
    Ok(rows.into_iter().flatten().collect())
}

/// The notification; on a miss after everything that was written before has got to the store.
pub(crate) async fn find(api: &Api, id: NotificationId) -> Result<Option<NotificationRow>, Fault> {
    let read = async || Ok::<_, Fault>(api.store.notifications(&[id]).await?.pop().flatten());
    if let Some(row) = read().await? {
        return Ok(Some(row));
    }
    let passed = api.progress.wait_materialized(id, PATIENCE).await?;
    match read().await? {
        None if !passed => Err(Fault::unavailable(
            "The notification may not be readable yet.",
        )),
        row => Ok(row),
    }
}
