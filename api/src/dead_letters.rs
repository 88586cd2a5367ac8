//! Dead letters: what could not be processed or delivered, and why.

use base64::{Engine, prelude::BASE64_STANDARD};
use herald_schemas::{
    ids::DeadLetterId,
    rows::{DeadLetterRow, LetterFilter, Order},
};
use poem_openapi::{
    Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

use crate::{
    Parts, Tag,
    fault::{Fault, Faults},
    keys::Caller,
    time,
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
    /// The record's bytes, in base64.
    value: String,
    /// ISO 8601.
    created_at: String,
}

/// A page of dead letters, newest first.
#[derive(Object)]
struct DeadLetters {
    /// The dead letters.
    data: Vec<DeadLetter>,
    /// Which part of the list this is.
    meta: DeadLettersMeta,
}

#[derive(Object)]
struct DeadLettersMeta {
    /// How many a page shows at most.
    per_page: usize,
    /// Where the next page starts; null on the last.
    #[oai(nullable)]
    next_cursor: Option<String>,
}

pub(crate) struct Routes;

#[OpenApi(prefix_path = "/v1", tag = "Tag::DeadLetters")]
impl Routes {
    /// Lists dead letters, newest first.
    #[oai(path = "/dead-letter", method = "get")]
    async fn list(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// How many to show, 100 at most; 25 unless said.
        per_page: Query<Option<String>>,
        /// `meta.next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<DeadLetters>, Fault> {
        let mut faults = Faults::default();
        let per_page = crate::notifications::list::per_page(per_page.0.as_deref(), &mut faults);
        let before: Option<DeadLetterId> = cursor.0.as_deref().and_then(|text| {
            let id = text.parse().ok();
            if id.is_none() {
                faults.add("cursor", "The cursor is invalid.");
            }
            id
        });
        faults.none()?;
        let filter = LetterFilter::default();
        let page = api
            .store
            .list_dead_letters(&filter, Order::Newest, before, per_page)
            .await?;
        let meta = DeadLettersMeta {
            per_page,
            next_cursor: page.next.map(|id| id.to_string()),
        };
        Ok(Json(DeadLetters {
            data: page.items.iter().map(shown).collect(),
            meta,
        }))
    }

    /// Shows a dead letter.
    #[oai(path = "/dead-letter/:id", method = "get")]
    async fn one(
        &self,
        _caller: Caller,
        api: Parts<'_>,
        /// The dead letter's id.
        id: Path<String>,
    ) -> Result<Json<DeadLetter>, Fault> {
        let missing = || Fault::not_found("Dead letter");
        let id = id.parse().map_err(|_| missing())?;
        let letter = api.store.dead_letter(id).await?.ok_or_else(missing)?;
        Ok(Json(shown(&letter)))
    }
}

fn shown(DeadLetterRow { letter, .. }: &DeadLetterRow) -> DeadLetter {
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
        value: BASE64_STANDARD.encode(&letter.value),
        created_at: time::format(letter.at),
    }
}
