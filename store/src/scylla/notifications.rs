//! Notifications, their index rows and their calls.

use std::collections::{BTreeMap, HashMap};

use herald_schemas::{
    ids::{NotificationId, UnixMs},
    records::{Attempt, Failure, Message},
    rows::{Index, NotificationRow, RowWrite},
    words::Status,
};
use scylla::value::MaybeUnset;
use serde::{Deserialize, Serialize};

use super::{Connected, Listed, session::Place, ttl};
use crate::{StoreError, json, now, to_json};

/// What changes of a notification, in one cell: it is overwritten whole, and leaves no tombstones.
#[derive(Serialize, Deserialize)]
struct State {
    status: Status,
    attempts: i32,
    updated_at: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_at: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivery_status: Option<String>,
}

impl State {
    fn of(row: &NotificationRow) -> Self {
        Self {
            status: row.status,
            attempts: row.attempts,
            updated_at: row.updated_at,
            sent_at: row.sent_at,
            cancelled_at: row.cancelled_at,
            provider_message_id: row.provider_message_id.clone(),
            last_error: row.last_error.clone(),
            delivery_status: row.delivery_status.clone(),
        }
    }
}

/// The columns of `get_notifications`.
type Cells = (Option<String>, Option<String>, Option<String>);

/// None: what is left of a row whose first cells have expired.
fn row((identity, state, message): Cells) -> Result<Option<NotificationRow>, StoreError> {
    let (Some(identity), Some(state)) = (identity, state) else {
        return Ok(None);
    };
    let state: State = json("state", &state)?;
    let message: Option<Message> = message.map(|text| json("message", &text)).transpose()?;
    Ok(Some(NotificationRow {
        identity: json("identity", &identity)?,
        message,
        status: state.status,
        attempts: state.attempts,
        updated_at: state.updated_at,
        sent_at: state.sent_at,
        cancelled_at: state.cancelled_at,
        provider_message_id: state.provider_message_id,
        last_error: state.last_error,
        delivery_status: state.delivery_status,
    }))
}

pub(super) async fn read(
    store: &Connected,
    ids: &[NotificationId],
) -> Result<Vec<Option<NotificationRow>>, StoreError> {
    let placed = ids.iter().map(|id| (store.place(*id), *id.as_bytes()));
    let found: Vec<Cells> = store
        .session
        .rows_of_ids(&store.statements.get_notifications, placed)
        .await?;
    let mut rows = HashMap::with_capacity(ids.len());
    for cells in found {
        rows.extend(row(cells)?.map(|row| (row.id(), row)));
    }
    Ok(ids.iter().map(|id| rows.get(id).cloned()).collect())
}

impl Connected {
    /// The partition of a notification.
    fn place(&self, id: NotificationId) -> Place {
        let bucket = self.layout.bucket(id.unix_ms());
        (bucket, self.layout.status_shard(id) as i32)
    }
}

pub(super) async fn write(
    store: &Connected,
    writes: &[RowWrite],
    stamp: i64,
) -> Result<(), StoreError> {
    let now = now();
    let new = writes.iter().filter(|write| write.is_new);
    // What leads to a row is there before the row is.
    let buckets = new.clone().map(|RowWrite { row, .. }| {
        let until = store.layout.kept_until(&row.identity);
        (store.layout.bucket(row.id().unix_ms()), until)
    });
    store
        .note_buckets(Listed::Notifications, buckets, now)
        .await?;
    let refs = new.flat_map(|RowWrite { row, .. }| {
        let ttl = ttl(store.layout.kept_until(&row.identity), now);
        let entries = Index::of(&row.identity);
        entries.into_iter().map(move |entry| {
            let (kind, value) = entry.parts();
            let bucket = store.layout.index_bucket(&entry, row.id());
            let shard = store.layout.index_shard(value) as i32;
            let id = *row.id().as_bytes();
            let value = value.to_owned();
            let bytes = value.len();
            let values = (kind, bucket, shard, value, id.to_vec(), ttl);
            ((kind, bucket, shard), bytes, values)
        })
    });
    store.session.write(&store.statements.put_ref, refs).await?;
    let rows: Vec<_> = writes
        .iter()
        .map(|write| values(store, write, stamp, now))
        .collect::<Result<_, StoreError>>()?;
    store
        .session
        .write(&store.statements.put_notification, rows)
        .await
}

/// A row's partition, its size, and the values of `put_notification`.
#[allow(
    clippy::type_complexity,
    reason = "the columns of a statement, in its order, used in one place"
)]
fn values(
    store: &Connected,
    write: &RowWrite,
    stamp: i64,
    now: UnixMs,
) -> Result<
    (
        Place,
        usize,
        (
            i32,
            i64,
            &'static str,
            String,
            MaybeUnset<&'static str>,
            MaybeUnset<&'static str>,
            MaybeUnset<String>,
            MaybeUnset<String>,
            MaybeUnset<BTreeMap<i32, String>>,
            i64,
            i32,
            Vec<u8>,
        ),
    ),
    StoreError,
> {
    let RowWrite {
        row,
        is_new,
        writes_message,
        calls,
    } = write;
    let identity = &row.identity;
    let (bucket, shard) = store.place(row.id());
    let calls = calls
        .iter()
        .map(|call| Ok((call_key(call), to_json(call)?)))
        .collect::<Result<BTreeMap<_, _>, StoreError>>()?;
    let once = |value| match is_new {
        true => MaybeUnset::Set(value),
        false => MaybeUnset::Unset,
    };
    let identity_text = match is_new {
        true => MaybeUnset::Set(to_json(identity)?),
        false => MaybeUnset::Unset,
    };
    let message = match &row.message {
        Some(message) if *is_new || *writes_message => MaybeUnset::Set(to_json(message)?),
        _ => MaybeUnset::Unset,
    };
    let state = to_json(&State::of(row))?;
    let length = |text: &MaybeUnset<String>| match text {
        MaybeUnset::Set(text) => text.len(),
        MaybeUnset::Unset => 0,
    };
    let bytes = state.len()
        + length(&identity_text)
        + length(&message)
        + calls.values().map(String::len).sum::<usize>();
    let values = (
        ttl(store.layout.kept_until(identity), now),
        stamp,
        row.status.as_str(),
        state,
        once(identity.channel.as_str()),
        once(identity.priority.as_str()),
        identity_text,
        message,
        match calls.is_empty() {
            true => MaybeUnset::Unset,
            false => MaybeUnset::Set(calls),
        },
        bucket,
        shard,
        row.id().as_bytes().to_vec(),
    );
    Ok(((bucket, shard), bytes, values))
}

/// Calls sort by attempt, then by their place in it.
fn call_key(call: &Attempt) -> i32 {
    call.number
        .saturating_mul(1_000)
        .saturating_add(call.step.clamp(0, 999))
}

pub(super) async fn calls(
    store: &Connected,
    id: NotificationId,
) -> Result<Vec<Attempt>, StoreError> {
    let (bucket, shard) = store.place(id);
    let values = (bucket, shard, id.as_bytes().as_slice());
    let row: Option<(Option<BTreeMap<i32, String>>,)> = store
        .session
        .row(&store.statements.get_calls, values)
        .await?;
    let calls = row.and_then(|(calls,)| calls).unwrap_or_default();
    calls.values().map(|text| json("calls", text)).collect()
}
