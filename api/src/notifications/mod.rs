//! Notifications: taken, shown, listed.

mod accept;
pub(crate) mod list;
pub(crate) mod show;

use std::time::Duration;

use herald_schemas::{ids::NotificationId, rows::NotificationRow};
use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

use self::{
    list::Asked,
    show::{Notification, NotificationDetails, full, whole},
};
use crate::{
    Api, Parts, Tag,
    body::{self, Body},
    fault::Fault,
    keys::Caller,
    trace::Trace,
};

/// How long a read waits for what was written before it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to send, to whom.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewNotification {
    /// A phone number in E.164, an address, a token or a URL, by channel.
    recipient: String,
    /// sms, email, push, slack, webhook or log.
    channel: String,
    /// high, normal (the default) or low.
    priority: Option<String>,
    /// The text; or a template.
    content: Option<String>,
    /// The subject of a mail, the title of a push message.
    subject: Option<String>,
    /// The template that makes the text.
    template_id: Option<String>,
    /// The template's variables, over its defaults.
    variables: Option<body::Object>,
    /// Passed on to the provider.
    metadata: Option<body::Object>,
    /// Passed on to the provider.
    #[oai(validator(max_length = 128))]
    idempotency_key: Option<String>,
    /// Goes before the request's.
    #[oai(validator(max_length = 128))]
    correlation_id: Option<String>,
}

/// What is said of a batch as a whole.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewBatch {
    /// Goes before the request's.
    #[oai(validator(max_length = 128))]
    correlation_id: Option<String>,
    /// Answered with the batch.
    metadata: Option<body::Object>,
}

#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewNotifications {
    /// What is said of all of them; more than one are a batch even without it.
    batch: Option<NewBatch>,
    /// 1 to 1,000.
    #[oai(validator(min_items = 1, max_items = 1000))]
    notifications: Vec<NewNotification>,
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
    ),
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Notifications")]
impl Routes {
    /// Sends 1 to 1,000 notifications.
    #[oai(path = "/notifications", method = "post")]
    async fn create(
        &self,
        _caller: Caller,
        request: &Request,
        api: Parts<'_>,
        body: Body<NewNotifications>,
    ) -> Result<Created, Fault> {
        let trace = Trace::of(request);
        let check = |catalog: &_| accept::check(&body.value, &trace, catalog, &api.settings);
        let batch = api.checked(check).await?;
        let rows = accept::write(&api, batch.requests).await?;
        let in_batch = batch.id.is_some();
        let accepted = AcceptedNotifications {
            batch_id: batch.id.map(|id| id.to_string()),
            trace_id: in_batch.then(|| trace.trace_id().to_owned()),
            span_id: in_batch.then(|| trace.span_id().to_owned()),
            metadata: in_batch.then(|| {
                let mut metadata = body::Object::new();
                metadata.insert("trace_id".to_owned(), trace.trace_id().into());
                metadata.insert("span_id".to_owned(), trace.span_id().into());
                metadata.extend(batch.metadata);
                metadata
            }),
            created: rows.len(),
            duplicates: 0,
            notifications: rows.iter().map(full).collect(),
        };
        Ok(Created::Created(
            Json(accepted),
            trace.correlation_id,
            trace.traceparent,
        ))
    }

    /// Lists notifications, newest first.
    #[oai(path = "/notifications", method = "get")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn list(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// pending, scheduled, processing, retrying, sent, failed or cancelled.
        status: Query<Option<String>>,
        /// sms, email, push, slack, webhook or log.
        channel: Query<Option<String>>,
        /// high, normal or low.
        priority: Query<Option<String>>,
        /// Of one batch.
        batch_id: Query<Option<String>>,
        /// To one recipient, exactly.
        recipient: Query<Option<String>>,
        /// Of one correlation id, exactly.
        correlation_id: Query<Option<String>>,
        /// Made of one event.
        event_id: Query<Option<String>>,
        /// Accepted at or after this time: ISO 8601, or a date.
        from: Query<Option<String>>,
        /// Accepted at or before this time; of a date, its whole day.
        to: Query<Option<String>>,
        /// From 1; page × per_page goes to 10,000. Beyond, follow `meta.next_cursor`.
        page: Query<Option<String>>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Query<Option<String>>,
        /// `meta.next_cursor` of the page before; costs the same at every depth.
        cursor: Query<Option<String>>,
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
        _caller: Caller,
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
}

/// The notification; on a miss after everything that was written before has got to the store.
async fn find(api: &Api, id: NotificationId) -> Result<Option<NotificationRow>, Fault> {
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
