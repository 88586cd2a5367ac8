//! Lists, newest first: a merge of the shards of one bucket after the other, the newest first.
//!
//! A page costs what lies on it, plus what the filter leaves out on the way; that is bounded, so a
//! page may be short of what was asked for and still name a next one.

use std::cmp::Reverse;

use herald_schemas::{
    ids::{NotificationId, UnixMs},
    rows::{Filter, Index, NotificationRow, Page},
};

use super::{Connected, Listed, notifications};
use crate::{Layout, StoreError};

/// How many entries one call looks at before it answers with what it has.
const MOST_SCANNED: usize = 50_000;
/// How many entries a round of questions counts as when it brings fewer: it takes its time as well.
const LEAST_SCANNED: usize = 100;
/// How many of a shard are asked for at once when a filter leaves some out.
const SCANNED_AT_ONCE: usize = 500;

/// How many buckets of an index are asked at once.
const BUCKETS_AT_ONCE: usize = 16;

/// After every id.
const LAST: [u8; 16] = [0xff; 16];

/// The ids that a list goes through: from `lowest` on, below `upper`.
#[derive(Clone, Copy)]
struct Span {
    lowest: [u8; 16],
    upper: [u8; 16],
}

impl Span {
    fn of(filter: &Filter, before: Option<NotificationId>) -> Self {
        let first = |at: UnixMs| *NotificationId::first_at(at).as_bytes();
        let upper = [before.map(|id| *id.as_bytes()), filter.until.map(first)];
        Self {
            lowest: filter.from.map_or([0; 16], first),
            upper: upper.into_iter().flatten().min().unwrap_or(LAST),
        }
    }

    /// The buckets it touches, the first and the last.
    fn buckets(&self, layout: Layout) -> (i64, i64) {
        let of = |id: &[u8; 16]| layout.bucket(ms(id));
        (of(&self.lowest), of(&self.upper))
    }
}

/// The time inside an id.
fn ms(id: &[u8; 16]) -> UnixMs {
    let (time, _) = id.split_at(6);
    time.iter()
        .fold(0, |ms, byte| ms << 8 | UnixMs::from(*byte))
}

/// What was found so far, newest first.
struct Found {
    ids: Vec<NotificationId>,
    wanted: usize,
    scanned: usize,
}

impl Found {
    fn is_enough(&self) -> bool {
        self.ids.len() >= self.wanted
    }

    fn is_too_much(&self) -> bool {
        self.scanned >= MOST_SCANNED
    }
}

pub(super) async fn notifications(
    store: &Connected,
    filter: &Filter,
    before: Option<NotificationId>,
    limit: usize,
) -> Result<Page<NotificationRow>, StoreError> {
    match &filter.index {
        None => by_time(store, filter, before, limit).await,
        Some(index) => by_index(store, filter, index, before, limit).await,
    }
}

/// The rows of these ids as a page of at most `limit`. `resume` is where a list that gave up early
/// goes on.
async fn page(
    store: &Connected,
    mut ids: Vec<NotificationId>,
    limit: usize,
    resume: Option<NotificationId>,
) -> Result<Page<NotificationRow>, StoreError> {
    let more = ids.len() > limit;
    ids.truncate(limit);
    let last = ids.last().copied();
    let rows = notifications::read(store, &ids).await?;
    Ok(Page {
        items: rows.into_iter().flatten().collect(),
        next: if more { last } else { resume },
    })
}

