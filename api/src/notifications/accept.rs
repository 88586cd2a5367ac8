//! Taking notifications in: all of them are checked before any is written, and what the answer
//! shows is what is sent. Which of them are new is decided in `once`.

use std::sync::Arc;

use herald_broker::Outgoing;
use herald_runtime::{outbox::OutboxError, setup::REQUEST_BYTES, worker::now};
use herald_schemas::{
    ids::{TemplateId, UnixMs},
    records::{BatchAccepted, Message, NotificationRequested, StatusChanged},
    rows::NotificationRow,
    words::{Channel, Priority, Status},
};
use herald_stages::{
    Output, Settings, materialize::merge, recipient, snapshot::Snapshot, template::render_message,
};
use serde_json::{Map, Value};

use crate::{
    Api,
    body::Fields,
    fault::{Fault, Faults},
    templates::not_rendered,
    to_the_end,
    trace::Trace,
};

const MAX_NOTIFICATIONS: usize = 1_000;
/// The longest keys.
const MAX_KEY: usize = 128;
/// What every content is shorter than; the channel's own limit is checked after.
const MAX_CONTENT: usize = 1 << 20;
const MAX_SUBJECT: usize = 998; // RFC 5322, section 2.1.1

/// A request that may be written. Neither it nor its notifications have ids yet.
pub(super) struct Checked {
    /// What is said of all of them; none for a single notification.
    pub(super) batch: Option<Batch>,
    pub(super) requests: Vec<NotificationRequested>,
}

/// What is said of a batch.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) metadata: Map<String, Value>,
    pub(super) idempotency_key: Option<String>,
    pub(super) correlation_id: Option<String>,
}

/// Checks a whole request.
pub(super) fn check(
    body: &Value,
    trace: &Trace,
    catalog: &Snapshot,
    settings: &Settings,
) -> Result<Checked, Fault> {
    let mut faults = Faults::default();
    let mut fields = Fields::of(body, &mut faults);
    let items: &[Value] = match fields.get("notifications") {
        Some(Value::Array(items)) => items,
        Some(_) => {
            fields.fault("notifications", "The notifications field must be an array.");
            &[]
        }
        None => {
            fields.fault("notifications", "The notifications field is required.");
            &[]
        }
    };
    if items.len() > MAX_NOTIFICATIONS {
        let text =
            format!("The notifications field must not have more than {MAX_NOTIFICATIONS} items.");
        // None of them is looked at: there may be very many.
        return Err(Faults::only("notifications", text));
    }
    if items.is_empty() && fields.get("notifications").is_some_and(Value::is_array) {
        fields.fault("notifications", "The notifications field is required.");
    }
    let batch = fields
        .get("batch")
        .filter(|batch| !batch.as_array().is_some_and(Vec::is_empty));
    let mut of_batch = (batch.is_some() || items.len() > 1).then(Batch::default);
    if let (Some(batch), Some(of_batch)) = (batch, &mut of_batch) {
        let mut fields = Fields::at(batch, "batch.".to_owned(), &mut faults);
        of_batch.correlation_id = fields.text("correlation_id", MAX_KEY);
        of_batch.idempotency_key = fields.text("idempotency_key", MAX_KEY);
        of_batch.metadata = fields.object("metadata").cloned().unwrap_or_default();
    }
    let correlation_id = of_batch
        .as_ref()
        .and_then(|batch| batch.correlation_id.clone());
    let common = Common {
        now: now(),
        correlation_id: correlation_id.unwrap_or_else(|| trace.correlation_id.clone()),
        traceparent: &trace.traceparent,
        catalog,
        settings,
    };
    let mut requests = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let fields = Fields::at(item, format!("notifications.{index}."), &mut faults);
        requests.extend(common.request(fields));
    }
    faults.none()?;
    Ok(Checked {
        batch: of_batch,
        requests,
    })
}

/// What all notifications of a request share.
struct Common<'a> {
    now: UnixMs,
    correlation_id: String,
    traceparent: &'a str,
    catalog: &'a Snapshot,
    settings: &'a Settings,
}

