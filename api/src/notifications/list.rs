//! The list of notifications: filters, pages, cursors, exact totals.

use herald_schemas::{
    ids::{BatchId, EventId, NotificationId},
    rows::{CountKey, Filter, Index},
};
use herald_store::Counted;
use poem_openapi::Object;

use super::show::{Notification, full};
use crate::{
    Api,
    fault::{Fault, Faults},
    pages::{count, given, page, per_page, read, turn_to},
    time,
};

const DAY_MS: i64 = 86_400_000;

/// A page of notifications.
#[derive(Object)]
pub(crate) struct Notifications {
    /// The notifications.
    data: Vec<Notification>,
    /// Which part of the list this is.
    meta: NotificationsMeta,
}

#[derive(Object)]
struct NotificationsMeta {
    /// From 1.
    current_page: usize,
    /// How many a page shows at most.
    per_page: usize,
    /// How many there are.
    total: i64,
    /// True where there are more than `total`, which is as far as they were counted.
    total_at_least: bool,
    /// Where the next page starts; null on the last. Costs the same at every depth.
    #[oai(nullable)]
    next_cursor: Option<String>,
}

/// The query as it came.
pub(super) struct Asked {
    pub(super) status: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) priority: Option<String>,
    pub(super) batch_id: Option<String>,
    pub(super) recipient: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) event_id: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) page: Option<String>,
    pub(super) per_page: Option<String>,
    pub(super) cursor: Option<String>,
}

/// The query as it is understood.
struct Understood {
    filter: Filter,
    page: usize,
    per_page: usize,
    before: Option<NotificationId>,
}

impl Asked {
    fn understand(self) -> Result<Understood, Fault> {
        let mut faults = Faults::default();
        let mut indexes = Vec::new();
        let batch = read("batch_id", self.batch_id.as_deref(), &mut faults, |text| {
            text.parse::<BatchId>().ok()
        });
        indexes.extend(batch.map(|id| Index::Batch(id.to_string())));
        let event = read("event_id", self.event_id.as_deref(), &mut faults, |text| {
            text.parse::<EventId>().ok()
        });
        indexes.extend(event.map(|id| Index::Event(id.to_string())));
        indexes.extend(given(self.recipient).map(Index::Recipient));
        indexes.extend(given(self.correlation_id).map(Index::Correlation));
        if indexes.len() > 1 {
            let text =
                "Only one of batch_id, event_id, recipient and correlation_id can be asked for.";
            faults.add("filter", text);
        }
        let filter = Filter {
            status: read("status", self.status.as_deref(), &mut faults, |text| {
                text.parse().ok()
            }),
            channel: read("channel", self.channel.as_deref(), &mut faults, |text| {
                text.parse().ok()
            }),
            priority: read("priority", self.priority.as_deref(), &mut faults, |text| {
                text.parse().ok()
            }),
            index: indexes.pop(),
            from: read("from", self.from.as_deref(), &mut faults, time::parse),
            until: read("to", self.to.as_deref(), &mut faults, time::end),
        };
        let per_page = per_page(self.per_page.as_deref(), &mut faults);
        let page = page(self.page.as_deref(), per_page, &mut faults);
        let before = read("cursor", self.cursor.as_deref(), &mut faults, |text| {
            text.parse().ok()
        });
        faults.none()?;
        Ok(Understood {
            filter,
            page,
            per_page,
            before,
        })
    }
}

pub(super) async fn list(api: &Api, asked: Asked) -> Result<Notifications, Fault> {
    let Understood {
        filter,
        page,
        per_page,
        before,
    } = asked.understand()?;
    let (total, total_at_least) = total(api, &filter).await?;
    let some = |before, most| api.store.list_notifications(&filter, before, most);
    let shown = turn_to(before, page, per_page, some).await?;
    let meta = NotificationsMeta {
        current_page: page,
        per_page,
        total,
        total_at_least,
        next_cursor: shown.next.map(|id| id.to_string()),
    };
    Ok(Notifications {
        data: shown.items.iter().map(full).collect(),
        meta,
    })
}

/// How many there are, and whether there are more than that.
async fn total(api: &Api, filter: &Filter) -> Result<(i64, bool), Fault> {
    let whole_days = [filter.from, filter.until]
        .into_iter()
        .flatten()
        .all(|at| at % DAY_MS == 0);
    if filter.index.is_none() && whole_days {
        let counted = counted(api, |key| {
            let day = i64::from(key.day) * DAY_MS;
            filter.status.is_none_or(|status| key.status == status)
                && filter.channel.is_none_or(|channel| key.channel == channel)
                && filter
                    .priority
                    .is_none_or(|priority| key.priority == priority)
                && filter.from.is_none_or(|from| day >= from)
                && filter.until.is_none_or(|until| day < until)
        });
        return Ok((counted.await?, false));
    }
    let (total, more) =
        count(|before, most| api.store.list_notifications(filter, before, most)).await?;
    Ok((total as i64, more))
}

/// How many notifications are in such cells: from the exact counts that materialize keeps.
pub(crate) async fn counted(api: &Api, is_such: impl Fn(&CountKey) -> bool) -> Result<i64, Fault> {
    let mut total = 0;
    for shard in 0..api.store.layout().await?.status_shards {
        let totals = api.store.totals(Counted::Status(shard as i32)).await?;
        let counts = totals.counts.iter().filter(|(key, _)| is_such(key));
        total += counts.map(|(_, number)| number).sum::<i64>();
    }
    Ok(total)
}