async fn by_time(
    store: &Connected,
    filter: &Filter,
    before: Option<NotificationId>,
    limit: usize,
) -> Result<Page<NotificationRow>, StoreError> {
    let mut span = Span::of(filter, before);
    let (first, last) = span.buckets(store.layout);
    let mut found = Found {
        ids: Vec::new(),
        // One more than asked for says that there is a next page.
        wanted: limit.saturating_add(1),
        scanned: 0,
    };
    for bucket in buckets(store, Listed::Notifications, first, last).await? {
        loop {
            let horizon = scan_bucket(store, bucket, span, filter, &mut found).await?;
            if found.is_enough() {
                return page(store, found.ids, limit, None).await;
            }
            if found.is_too_much() {
                let bucket_start = NotificationId::first_at(store.layout.bucket_start(bucket));
                let resume = horizon.map_or(bucket_start, id_of);
                return page(store, found.ids, limit, Some(resume)).await;
            }
            let Some(horizon) = horizon else { break };
            span.upper = horizon;
        }
    }
    page(store, found.ids, limit, None).await
}

/// An id and what a list is filtered by; some of that is missing while a row expires.
type Entry = (Vec<u8>, Option<String>, Option<String>, Option<String>);

/// Adds what the shards of a bucket have within the span. Answers down to where they were all read,
/// that included; none: to the end.
async fn scan_bucket(
    store: &Connected,
    bucket: i64,
    span: Span,
    filter: &Filter,
    found: &mut Found,
) -> Result<Option<[u8; 16]>, StoreError> {
    let filters = filter.status.is_some() || filter.channel.is_some() || filter.priority.is_some();
    let wanted = found.wanted - found.ids.len();
    let each = if filters {
        wanted.max(SCANNED_AT_ONCE)
    } else {
        wanted
    }
    .min(i32::MAX as usize);
    let shards = 0..store.layout.status_shards as i32;
    let (lowest, upper) = (span.lowest.as_slice(), span.upper.as_slice());
    let each_shard = shards.map(|shard| (bucket, shard, lowest, upper, each as i32));
    let shards: Vec<Vec<Entry>> = store
        .session
        .rows_of_each(&store.statements.scan_notifications, each_shard.collect())
        .await?;
    // A shard that gave as many as it was asked for may have more below its last one.
    let ends = shards.iter().filter(|shard| shard.len() == each);
    let horizon = ends.filter_map(|shard| id_bytes(&shard.last()?.0)).max();
    let mut entries: Vec<([u8; 16], Entry)> = shards
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((id_bytes(&entry.0)?, entry)))
        .filter(|(id, _)| horizon.is_none_or(|horizon| *id >= horizon))
        .collect();
    entries.sort_unstable_by_key(|(id, _)| Reverse(*id));
    found.scanned += entries.len().max(LEAST_SCANNED);
    let kept = entries.into_iter().filter(|(_, entry)| {
        let (_, status, channel, priority) = entry;
        let is = |wanted: Option<&str>, have: Option<&str>| {
            wanted.is_none_or(|wanted| have == Some(wanted))
        };
        is(filter.status.map(|word| word.as_str()), status.as_deref())
            && is(filter.channel.map(|word| word.as_str()), channel.as_deref())
            && is(
                filter.priority.map(|word| word.as_str()),
                priority.as_deref(),
            )
    });
    found.ids.extend(kept.map(|(id, _)| id_of(id)));
    Ok(horizon)
}