impl Common<'_> {
    /// The record of one notification; none when something is wrong with it.
    fn request(&self, mut fields: Fields<'_, '_>) -> Option<NotificationRequested> {
        let recipient = fields.required("recipient", 4_096);
        let channel: Option<Channel> = fields
            .required("channel", 64)
            .and_then(|_| fields.word("channel"));
        let priority: Option<Priority> = fields.word("priority");
        if let (Some(channel), Some(recipient)) = (channel, &recipient)
            && let Err(problem) = recipient::check(channel, recipient)
        {
            fields.fault("recipient", format!("The recipient {problem}."));
        }
        let send_at = fields.time("scheduled_at");
        let idempotency_key = fields.text("idempotency_key", MAX_KEY);
        let correlation_id = fields.text("correlation_id", MAX_KEY);
        let metadata = fields
            .object("metadata")
            .map(|object| Value::Object(object.clone()).to_string());
        let variables = fields.object("variables");
        let message = self.message(&mut fields, channel, variables)?;
        let (channel, recipient) = (channel?, recipient?);
        if let Err(text) = self.settings.limits.check(channel, &message.content) {
            fields.fault("content", text);
            return None;
        }
        Some(NotificationRequested {
            id: None,
            recipient,
            channel: channel.to_string(),
            priority: priority.unwrap_or(Priority::Normal).to_string(),
            content: Some(message.content),
            subject: message.subject,
            html: message.html,
            template_id: message.template.map(|(id, _)| id),
            template_version: message.template.map(|(_, version)| version),
            variables: None,
            metadata,
            idempotency_key,
            correlation_id: Some(correlation_id.unwrap_or_else(|| self.correlation_id.clone())),
            traceparent: Some(self.traceparent.to_owned()),
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            created_at: self.now,
            send_at,
            expires_at: None,
            catalog_version: self.catalog.version(),
            accepted_by: Some("api".to_owned()),
        })
    }

    fn message(
        &self,
        fields: &mut Fields<'_, '_>,
        channel: Option<Channel>,
        variables: Option<&Map<String, Value>>,
    ) -> Option<Text> {
        let subject = fields.text("subject", MAX_SUBJECT);
        let html = fields.text("html", MAX_CONTENT);
        if let Some(content) = fields.text("content", MAX_CONTENT) {
            return Some(Text {
                content,
                subject,
                html,
                template: None,
            });
        }
        if fields.get("content").is_some() {
            return None;
        }
        if fields.get("template_id").is_none() {
            fields.fault("content", "Either content or template_id is required.");
            return None;
        }
        let id: TemplateId = fields.id("template_id")?;
        let Some(template) = self.catalog.template(id, None) else {
            fields.fault("template_id", "The selected template_id is invalid.");
            return None;
        };
        if let Some(channel) = channel
            && template.channel != channel
        {
            let text = format!("The template is for {}, not {channel}.", template.channel);
            fields.fault("template_id", text);
            return None;
        }
        let none = Map::new();
        match render_message(template, variables.unwrap_or(&none)) {
            Ok(rendered) if rendered.content.trim().is_empty() => {
                fields.fault(
                    "variables",
                    "The template makes no text of these variables.",
                );
                None
            }
            Ok(rendered) => Some(Text {
                content: rendered.content,
                subject: subject.or(rendered.subject),
                html: html.or(rendered.html),
                template: Some((id, template.version)),
            }),
            Err(error) => {
                let (field, text) = not_rendered(&error);
                fields.fault(&field, text);
                None
            }
        }
    }
}

/// What is said, and by which version of which template.
struct Text {
    content: String,
    subject: Option<String>,
    html: Option<String>,
    template: Option<(TemplateId, i32)>,
}

