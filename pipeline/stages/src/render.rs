//! The stage render: a requested notification → one that is ready to be sent.

use herald_schemas::{
    records::{DeliveryReady, Failure, Identity, Message, NotificationRequested, StatusChanged},
    words::{Channel, Priority, Status},
};
use serde_json::{Map, Value};

use crate::{
    Context, Output, Source, Verdict,
    poison::{given_up, letter, poison},
    recipient,
    shortened::check_keys,
    template::render_message,
};

/// This stage's name.
const STAGE: &str = "render";
/// The largest message in all: it must fit the topics that a request fits.
const MAX_MESSAGE_BYTES: usize = 2_000_000;

/// Who accepted a notification, and so what is known of it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    /// Somebody who had the text: its first status said everything.
    Whole,
    /// Somebody who left that to the template, as match does: its first status said all but that.
    WithoutMessage,
    /// Nobody: a producer outside wrote it. Its first status is ours to write.
    Outside,
}

/// A requested notification → its delivery; to `scheduled` when it is early and from outside.
pub fn process(
    request: NotificationRequested,
    source: &Source<'_>,
    context: &Context<'_>,
) -> Verdict {
    let accepted = match (&request.accepted_by, &request.content) {
        (None, _) => Accepted::Outside,
        (Some(_), None) => Accepted::WithoutMessage,
        (Some(_), Some(_)) => Accepted::Whole,
    };
    let identity = match identity(&request, source, accepted) {
        Ok(identity) => identity,
        Err(error) => {
            let letter = letter(STAGE, source, error, context.now, 0, None, request.event_id);
            return Verdict::DeadLetter(vec![Output::DeadLetter(letter)]);
        }
    };
    let give_up = |error: &Failure| {
        let status = status(&identity, Status::Failed, None);
        Verdict::DeadLetter(given_up(STAGE, source, error, context.now, status))
    };
    if let Err(problem) = recipient::check(identity.channel, &identity.recipient) {
        let message = format!("recipient {:?} {problem}", identity.recipient);
        return give_up(&poison("invalid_recipient", message));
    }
    let message = match message(&request, identity.channel, context) {
        Ok(message) => message,
        Err(error) => return give_up(&error),
    };
    let early = identity
        .send_at
        .is_some_and(|send_at| send_at > context.now);
    let mut outputs = Vec::with_capacity(2);
    if accepted == Accepted::Outside {
        let first = if early {
            Status::Scheduled
        } else {
            Status::Pending
        };
        outputs.push(Output::Status(status(
            &identity,
            first,
            Some(message.clone()),
        )));
    }
    outputs.push(if early {
        Output::Schedule(scheduled(request, &identity, message))
    } else {
        let message_known = accepted != Accepted::WithoutMessage;
        Output::Deliver(DeliveryReady {
            identity,
            message,
            message_known,
            attempts: 0,
            due_at: None,
            last_error: None,
        })
    });
    Verdict::Emit(outputs)
}

fn identity(
    request: &NotificationRequested,
    source: &Source<'_>,
    accepted: Accepted,
) -> Result<Identity, Failure> {
    let channel: Channel = request
        .channel
        .parse()
        .map_err(|error| poison("unknown_channel", format!("{error}")))?;
    let priority: Priority = request
        .priority
        .parse()
        .map_err(|error| poison("unknown_priority", format!("{error}")))?;
    check_keys(&[
        ("idempotency_key", &request.idempotency_key),
        ("correlation_id", &request.correlation_id),
        ("traceparent", &request.traceparent),
    ])
    .map_err(|problem| poison("invalid_request", problem))?;
    // All that is said of the notification repeats it.
    if request.recipient.len() > recipient::LONG {
        let message = format!("recipient is longer than {} bytes", recipient::LONG);
        return Err(poison("invalid_recipient", message));
    }
    let id = request.notification_id(
        source.topic,
        source.partition,
        source.offset,
        source.timestamp,
    );
    let identity = request.identity(id, channel, priority);
    Ok(Identity {
        correlation_id: identity.correlation_id.or_else(|| source.correlation_id()),
        traceparent: identity.traceparent.or_else(|| source.traceparent()),
        source: (accepted != Accepted::Whole).then(|| source.provenance()),
        ..identity
    })
}

/// What is said: the content as it came, else the template's.
fn message(
    request: &NotificationRequested,
    channel: Channel,
    context: &Context<'_>,
) -> Result<Message, Failure> {
    if let Some(metadata) = &request.metadata {
        object(metadata, "metadata")?;
    }
    let metadata = request.metadata.clone();
    let message = match (&request.content, request.template_id) {
        (Some(content), _) => Message {
            content: content.clone(),
            subject: request.subject.clone(),
            html: request.html.clone(),
            metadata,
        },
        (None, Some(id)) => {
            let version = request.template_version;
            let template = context.catalog.template(id, version).ok_or_else(|| {
                let version =
                    version.map_or(String::new(), |version| format!(" version {version}"));
                poison(
                    "unknown_template",
                    format!("there is no template {id}{version}"),
                )
            })?;
            let variables = match &request.variables {
                Some(json) => object(json, "variables")?,
                None => Map::new(),
            };
            let rendered = render_message(template, &variables)
                .map_err(|error| poison(error.code(), error.to_string()))?;
            Message {
                content: rendered.content,
                subject: request.subject.clone().or(rendered.subject),
                html: request.html.clone().or(rendered.html),
                metadata,
            }
        }
        (None, None) => {
            let message = "either content or template_id is required";
            return Err(poison("invalid_request", message));
        }
    };
    let limits = &context.settings.limits;
    limits
        .check(channel, &message.content)
        .map_err(|text| poison("content_too_long", text))?;
    if size(&message) > MAX_MESSAGE_BYTES {
        let text = format!("The message exceeds {MAX_MESSAGE_BYTES} bytes in all.");
        return Err(poison("content_too_long", text));
    }
    Ok(message)
}

fn size(message: &Message) -> usize {
    let parts = [&message.subject, &message.html, &message.metadata];
    let parts = parts.into_iter().flatten().map(String::len);
    message.content.len() + parts.sum::<usize>()
}

fn object(json: &str, name: &str) -> Result<Map<String, Value>, Failure> {
    serde_json::from_str(json).map_err(|error| {
        poison(
            "invalid_request",
            format!("{name} is no JSON object: {error}"),
        )
    })
}

fn status(identity: &Identity, status: Status, message: Option<Message>) -> StatusChanged {
    StatusChanged {
        identity: identity.clone(),
        status,
        attempts: 0,
        at: identity.created_at,
        message,
        calls: Vec::new(),
        provider_message_id: None,
        error: None,
    }
}

/// The same request, to come back when it is time: rendered, and accepted.
fn scheduled(
    request: NotificationRequested,
    identity: &Identity,
    message: Message,
) -> NotificationRequested {
    NotificationRequested {
        id: Some(identity.id.to_string()),
        content: Some(message.content),
        subject: message.subject,
        html: message.html,
        variables: None,
        accepted_by: Some(STAGE.to_owned()),
        ..request
    }
}
