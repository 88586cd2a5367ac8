//! The list of events: filters, pages, cursors.

use herald_schemas::{
    ids::EventId,
    rows::{EventFilter, EventHead},
};
use poem_openapi::{Object, types::Example};

use crate::{
    Api, example,
    fault::{Fault, Faults},
    pages::{AT_ONCE, DEEPEST, given, page, per_page, read, turn_to},
    time,
};

/// A page of events, newest first.
#[derive(Object)]
pub(super) struct Events {
    /// The events.
    data: Vec<ListedEvent>,
    /// Which part of the list this is.
    meta: EventsMeta,
}

/// An event, without its payload.
#[derive(Object)]
#[oai(example)]
struct ListedEvent {
    /// The event.
    id: String,
    /// The name of its source.
    event: String,
    /// When it happened. ISO 8601, as are all times.
    occurred_at: String,
    /// When it was accepted; of a producer's own id, the time that it carries.
    accepted_at: String,
    /// The request's, or the producer's.
    #[oai(nullable)]
    correlation_id: Option<String>,
}

impl Example for ListedEvent {
    fn example() -> Self {
        Self {
            id: example::ID.to_owned(),
            event: example::EVENT.to_owned(),
            occurred_at: example::TIME.to_owned(),
            accepted_at: example::TIME.to_owned(),
            correlation_id: Some("demo-123".to_owned()),
        }
    }
}

#[derive(Object)]
#[oai(example)]
struct EventsMeta {
    /// From 1.
    current_page: usize,
    /// How many a page shows at most.
    per_page: usize,
    /// How many there are; null where a cursor was followed.
    #[oai(nullable)]
    total: Option<usize>,
    /// True where there are more than `total`, which is as far as they were counted.
    total_at_least: bool,
    /// Where the next page starts; null on the last. Costs the same at every depth.
    #[oai(nullable)]
    next_cursor: Option<String>,
}

impl Example for EventsMeta {
    fn example() -> Self {
        Self {
            current_page: 1,
            per_page: 25,
            total: Some(31),
            total_at_least: false,
            next_cursor: Some(example::ID.to_owned()),
        }
    }
}

/// The query as it came.
pub(super) struct Asked {
    pub(super) event: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) page: Option<String>,
    pub(super) per_page: Option<String>,
    pub(super) cursor: Option<String>,
}

pub(super) async fn list(api: &Api, asked: Asked) -> Result<Events, Fault> {
    let mut faults = Faults::default();
    let filter = EventFilter {
        event: given(asked.event),
        correlation_id: given(asked.correlation_id),
        from: read("from", asked.from.as_deref(), &mut faults, time::parse),
        until: read("to", asked.to.as_deref(), &mut faults, time::end),
    };
    let per_page = per_page(asked.per_page.as_deref(), &mut faults);
    let current_page = page(asked.page.as_deref(), per_page, &mut faults);
    let before: Option<EventId> = read("cursor", asked.cursor.as_deref(), &mut faults, |text| {
        text.parse().ok()
    });
    faults.none()?;
    let (total, total_at_least) = match before {
        Some(_) => (None, false),
        None => {
            let (total, more) = total(api, &filter).await?;
            (Some(total), more)
        }
    };
    let some = |before, most| api.store.list_events(&filter, before, most);
    let shown = turn_to(before, current_page, per_page, some).await?;
    let meta = EventsMeta {
        current_page,
        per_page,
        total,
        total_at_least,
        next_cursor: shown.next.map(|id| id.to_string()),
    };
    Ok(Events {
        data: shown.items.into_iter().map(listed).collect(),
        meta,
    })
}

fn listed(head: EventHead) -> ListedEvent {
    ListedEvent {
        id: head.id.to_string(),
        event: head.event,
        occurred_at: time::format(head.occurred_at),
        accepted_at: time::format(head.id.unix_ms()),
        correlation_id: head.correlation_id,
    }
}

/// How many there are, and whether there are more than that.
async fn total(api: &Api, filter: &EventFilter) -> Result<(usize, bool), Fault> {
    let (mut total, mut before) = (0, None);
    // A filter that leaves out much makes short pages of long walks.
    for _ in 0..DEEPEST / AT_ONCE {
        let page = api.store.list_events(filter, before, AT_ONCE).await?;
        total += page.items.len();
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    Ok((total, before.is_some()))
}
