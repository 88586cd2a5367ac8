//! A notification as clients see it.

use herald_schemas::{records::Attempt, rows::NotificationRow};
use poem_openapi::Object;

use crate::{body, time};

/// A notification.
#[derive(Object)]
pub(crate) struct Notification {
    /// The notification.
    id: String,
    /// The batch it belongs to.
    #[oai(nullable)]
    batch_id: Option<String>,
    /// A phone number, an address, a token or a URL, by channel.
    recipient: String,
    /// sms, email, push, slack, webhook or log.
    channel: String,
    /// high, normal or low.
    priority: String,
    /// Null until it is rendered.
    #[oai(nullable)]
    content: Option<String>,
    /// pending, scheduled, processing, retrying, sent, failed or cancelled.
    status: String,
    /// How many attempts were made.
    attempts: i32,
    /// Not sent before; ISO 8601, as are all times.
    #[oai(nullable)]
    scheduled_at: Option<String>,
    /// When the provider took it.
    #[oai(nullable)]
    sent_at: Option<String>,
    /// When it was withdrawn.
    #[oai(nullable)]
    cancelled_at: Option<String>,
    /// The provider's own id of it.
    #[oai(nullable)]
    provider_message_id: Option<String>,
    /// Why the last attempt failed.
    #[oai(nullable)]
    last_error: Option<String>,
    /// When it was accepted.
    created_at: String,
}

/// A notification with all that is known of it.
#[derive(Object)]
pub(crate) struct NotificationDetails {
    #[oai(flatten)]
    notification: Notification,
    /// The subject of a mail, the title of a push message.
    #[oai(nullable)]
    subject: Option<String>,
    /// Passed on to the provider.
    #[oai(nullable)]
    metadata: Option<body::Object>,
    /// The client's key.
    #[oai(nullable)]
    idempotency_key: Option<String>,
    /// Ties together what belongs to one request.
    #[oai(nullable)]
    correlation_id: Option<String>,
    /// Of `traceparent`.
    #[oai(nullable)]
    trace_id: Option<String>,
    /// Of `traceparent`.
    #[oai(nullable)]
    span_id: Option<String>,
    /// The event it was made of.
    #[oai(nullable)]
    event_id: Option<String>,
    /// The rule that made it.
    #[oai(nullable)]
    rule_id: Option<String>,
    /// The notification that failed, which this one was made of again.
    #[oai(nullable)]
    requeued_from: Option<String>,
    /// The template that made its content.
    #[oai(nullable)]
    template_id: Option<String>,
    /// The template's version.
    #[oai(nullable)]
    template_version: Option<i32>,
    /// `topic/partition/offset` of the record it was made of; null for what the API accepted.
    #[oai(nullable)]
    source: Option<String>,
    /// `transient`, `permanent`, `expired` or `poison`.
    #[oai(nullable)]
    error_type: Option<String>,
    /// Such as `http_503` or `connection_error`.
    #[oai(nullable)]
    error_code: Option<String>,
    /// When the status last changed.
    updated_at: String,
    /// Every call to a provider, in order.
    attempt_log: Vec<ProviderCall>,
}

/// A call to a provider.
#[derive(Object)]
struct ProviderCall {
    /// From 1.
    attempt: i32,
    /// The provider's name in the configuration.
    provider: String,
    /// ISO 8601.
    started_at: String,
    /// How long it took.
    latency_ms: i32,
    /// Why it failed; null when the provider took it.
    #[oai(nullable)]
    error_type: Option<String>,
    /// Such as `http_503`.
    #[oai(nullable)]
    error_code: Option<String>,
    /// For people.
    #[oai(nullable)]
    error_message: Option<String>,
    /// The beginning of the answer.
    #[oai(nullable)]
    response: Option<String>,
}

/// The form that lists and creations show.
pub(crate) fn full(row: &NotificationRow) -> Notification {
    let identity = &row.identity;
    Notification {
        id: identity.id.to_string(),
        batch_id: identity.batch_id.map(|id| id.to_string()),
        recipient: identity.recipient.clone(),
        channel: identity.channel.to_string(),
        priority: identity.priority.to_string(),
        content: row.message.as_ref().map(|message| message.content.clone()),
        status: row.status.to_string(),
        attempts: row.attempts,
        scheduled_at: identity.send_at.map(time::format),
        sent_at: row.sent_at.map(time::format),
        cancelled_at: row.cancelled_at.map(time::format),
        provider_message_id: row.provider_message_id.clone(),
        last_error: row.last_error.as_ref().map(|error| error.message.clone()),
        created_at: time::format(identity.created_at),
    }
}

/// The form that a single one is shown in.
pub(crate) fn whole(row: &NotificationRow, calls: &[Attempt]) -> NotificationDetails {
    let identity = &row.identity;
    let message = row.message.as_ref();
    let trace = |part: usize| {
        let text = identity.traceparent.as_deref()?.split('-').nth(part)?;
        Some(text.to_owned())
    };
    NotificationDetails {
        notification: full(row),
        subject: message.and_then(|message| message.subject.clone()),
        metadata: message
            .and_then(|message| message.metadata.as_deref())
            .and_then(|metadata| serde_json::from_str(metadata).ok()),
        idempotency_key: identity.idempotency_key.clone(),
        correlation_id: identity.correlation_id.clone(),
        trace_id: trace(1),
        span_id: trace(2),
        event_id: identity.event_id.map(|id| id.to_string()),
        rule_id: identity.rule_id.map(|id| id.to_string()),
        requeued_from: identity.requeued_from.map(|id| id.to_string()),
        template_id: identity.template_id.map(|id| id.to_string()),
        template_version: identity.template_version,
        source: identity.source.clone(),
        error_type: row.last_error.as_ref().map(|error| error.kind.clone()),
        error_code: row.last_error.as_ref().map(|error| error.code.clone()),
        updated_at: time::format(row.updated_at),
        attempt_log: calls.iter().map(call).collect(),
    }
}

fn call(call: &Attempt) -> ProviderCall {
    let error = call.error.as_ref();
    ProviderCall {
        attempt: call.number,
        provider: call.provider.clone(),
        started_at: time::format(call.started_at),
        latency_ms: call.latency_ms,
        error_type: error.map(|error| error.kind.clone()),
        error_code: error.map(|error| error.code.clone()),
        error_message: error.map(|error| error.message.clone()),
        response: call.response.clone(),
    }
}
