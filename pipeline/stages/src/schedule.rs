//! The stage schedule: a request that waits for its time → the same one in its lane.

use herald_schemas::{
    ids::{NotificationId, UnixMs},
    records::{NotificationRequested, StatusChanged},
    words::Status,
};

use crate::{Output, Source};

/// A request as it is kept until its time: whatever its record said outside of it is in it, and the
/// id that it will have.
pub fn kept(
    request: NotificationRequested,
    source: &Source<'_>,
) -> (NotificationId, NotificationRequested) {
    let id = request.notification_id(
        source.topic,
        source.partition,
        source.offset,
        source.timestamp,
    );
    let kept = NotificationRequested {
        id: Some(id.to_string()),
        correlation_id: request.correlation_id.or_else(|| source.correlation_id()),
        traceparent: request.traceparent.or_else(|| source.traceparent()),
        ..request
    };
    (id, kept)
}

/// When a request is to go on.
pub fn send_at(request: &NotificationRequested) -> UnixMs {
    request.send_at.unwrap_or(request.created_at)
}

/// What follows when the time of a request has come.
pub fn release(id: NotificationId, request: NotificationRequested, now: UnixMs) -> Vec<Output> {
    let mut outputs = Vec::with_capacity(2);
    outputs.extend(pending(id, &request, now).map(Output::Status));
    outputs.push(Output::Request(request));
    outputs
}

/// It is in the queue from now on. Not for one that nobody has reported yet, which render does, nor
/// for one that render will refuse.
fn pending(
    id: NotificationId,
    request: &NotificationRequested,
    at: UnixMs,
) -> Option<StatusChanged> {
    request.accepted_by.as_ref()?;
    let identity = request.identity(
        id,
        request.channel.parse().ok()?,
        request.priority.parse().ok()?,
    );
    Some(StatusChanged {
        identity,
        status: Status::Pending,
        attempts: 0,
        at,
        message: None,
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    })
}
