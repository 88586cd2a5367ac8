//! The list of events: filters, pages, cursors.

use herald_schemas::{
    ids::EventId,
    rows::{EventFilter, EventHead, Page},
};
use poem_openapi::{Object, types::Example};

use crate::{
    Api, example,
    fault::{Fault, Faults},
    notifications::list::{page, per_page},
    time,
};

/// Beyond this many, a page number costs too much, and a total is not counted out.
const DEEPEST: usize = 10_000;
/// How many are asked for at once to get somewhere.
const AT_ONCE: usize = 1_000;

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

fn read<T>(
    name: &str,
    text: Option<String>,
    faults: &mut Faults,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = text.filter(|text| !text.is_empty())?;
    let value = parse(&text);
    if value.is_none() {
        faults.add(name, format!("The selected {name} is invalid."));
    }
    value
}

pub(super) async fn list(api: &Api, asked: Asked) -> Result<Events, Fault> {
    let mut faults = Faults::default();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = EventFilter {
        event: given(asked.event),
        correlation_id: given(asked.correlation_id),
        from: read("from", asked.from, &mut faults, time::parse),
        until: read("to", asked.to, &mut faults, time::end),
    };
    let per_page = per_page(asked.per_page.as_deref(), &mut faults);
    let current_page = page(asked.page.as_deref(), per_page, &mut faults);
    let before: Option<EventId> = read("cursor", asked.cursor, &mut faults, |text| {
        text.parse().ok()
    });
    faults.none()?;
    let (shown, total, total_at_least) = match before {
        Some(_) => {
            let shown = api.store.list_events(&filter, before, per_page).await?;
            (shown, None, false)
        }
        None => {
            let (total, more) = total(api, &filter).await?;
            let shown = nth(api, &filter, current_page, per_page).await?;
            (shown, Some(total), more)
        }
    };
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

/// A page by its number: walked to, and therefore bounded.
async fn nth(
    api: &Api,
    filter: &EventFilter,
    page: usize,
    per_page: usize,
) -> Result<Page<EventHead, EventId>, Fault> {
    let mut before = None;
    let mut to_skip = (page - 1) * per_page;
    while to_skip > 0 {
        let most = to_skip.min(AT_ONCE);
        let skipped = api.store.list_events(filter, before, most).await?;
        if skipped.next.is_none() {
            return Ok(Page {
                items: Vec::new(),
                next: None,
            });
        }
        to_skip -= skipped.items.len();
        before = skipped.next;
    }
    Ok(api.store.list_events(filter, before, per_page).await?)
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
