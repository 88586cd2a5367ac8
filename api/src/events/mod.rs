//! Events: what happened in producers' systems.

pub(crate) mod accept;
mod list;
mod show;

use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi, Union,
    param::{Path, Query},
    payload::Json,
    types::Example,
};
use serde_json::Value;

use crate::{
    Api, Parts, Tag,
    body::{self, Body},
    example,
    fault::Fault,
    keys::{Known, Reader, Sender},
    params::{Given, Id, PageNumber, PerPage, Time},
    trace::Trace,
};

/// An event to be sent.
#[derive(Object)]
#[oai(example, skip_serializing_if_is_none)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
pub(crate) struct NewEvent {
    /// The name of an event source.
    #[oai(validator(min_length = 1, max_length = 255))]
    event: String,
    /// What the rules and templates work on; at most 1 MiB with all else. It must fit the `schema`
    /// of its source, where that has one.
    payload: body::Dictionary,
    /// The client's own id of it. The same id again with the same API key, for as long as
    /// idempotency keys are kept (24 hours unless configured), is the same event: it is answered as the first was, and nothing more follows from it.
    #[oai(nullable, validator(max_length = 128))]
    id: Option<String>,
    /// Events of one key keep their order; without one, they have none.
    #[oai(nullable, validator(max_length = 255))]
    key: Option<String>,
    /// When it happened: ISO 8601, with an offset or else in UTC. Now, unless said.
    #[oai(nullable, validator(max_length = 64))]
    occurred_at: Option<String>,
}

impl Example for NewEvent {
    fn example() -> Self {
        Self {
            event: example::EVENT.to_owned(),
            payload: example::payload().into(),
            id: Some("order-444-created".to_owned()),
            key: Some("order-444".to_owned()),
            occurred_at: Some(example::TIME.to_owned()),
        }
    }
}

/// Events to be sent together.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct NewEvents {
    /// All of them are accepted, or none.
    #[oai(validator(min_items = 1, max_items = 1000))]
    events: Vec<NewEvent>,
}

/// One event, or up to 1,000 under `events`.
#[derive(Union)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
enum SentEvents {
    One(NewEvent),
    Many(NewEvents),
}

/// An accepted event.
#[derive(Object)]
#[oai(example)]
struct AcceptedEvent {
    /// `Event triggered successfully.`
    message: String,
    /// The event's name, as it was sent.
    event: String,
    /// The payload, as it was sent.
    payload: body::Object,
    /// The event's id: the first one's, where it was sent before.
    id: String,
    /// Whether its own id was sent before, so that nothing follows from it now.
    duplicate: bool,
}

impl Example for AcceptedEvent {
    fn example() -> Self {
        Self {
            message: accept::TRIGGERED.to_owned(),
            event: example::EVENT.to_owned(),
            payload: example::payload(),
            id: example::ID.to_owned(),
            duplicate: false,
        }
    }
}

/// Accepted events.
#[derive(Object)]
struct AcceptedEvents {
    /// `Events triggered successfully.`
    message: String,
    /// How many were accepted.
    accepted: usize,
    /// How many of the request's had been sent before, or stood in it before.
    duplicates: usize,
    /// Each event of the request, in its order.
    events: Vec<AcceptedInBatch>,
}

/// An event of a request with many.
#[derive(Object)]
#[oai(example)]
struct AcceptedInBatch {
    /// The event's id: the first one's, where it was sent before.
    id: String,
    /// The event's name, as it was sent.
    event: String,
    /// Whether its own id was sent before, so that nothing follows from it now.
    duplicate: bool,
}

impl Example for AcceptedInBatch {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            event: example::EVENT.to_owned(),
            duplicate: false,
        }
    }
}

/// As many as were sent.
#[derive(Union)]
enum AcceptedAny {
    One(AcceptedEvent),
    Many(AcceptedEvents),
}

#[derive(ApiResponse)]
enum Triggered {
    /// It is in the log; the rules are asked next.
    #[oai(status = 202)]
    Accepted(
        Json<AcceptedAny>,
        /// The request's, or a new one.
        #[oai(header = "X-Correlation-Id")]
        String,
        /// The request's, or a new one.
        #[oai(header = "traceparent")]
        String,
    ),
}

pub(crate) struct Routes;

#[OpenApi(tag = "Tag::Events")]
impl Routes {
    /// Sends events, as the first seed does.
    #[oai(path = "/events", method = "post")]
    async fn trigger(
        &self,
        sender: Sender,
        request: &Request,
        api: Parts<'_>,
        body: Body<SentEvents>,
    ) -> Result<Triggered, Fault> {
        trigger(&api, &sender.0, request, &body.value).await
    }

    /// Sends events: one, or up to 1,000 under `events`.
    #[oai(path = "/v1/events", method = "post")]
    async fn trigger_v1(
        &self,
        sender: Sender,
        request: &Request,
        api: Parts<'_>,
        body: Body<SentEvents>,
    ) -> Result<Triggered, Fault> {
        trigger(&api, &sender.0, request, &body.value).await
    }

    /// Lists events, newest first, without their payloads.
    ///
    /// A page may be short of `per_page` and still name a next one, where a filter leaves out much.
    #[oai(path = "/v1/events", method = "get")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// Of one event source, by its name.
        event: Query<Option<String>>,
        /// Of one correlation id, exactly.
        correlation_id: Query<Option<String>>,
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
    ) -> Result<Json<list::Events>, Fault> {
        let asked = list::Asked {
            event: event.0,
            correlation_id: correlation_id.0,
            from: from.0,
            to: to.0,
            page: page.0,
            per_page: per_page.0,
            cursor: cursor.0,
        };
        list::list(&api, asked).await.map(Json)
    }

    /// Shows an event, what the rules said of it, and what was made of it.
    #[oai(path = "/v1/events/:id", method = "get")]
    async fn event(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The event's id.
        id: Path<String>,
    ) -> Result<Json<show::Event>, Fault> {
        show::event(&api, &id).await.map(Json)
    }
}

async fn trigger(
    api: &Api,
    caller: &Known,
    request: &Request,
    body: &Value,
) -> Result<Triggered, Fault> {
    let trace = Trace::of(request);
    let sent = api.checked(|catalog| accept::check(body, catalog)).await?;
    let is_one = sent.is_one;
    let scope = caller.scope("events");
    let mut events = accept::accept(api, &scope, &trace, sent).await?;
    let answer = match events.pop() {
        Some(event) if is_one => AcceptedAny::One(AcceptedEvent {
            message: accept::TRIGGERED.to_owned(),
            event: event.sent.event,
            payload: body::documented(&event.sent.payload),
            id: event.id.to_string(),
            duplicate: event.is_duplicate,
        }),
        last => {
            events.extend(last);
            AcceptedAny::Many(many(events))
        }
    };
    Ok(Triggered::Accepted(
        Json(answer),
        trace.correlation_id,
        trace.traceparent,
    ))
}

fn many(events: Vec<accept::Accepted>) -> AcceptedEvents {
    let duplicates = events.iter().filter(|event| event.is_duplicate).count();
    AcceptedEvents {
        message: "Events triggered successfully.".to_owned(),
        accepted: events.len() - duplicates,
        duplicates,
        events: events
            .into_iter()
            .map(|event| AcceptedInBatch {
                id: event.id.to_string(),
                event: event.sent.event,
                duplicate: event.is_duplicate,
            })
            .collect(),
    }
}
