//! Dead letters: what could not be processed or delivered, and why.

pub(crate) mod requeue;

use base64::{Engine, prelude::BASE64_STANDARD};
use herald_schemas::{
    ids::DeadLetterId,
    rows::{DeadLetterRow, LetterFilter, Order, Page},
};
use herald_store::StoreError;
use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

use self::requeue::Asked;
use crate::{
    Api, Parts, Tag,
    body::OptionalBody,
    fault::{Fault, Faults},
    keys::{Manager, Reader},
    pages::{self, given},
    params::{
        ChannelName, DelaySeconds, Given, Id, PageNumber, PerPage, PriorityName, RequeueLimit, Time,
    },
    time,
    words::{ChannelWord, PriorityWord},
};

/// A dead letter.
#[derive(Object)]
struct DeadLetter {
    /// The dead letter.
    id: String,
    /// The stage that gave up.
    stage: String,
    /// Its notification, where the record could be read that far.
    #[oai(nullable)]
    notification_id: Option<String>,
    /// Its event, where it was one.
    #[oai(nullable)]
    event_id: Option<String>,
    /// The notification's recipient.
    #[oai(nullable)]
    recipient: Option<String>,
    /// The notification's channel.
    #[oai(nullable)]
    channel: Option<String>,
    /// The notification's lane.
    #[oai(nullable)]
    priority: Option<String>,
    /// How many attempts had been made.
    attempts: i32,
    /// `permanent`, `transient`, `expired` or `poison`.
    error_type: String,
    /// Such as `http_400` or `missing_variable`.
    error_code: String,
    /// What went wrong, for people.
    error_message: String,
    /// Where the record lay: its topic,
    source_topic: String,
    /// its partition,
    source_partition: i32,
    /// and its offset.
    source_offset: i64,
    /// The notification that was made of it again.
    #[oai(nullable)]
    requeued_as: Option<String>,
    /// ISO 8601.
    created_at: String,
}

/// A dead letter with the record that it is about.
#[derive(Object)]
struct WholeDeadLetter {
    #[oai(flatten)]
    letter: DeadLetter,
    /// The record's bytes, in base64.
    value: String,
    /// The record's key, in base64.
    #[oai(nullable)]
    key: Option<String>,
}

/// A page of dead letters, newest first.
#[derive(Object)]
struct DeadLetters {
    /// The dead letters, without their bytes.
    data: Vec<DeadLetter>,
    /// Which part of the list this is.
    meta: DeadLettersMeta,
}

#[derive(Object)]
struct DeadLettersMeta {
    /// From 1.
    current_page: usize,
    /// How many a page shows at most.
    per_page: usize,
    /// How many there are.
    total: usize,
    /// True where there are more than `total`, which is as far as they were counted.
    total_at_least: bool,
    /// Where the next page starts; null on the last.
    #[oai(nullable)]
    next_cursor: Option<String>,
}

/// How to requeue: in the query or in the body.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct Requeue {
    /// high, normal or low; as it was unless said.
    #[oai(nullable)]
    priority: Option<PriorityWord>,
    /// How long to wait before it is sent, in seconds.
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "31622400")))]
    delay_seconds: Option<i64>,
}

/// What to requeue, and how: in the query or in the body.
#[derive(Object)]
#[allow(dead_code, reason = "documents the body, which is taken apart by hand")]
struct BulkRequeue {
    /// How many at the most, 1 to 1,000; 100 unless said.
    #[oai(nullable, validator(minimum(value = "1"), maximum(value = "1000")))]
    limit: Option<usize>,
    /// Only of this channel.
    #[oai(nullable)]
    channel: Option<ChannelWord>,
    /// high, normal or low; as each was unless said.
    #[oai(nullable)]
    priority: Option<PriorityWord>,
    /// How long to wait before they are sent, in seconds.
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "31622400")))]
    delay_seconds: Option<i64>,
}

/// That it is on its way again.
#[derive(Object)]
struct Requeued {
    /// `Dead-letter notification requeued.`
    message: String,
    /// The notification that was made of it.
    notification_id: String,
}

#[derive(ApiResponse)]
enum RequeuedOne {
    /// A new notification was made of it.
    #[oai(status = 201)]
    Requeued(Json<Requeued>),
}

/// What became of many.
#[derive(Object)]
struct RequeuedMany {
    /// `Dead-letter requeue completed.`
    message: String,
    /// The limit.
    requested: usize,
    /// How many new notifications were made.
    requeued: usize,
    /// How many fewer than requested.
    skipped: usize,
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::DeadLetters")]
impl Routes {
    /// Lists dead letters, newest first.
    #[oai(path = "/dead-letter", method = "get")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn list(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// sms, email, push, slack, webhook or log.
        channel: Given<ChannelName>,
        /// `permanent`, `transient`, `expired` or `poison`.
        error_type: Query<Option<String>>,
        /// Such as `http_400`.
        error_code: Query<Option<String>>,
        /// Of records of this time or later: ISO 8601, or a date.
        from: Given<Time>,
        /// Of records of this time or earlier; of a date, its whole day.
        to: Given<Time>,
        /// From 1; page × per_page goes to 10,000. Beyond, follow `meta.next_cursor`.
        page: Given<PageNumber>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Given<PerPage>,
        /// `meta.next_cursor` of the page before.
        cursor: Given<Id>,
    ) -> Result<Json<DeadLetters>, Fault> {
        let mut faults = Faults::default();
        let filter = LetterFilter {
            channel: pages::read("channel", channel.0.as_deref(), &mut faults, |text| {
                text.parse().ok()
            }),
            error_type: given(error_type.0),
            error_code: given(error_code.0),
            from: pages::read("from", from.0.as_deref(), &mut faults, time::parse),
            until: pages::read("to", to.0.as_deref(), &mut faults, time::end),
            open_only: false,
        };
        let per_page = pages::per_page(per_page.0.as_deref(), &mut faults);
        let page = pages::page(page.0.as_deref(), per_page, &mut faults);
        let past = pages::read("cursor", cursor.0.as_deref(), &mut faults, |text| {
            text.parse::<DeadLetterId>().ok()
        });
        faults.none()?;
        let some = |past, wanted| some(&api, &filter, past, wanted);
        let (total, total_at_least) = pages::count(some).await?;
        let Page { items, next } = pages::turn_to(past, page, per_page, some).await?;
        let meta = DeadLettersMeta {
            current_page: page,
            per_page,
            total,
            total_at_least,
            next_cursor: next.map(|id| id.to_string()),
        };
        Ok(Json(DeadLetters {
            data: items.iter().map(shown).collect(),
            meta,
        }))
    }