/// Writes the requests, and once they are acked their first statuses, by which they can be read
/// however long the queue is; the batch, where there is one, before both. Answers what those say.
pub(crate) async fn write(
    api: &Api,
    batch: Option<BatchAccepted>,
    requests: Vec<NotificationRequested>,
) -> Result<Vec<NotificationRow>, Fault> {
    let now = now();
    let statuses: Vec<StatusChanged> = requests
        .iter()
        .filter_map(|request| first_status(request, now))
        .collect();
    let rows = statuses.iter().map(|status| merge(None, status)).collect();
    let early = |request: &NotificationRequested| request.send_at.is_some_and(|at| at > now);
    let requests: Vec<Output> = requests
        .into_iter()
        .map(|request| match early(&request) {
            true => Output::Schedule(request),
            false => Output::Request(request),
        })
        .collect();
    let statuses: Vec<Output> = statuses.into_iter().map(Output::Status).collect();
    let outbox = Arc::clone(&api.outbox);
    let requests = outbox.encode(&requests)?;
    fit(&requests)?;
    let mut first = outbox.encode(&batch.map(Output::Batch).into_iter().collect::<Vec<_>>())?;
    first.extend(requests);
    let statuses = outbox.encode(&statuses)?;
    to_the_end(async move {
        outbox.enqueue(first).await?.await?;
        outbox.enqueue(statuses).await?.await?;
        Ok::<_, OutboxError>(())
    })
    .await?;
    Ok(rows)
}

/// Whether the topic takes each of them: else the broker might take some and refuse the others.
/// What is made of one on its way is bounded by larger topics.
fn fit(requests: &[Outgoing]) -> Result<(), Fault> {
    let mut faults = Faults::default();
    for (index, request) in requests.iter().enumerate() {
        if request.bytes() > REQUEST_BYTES {
            let text = format!("The notification exceeds {REQUEST_BYTES} bytes.");
            faults.add(format!("notifications.{index}"), text);
        }
    }
    faults.none()
}

fn first_status(request: &NotificationRequested, now: UnixMs) -> Option<StatusChanged> {
    let identity = request.identity(
        request.id.as_deref()?.parse().ok()?,
        request.channel.parse().ok()?,
        request.priority.parse().ok()?,
    );
    // Without a content, the template's is told by whoever renders it.
    let message = request.content.clone().map(|content| Message {
        content,
        subject: request.subject.clone(),
        html: request.html.clone(),
        metadata: request.metadata.clone(),
    });
    Some(StatusChanged {
        at: identity.created_at,
        status: match identity.send_at.is_some_and(|at| at > now) {
            true => Status::Scheduled,
            false => Status::Pending,
        },
        identity,
        attempts: 0,
        message,
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(body: &Value) -> Result<Checked, Fault> {
        let trace = Trace {
            correlation_id: "c".to_owned(),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        };
        check(body, &trace, &Snapshot::default(), &Settings::default())
    }

    fn faults(body: &Value) -> Vec<(String, String)> {
        match checked(body) {
            Err(Fault::Invalid(invalid)) => {
                let errors = invalid.0.errors.into_iter();
                errors
                    .flat_map(|(field, texts)| {
                        texts.into_iter().map(move |text| (field.clone(), text))
                    })
                    .collect()
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let body = json!({ "notifications": [
            { "recipient": "me", "channel": "log", "content": "fine" },
            { "recipient": "0555", "channel": "sms", "content": "x" },
            { "channel": "fax", "content": "x" },
            { "recipient": "a@example.com", "channel": "email" },
            { "recipient": "a", "channel": "log", "content": 7, "priority": "urgent" },
        ]});
        let told = faults(&body);
        let fields: Vec<&str> = told.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "notifications.1.recipient",
                "notifications.2.channel",
                "notifications.2.recipient",
                "notifications.3.content",
                "notifications.4.content",
                "notifications.4.priority",
            ]
        );
        assert_eq!(told[3].1, "Either content or template_id is required.");
    }

    #[test]
    fn the_list_itself_is_checked() {
        for body in [
            json!({}),
            json!({ "notifications": [] }),
            json!({ "notifications": 7 }),
        ] {
            assert_eq!(faults(&body)[0].0, "notifications", "{body}");
        }
        assert_eq!(faults(&json!([]))[0].0, "body");
        let many = vec![json!({}); 1_001];
        assert_eq!(faults(&json!({ "notifications": many })).len(), 1);
    }

    #[test]
    fn more_than_one_make_a_batch() {
        let item = json!({ "recipient": "me", "channel": "log", "content": "x" });
        let batch = |body: Value| checked(&body).unwrap().batch;
        assert!(batch(json!({ "notifications": [item] })).is_none());
        assert!(batch(json!({ "notifications": [item, item] })).is_some());
        let named = json!({ "batch": { "metadata": { "a": 1 } }, "notifications": [item] });
        assert_eq!(batch(named).unwrap().metadata.len(), 1);
    }
}
