//! A request to send, from its checks to its answer.

use herald_runtime::worker::now;
use herald_schemas::{
    ids::{BatchId, NotificationId},
    records::BatchAccepted,
};
use poem::Request;
use poem_openapi::{
    payload::Json,
    types::{ParseFromJSON, ToJSON},
};
use serde_json::Value;

use super::{
    AcceptedNotifications, Created,
    accept::{self, Batch, Checked},
    once::{self, Items, Ours, Turn},
    show::full,
};
use crate::{
    Api,
    batches::with_trace,
    body,
    fault::{Conflict, Fault},
    keys::Known,
    trace::Trace,
};

pub(super) async fn create(
    api: &Api,
    caller: &Known,
    request: &Request,
    body: &Value,
) -> Result<Created, Fault> {
    let trace = Trace::of(request);
    let key = once::header(request)?;
    let check = |catalog: &_| accept::check(body, &trace, catalog, &api.settings);
    let checked = api.checked(check).await?;
    let whole = match key {
        None => None,
        Some(key) => match once::request(api, caller, key, &body.to_string()).await? {
            Turn::Ours(ours) => Some(ours),
            Turn::Made(held) => return replayed(held.answer.as_deref(), trace),
        },
    };
    let made = make(api, caller, checked, whole.as_ref(), &trace).await;
    match (&made, &whole) {
        (Ok(accepted), Some(whole)) => {
            let answer = accepted.to_json().unwrap_or_default().to_string();
            once::made(api, whole, answer.as_bytes()).await;
        }
        (Err(_), Some(_)) => once::give_back(api, whole.as_slice()).await,
        (_, None) => {}
    }
    Ok(Created::Created(
        Json(made?),
        trace.correlation_id,
        trace.traceparent,
        None,
    ))
}

/// The answer that was given before.
fn replayed(answer: Option<&[u8]>, trace: Trace) -> Result<Created, Fault> {
    let answer = answer.and_then(|answer| serde_json::from_slice(answer).ok());
    let accepted = AcceptedNotifications::parse_from_json(answer)
        .map_err(|_| Fault::unavailable("The answer that was given before cannot be read."))?;
    Ok(Created::Created(
        Json(accepted),
        trace.correlation_id,
        trace.traceparent,
        Some("true".to_owned()),
    ))
}

/// The ids of what a request makes: from the key's, so that they are the same when it is made again;
/// else new ones.
struct Ids {
    base: BatchId,
    derived: bool,
}

impl Ids {
    fn of(&self, index: usize) -> NotificationId {
        match u16::try_from(index) {
            Ok(place) if self.derived => NotificationId::of_batch(self.base, place),
            _ => NotificationId::random(),
        }
    }
}

async fn make(
    api: &Api,
    caller: &Known,
    checked: Checked,
    whole: Option<&Ours>,
    trace: &Trace,
) -> Result<AcceptedNotifications, Fault> {
    let Checked { batch, requests } = checked;
    let asked = requests.len();
    let mut ids = Ids {
        base: whole.map_or_else(BatchId::random, |ours| {
            ours.value().parse().unwrap_or_else(|_| BatchId::random())
        }),
        derived: whole.is_some(),
    };
    let key = batch
        .as_ref()
        .and_then(|batch| batch.idempotency_key.as_deref());
    let mut ours = Vec::new();
    if let Some(key) = key {
        let (id, of_batch) = once::batch(api, caller, key, ids.base, asked).await?;
        ids = Ids {
            base: id,
            derived: true,
        };
        ours.push(of_batch);
    }
    let items = once::items(api, caller, requests, |index| ids.of(index)).await;
    let written = match items {
        Ok(items) => write(api, &ids, batch.as_ref(), items, asked, trace, &mut ours).await,
        Err(fault) => Err(fault),
    };
    match written {
        Ok(accepted) => {
            if let Some(of_batch) = ours.first().filter(|_| key.is_some()) {
                once::batch_made(api, of_batch).await;
            }
            Ok(accepted)
        }
        Err(fault) => {
            once::give_back(api, &ours).await;
            Err(fault)
        }
    }
}

async fn write(
    api: &Api,
    ids: &Ids,
    batch: Option<&Batch>,
    items: Items,
    asked: usize,
    trace: &Trace,
    ours: &mut Vec<Ours>,
) -> Result<AcceptedNotifications, Fault> {
    let Items {
        mut requests,
        ours: of_items,
        duplicates,
    } = items;
    ours.extend(of_items);
    if let (1, Some((key, id))) = (asked, duplicates.first()) {
        return Err(Fault::from(Conflict {
            message: "Notification idempotency key already exists.".to_owned(),
            idempotency_key: Some(key.clone()),
            notification_id: Some(id.clone()),
            ..Conflict::default()
        }));
    }
    for request in &mut requests {
        request.batch_id = batch.map(|_| ids.base);
    }
    let of_batch = batch.map(|batch| BatchAccepted {
        id: ids.base,
        at: now(),
        total: i32::try_from(requests.len()).unwrap_or(i32::MAX),
        metadata: (!batch.metadata.is_empty())
            .then(|| Value::Object(batch.metadata.clone()).to_string()),
        idempotency_key: batch.idempotency_key.clone(),
        correlation_id: Some(
            batch
                .correlation_id
                .clone()
                .unwrap_or_else(|| trace.correlation_id.clone()),
        ),
        traceparent: Some(trace.traceparent.clone()),
    });
    let rows = accept::write(api, of_batch, requests).await?;
    let of_trace = batch.and_then(|_| Trace::read(&trace.traceparent));
    let metadata = batch.map(|batch| body::documented(&batch.metadata));
    let metadata = metadata.map(|own| with_trace(of_trace.as_ref(), own));
    let (trace_id, span_id) = of_trace.unzip();
    Ok(AcceptedNotifications {
        batch_id: batch.map(|_| ids.base.to_string()),
        trace_id,
        span_id,
        metadata,
        created: rows.len(),
        duplicates: duplicates.len(),
        notifications: rows.iter().map(full).collect(),
    })
}