    /// Shows a dead letter and the record that it is about.
    #[oai(path = "/dead-letter/:id", method = "get")]
    async fn one(
        &self,
        _reader: Reader,
        api: Parts<'_>,
        /// The dead letter's id.
        id: Path<String>,
    ) -> Result<Json<WholeDeadLetter>, Fault> {
        let row = find(&api, &id).await?;
        Ok(Json(WholeDeadLetter {
            letter: shown(&row),
            value: BASE64_STANDARD.encode(&row.letter.value),
            key: row
                .letter
                .key
                .as_ref()
                .map(|key| BASE64_STANDARD.encode(key)),
        }))
    }

    /// Makes a new notification of a dead letter.
    #[oai(path = "/dead-letter/:id/requeue", method = "post")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn requeue(
        &self,
        _manager: Manager,
        request: &Request,
        api: Parts<'_>,
        /// The dead letter's id.
        id: Path<String>,
        /// high, normal or low; as it was unless said.
        priority: Given<PriorityName>,
        /// How long to wait before it is sent, in seconds.
        delay_seconds: Given<DelaySeconds>,
        body: OptionalBody<Requeue>,
    ) -> Result<RequeuedOne, Fault> {
        let asked = Asked::of(&body.value, priority.0, delay_seconds.0)?;
        let row = find(&api, &id).await?;
        let notification_id = requeue::one(&api, &row, &asked, request).await?.to_string();
        Ok(RequeuedOne::Requeued(Json(Requeued {
            message: "Dead-letter notification requeued.".to_owned(),
            notification_id,
        })))
    }

    /// Makes new notifications of dead letters, the oldest first.
    #[oai(path = "/dead-letter/requeue", method = "post")]
    #[allow(
        clippy::too_many_arguments,
        reason = "one for each parameter of the query"
    )]
    async fn requeue_many(
        &self,
        _manager: Manager,
        request: &Request,
        api: Parts<'_>,
        /// How many at the most, 1 to 1,000; 100 unless said.
        limit: Given<RequeueLimit>,
        /// Only of this channel.
        channel: Given<ChannelName>,
        /// high, normal or low; as each was unless said.
        priority: Given<PriorityName>,
        /// How long to wait before they are sent, in seconds.
        delay_seconds: Given<DelaySeconds>,
        body: OptionalBody<BulkRequeue>,
    ) -> Result<Json<RequeuedMany>, Fault> {
        let asked = Asked::of(&body.value, priority.0, delay_seconds.0)?;
        let (limit, channel) = requeue::which(&body.value, limit.0, channel.0)?;
        let requeued = requeue::many(&api, limit, channel, &asked, request).await?;
        Ok(Json(RequeuedMany {
            message: "Dead-letter requeue completed.".to_owned(),
            requested: limit,
            requeued,
            skipped: limit - requeued,
        }))
    }
}

async fn find(api: &Api, id: &str) -> Result<DeadLetterRow, Fault> {
    let missing = || Fault::not_found("Dead letter");
    let id = id.parse().map_err(|_| missing())?;
    api.store.dead_letter(id).await?.ok_or_else(missing)
}

/// So many letters beyond `past`, or else all that there are.
async fn some(
    api: &Api,
    filter: &LetterFilter,
    mut past: Option<DeadLetterId>,
    wanted: usize,
) -> Result<Page<DeadLetterRow, DeadLetterId>, StoreError> {
    let mut items = Vec::new();
    loop {
        let page = api
            .store
            .list_dead_letters(filter, Order::Newest, past, wanted - items.len())
            .await?;
        items.extend(page.items);
        past = page.next;
        if past.is_none() || items.len() >= wanted {
            return Ok(Page { items, next: past });
        }
    }
}

fn shown(
    DeadLetterRow {
        letter,
        requeued_as,
    }: &DeadLetterRow,
) -> DeadLetter {
    let identity = letter.identity.as_ref();
    DeadLetter {
        id: letter.id.to_string(),
        stage: letter.stage.clone(),
        notification_id: identity.map(|identity| identity.id.to_string()),
        event_id: letter.event_id.map(|id| id.to_string()),
        recipient: identity.map(|identity| identity.recipient.clone()),
        channel: identity.map(|identity| identity.channel.to_string()),
        priority: identity.map(|identity| identity.priority.to_string()),
        attempts: letter.attempts,
        error_type: letter.error.kind.clone(),
        error_code: letter.error.code.clone(),
        error_message: letter.error.message.clone(),
        source_topic: letter.source_topic.clone(),
        source_partition: letter.source_partition,
        source_offset: letter.source_offset,
        requeued_as: requeued_as.map(|id| id.to_string()),
        created_at: time::format(letter.at),
    }
}
