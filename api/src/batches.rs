//! Batches: the notifications that one request made together.

use herald_runtime::cancel::Cancelled;
use herald_schemas::{
    ids::BatchId,
    records::BatchAccepted,
    rows::{Filter, Index, NotificationRow},
    words::Status,
};
use poem_openapi::{Object, OpenApi, param::Path, payload::Json};

use crate::{
    Api, Parts, Tag, body,
    fault::Fault,
    keys::{Reader, Sender},
    notifications::{
        PATIENCE, cancel_all,
        show::{Notification, full},
    },
    time,
    trace::Trace,
};

/// How many rows are read at once.
const AT_ONCE: usize = 1_000;
/// More than a request can make: what a producer files under a batch of its own has no bound.
const MOST: usize = 10_000;

/// A batch and its notifications.
#[derive(Object)]
struct ShownBatch {
    /// The batch.
    batch_id: String,
    /// pending: nothing has happened yet; processing; completed: all are done, and some were sent;
    /// failed: all failed; cancelled: all were cancelled.
    status: String,
    /// How many notifications it made.
    total_count: usize,
    /// Of `traceparent`.
    #[oai(nullable)]
    trace_id: Option<String>,
    /// Of `traceparent`.
    #[oai(nullable)]
    span_id: Option<String>,
    /// trace_id and span_id, with the client's own over them.
    metadata: body::Object,
    /// The client's key.
    #[oai(nullable)]
    idempotency_key: Option<String>,
    /// Ties together what belongs to one request.
    #[oai(nullable)]
    correlation_id: Option<String>,
    /// When it was accepted; ISO 8601.
    created_at: String,
    /// Its notifications, in the order in which they were made.
    notifications: Vec<Notification>,
}

/// A batch that was cancelled.
#[derive(Object)]
struct CancelledBatch {
    /// `Batch cancelled.`
    message: String,
    /// The batch.
    batch_id: String,
    /// How many notifications are cancelled by this request.
    cancelled_count: usize,
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::Notifications")]
impl Routes {
    /// Shows a batch and all of its notifications.
    #[oai(path = "/batches/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The batch's id.
        id: Path<String>,
    ) -> Result<Json<ShownBatch>, Fault> {
        let (batch, rows) = find(&api, &id).await?;
        Ok(Json(shown(&batch, &rows)))
    }

    /// Cancels what is pending, scheduled or waiting to be tried again: it is never sent.
    #[oai(path = "/batches/:id/cancel", method = "post")]
    async fn cancel(
        &self,
        _sender: Sender,
        api: Parts<'_>,
        /// The batch's id.
        id: Path<String>,
    ) -> Result<Json<CancelledBatch>, Fault> {
        let (batch, mut rows) = find(&api, &id).await?;
        let from = [Status::Pending, Status::Scheduled, Status::Retrying];
        rows.retain(|row| from.contains(&row.status));
        let ends = cancel_all(&api, rows, &from).await?;
        let cancelled = ends.iter().filter(|(_, end)| *end == Cancelled::Yes);
        Ok(Json(CancelledBatch {
            message: "Batch cancelled.".to_owned(),
            batch_id: batch.id.to_string(),
            cancelled_count: cancelled.count(),
        }))
    }
}

/// A batch and its rows, oldest first, after what was written before has got to the store.
async fn find(api: &Api, id: &str) -> Result<(BatchAccepted, Vec<NotificationRow>), Fault> {
    let missing = || Fault::not_found("Batch");
    let id: BatchId = id.parse().map_err(|_| missing())?;
    let mut passed = true;
    let mut batch = api.store.batch(id).await?;
    if batch.is_none() {
        let (topic, key) = (api.topics.batches(), id.to_string());
        passed = api.progress.wait_for_key(&topic, &key, PATIENCE).await?;
        batch = api.store.batch(id).await?;
    }
    let late = || Fault::unavailable("The batch may not be readable yet.");
    let batch = batch.ok_or_else(|| if passed { missing() } else { late() })?;
    let mut rows = rows(api, id).await?;
    if rows.len() < batch.total.max(0) as usize {
        if !api.progress.wait_for_all(PATIENCE).await? {
            return Err(late());
        }
        rows = self::rows(api, id).await?;
    }
    Ok((batch, rows))
}

async fn rows(api: &Api, id: BatchId) -> Result<Vec<NotificationRow>, Fault> {
    let filter = Filter {
        index: Some(Index::Batch(id.to_string())),
        ..Filter::default()
    };
    let (mut rows, mut before) = (Vec::new(), None);
    loop {
        let page = api
            .store
            .list_notifications(&filter, before, AT_ONCE)
            .await?;
        rows.extend(page.items);
        before = page.next;
        if before.is_none() || rows.len() >= MOST {
            rows.reverse();
            return Ok(rows);
        }
    }
}

fn shown(batch: &BatchAccepted, rows: &[NotificationRow]) -> ShownBatch {
    let trace = batch.traceparent.as_deref().and_then(Trace::read);
    let own = batch.metadata.as_deref();
    let own: Option<body::Object> = own.and_then(|own| serde_json::from_str(own).ok());
    let metadata = with_trace(trace.as_ref(), own.unwrap_or_default());
    let statuses: Vec<Status> = rows.iter().map(|row| row.status).collect();
    let (trace_id, span_id) = trace.unzip();
    ShownBatch {
        batch_id: batch.id.to_string(),
        status: status(&statuses).to_owned(),
        total_count: rows.len().max(batch.total.max(0) as usize),
        trace_id,
        span_id,
        metadata,
        idempotency_key: batch.idempotency_key.clone(),
        correlation_id: batch.correlation_id.clone(),
        created_at: time::format(batch.at),
        notifications: rows.iter().map(full).collect(),
    }
}

/// The trace of a batch, with the client's own metadata over it.
pub(crate) fn with_trace(trace: Option<&(String, String)>, own: body::Object) -> body::Object {
    let mut metadata = body::Object::new();
    if let Some((trace, span)) = trace {
        metadata.insert("trace_id".to_owned(), trace.clone().into());
        metadata.insert("span_id".to_owned(), span.clone().into());
    }
    metadata.extend(own);
    metadata
}

/// A batch's status follows its notifications'.
fn status(of: &[Status]) -> &'static str {
    let all = |status: Status| !of.is_empty() && of.iter().all(|one| *one == status);
    if all(Status::Cancelled) {
        "cancelled"
    } else if all(Status::Failed) {
        "failed"
    } else if of
        .iter()
        .all(|one| matches!(one, Status::Pending | Status::Scheduled))
    {
        "pending"
    } else if of.iter().all(|one| one.is_terminal()) {
        "completed"
    } else {
        "processing"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batchs_status_follows_its_notifications() {
        use Status::{Cancelled, Failed, Pending, Processing, Retrying, Scheduled, Sent};
        for (of, expected) in [
            (&[][..], "pending"),
            (&[Pending, Scheduled], "pending"),
            (&[Pending, Sent], "processing"),
            (&[Processing, Pending], "processing"),
            (&[Retrying, Failed], "processing"),
            (&[Sent, Sent], "completed"),
            (&[Sent, Failed, Cancelled], "completed"),
            (&[Failed, Cancelled], "completed"),
            (&[Failed, Failed], "failed"),
            (&[Cancelled, Cancelled], "cancelled"),
        ] {
            assert_eq!(status(of), expected, "{of:?}");
        }
    }
}