fn id_bytes(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

fn id_of(bytes: [u8; 16]) -> NotificationId {
    NotificationId::from_uuid(uuid::Uuid::from_bytes(bytes))
}

/// The buckets between two that are not empty, the newest first.
pub(super) async fn buckets(
    store: &Connected,
    listed: Listed,
    first: i64,
    last: i64,
) -> Result<Vec<i64>, StoreError> {
    let rows: Vec<(i64,)> = store
        .session
        .all_rows(
            &store.statements.scan_buckets,
            (listed.as_str(), first, last),
        )
        .await?;
    Ok(rows.into_iter().map(|(bucket,)| bucket).collect())
}

async fn by_index(
    store: &Connected,
    filter: &Filter,
    index: &Index,
    before: Option<NotificationId>,
    limit: usize,
) -> Result<Page<NotificationRow>, StoreError> {
    let mut span = Span::of(filter, before);
    let mut in_buckets = index_buckets(store, index, span).await?;
    let (mut items, mut scanned) = (Vec::new(), 0_usize);
    loop {
        let wanted = (limit + 1 - items.len()).max(100);
        let ids = index_entries(store, index, &in_buckets, span, wanted).await?;
        let at_end = ids.len() < wanted;
        scanned += ids.len();
        let rows = notifications::read(store, &ids).await?;
        let keeps = |row: &NotificationRow| {
            filter.status.is_none_or(|status| row.status == status)
                && filter
                    .channel
                    .is_none_or(|channel| row.identity.channel == channel)
                && filter
                    .priority
                    .is_none_or(|priority| row.identity.priority == priority)
        };
        items.extend(rows.into_iter().flatten().filter(keeps));
        if items.len() > limit {
            items.truncate(limit);
            let next = items.last().map(NotificationRow::id);
            return Ok(Page { items, next });
        }
        let Some(last) = ids.last().filter(|_| !at_end) else {
            return Ok(Page { items, next: None });
        };
        if scanned >= MOST_SCANNED {
            let next = Some(*last);
            return Ok(Page { items, next });
        }
        span.upper = *last.as_bytes();
        if store.layout.index_bucket_of(index).is_none() {
            let newest = Layout::widened(store.layout.bucket(last.unix_ms()));
            in_buckets.retain(|bucket| *bucket <= newest);
        }
    }
}

/// The buckets that an index entry may have ids of the span in, the newest first.
async fn index_buckets(
    store: &Connected,
    index: &Index,
    span: Span,
) -> Result<Vec<i64>, StoreError> {
    if let Some(bucket) = store.layout.index_bucket_of(index) {
        return Ok(vec![bucket]);
    }
    let (first, last) = span.buckets(store.layout);
    let all = buckets(store, Listed::Notifications, first, last).await?;
    let mut wide: Vec<i64> = all.into_iter().map(Layout::widened).collect();
    wide.dedup();
    Ok(wide)
}

/// The newest `wanted` ids of an index entry within the span.
async fn index_entries(
    store: &Connected,
    index: &Index,
    in_buckets: &[i64],
    span: Span,
    wanted: usize,
) -> Result<Vec<NotificationId>, StoreError> {
    let (kind, value) = index.parts();
    let shard = store.layout.index_shard(value) as i32;
    let (lowest, upper) = (span.lowest.as_slice(), span.upper.as_slice());
    let most = wanted.min(i32::MAX as usize) as i32;
    let mut ids = Vec::new();
    for in_buckets in in_buckets.chunks(BUCKETS_AT_ONCE) {
        let each = in_buckets
            .iter()
            .map(|bucket| (kind, *bucket, shard, value, lowest, upper, most));
        let found: Vec<Vec<(Vec<u8>,)>> = store
            .session
            .rows_of_each(&store.statements.scan_refs, each.collect())
            .await?;
        let found = found.iter().flatten();
        ids.extend(found.filter_map(|(id,)| id_bytes(id)).map(id_of));
        if ids.len() >= wanted {
            break;
        }
    }
    ids.truncate(wanted);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_what_filter_and_cursor_leave() {
        let cursor = NotificationId::first_at(7_200_000);
        let filter = Filter {
            from: Some(3_600_000),
            until: Some(9_000_000),
            ..Filter::default()
        };
        let layout = Layout {
            status_shards: 1,
            claim_shards: 1,
            bucket_minutes: 60,
            retention_days: 90,
        };
        assert_eq!(Span::of(&filter, None).buckets(layout), (1, 2));
        assert_eq!(
            Span::of(&filter, Some(cursor)).upper,
            *cursor.as_bytes(),
            "the cursor is below the filter's end"
        );
        let all = Span::of(&Filter::default(), None);
        assert_eq!(all.buckets(layout).0, 0);
        assert_eq!(ms(&LAST), (1 << 48) - 1);
    }
}
