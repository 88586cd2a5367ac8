//! Dead letters: the whole record, and beside it what a list shows.

use std::collections::HashSet;

use herald_schemas::{
    codec::Codec,
    ids::{DeadLetterId, NotificationId},
    records::DeadLetter,
    rows::{DeadLetterRow, LetterFilter, Order, Page},
};
use uuid::Uuid;

use super::{Connected, Listed, list::buckets};
use crate::{MOST_SCANNED, StoreError, encoded, now};

/// How many of a shard are asked for at once.
const SCANNED_AT_ONCE: usize = 200;

pub(super) async fn write(store: &Connected, letters: &[DeadLetter]) -> Result<(), StoreError> {
    let now = now();
    let (until, ttl) = store.kept_from(now);
    let buckets = letters
        .iter()
        .map(|letter| (store.layout.bucket(letter.id.unix_ms()), until));
    store
        .note_buckets(Listed::DeadLetters, buckets, now)
        .await?;
    let rows: Vec<_> = letters
        .iter()
        .map(|letter| {
            let id = letter.id;
            let (bucket, shard) = store.place_of(id.unix_ms(), id.as_bytes());
            let (body, head) = encoded(&store.codec, letter)?;
            let bytes = body.len() + head.len();
            let values = (ttl, body, head, bucket, shard, id.as_bytes().to_vec());
            Ok(((bucket, shard), bytes, values))
        })
        .collect::<Result<_, StoreError>>()?;
    store
        .session
        .write(&store.statements.put_dead_letter, rows)
        .await
}

pub(super) async fn has(store: &Connected, ids: &[DeadLetterId]) -> Result<Vec<bool>, StoreError> {
    let placed = ids.iter().map(|id| {
        let place = store.place_of(id.unix_ms(), id.as_bytes());
        (place, *id.as_bytes())
    });
    let found: Vec<(Vec<u8>, Option<i64>)> = store
        .session
        .rows_of_ids(&store.statements.get_letters_written, placed)
        .await?;
    // Of a letter that is not there, there may be the mark.
    let there: HashSet<Vec<u8>> = found
        .into_iter()
        .filter_map(|(id, written)| written.map(|_| id))
        .collect();
    Ok(ids
        .iter()
        .map(|id| there.contains(id.as_bytes().as_slice()))
        .collect())
}

/// The record and the mark of a row.
type Cells = (Option<Vec<u8>>, Option<Vec<u8>>);

/// None: only the mark is there, of a letter that is not.
fn row(codec: &Codec, (record, requeued_as): Cells) -> Result<Option<DeadLetterRow>, StoreError> {
    let Some(record) = record else {
        return Ok(None);
    };
    let letter = codec
        .decode(&record)
        .map_err(|error| StoreError::Fatal(format!("dead_letters: {error}")))?;
    let id = |bytes: Vec<u8>| Some(NotificationId::from_uuid(Uuid::from_slice(&bytes).ok()?));
    Ok(Some(DeadLetterRow {
        letter,
        requeued_as: requeued_as.and_then(id),
    }))
}

pub(super) async fn read(
    store: &Connected,
    id: DeadLetterId,
) -> Result<Option<DeadLetterRow>, StoreError> {
    let (bucket, shard) = store.place_of(id.unix_ms(), id.as_bytes());
    let values = (bucket, shard, id.as_bytes().as_slice());
    let found: Option<Cells> = store
        .session
        .row(&store.statements.get_dead_letter, values)
        .await?;
    found.map_or(Ok(None), |cells| row(&store.codec, cells))
}

pub(super) async fn note_requeued(
    store: &Connected,
    requeued: &[(DeadLetterId, NotificationId)],
) -> Result<(), StoreError> {
    let (_, ttl) = store.kept_from(now());
    let rows = requeued.iter().map(|(letter, notification)| {
        let (bucket, shard) = store.place_of(letter.unix_ms(), letter.as_bytes());
        let as_ = notification.as_bytes().as_slice();
        let values = (ttl, as_, bucket, shard, letter.as_bytes().as_slice());
        ((bucket, shard), as_.len(), values)
    });
    store
        .session
        .write(&store.statements.note_requeued, rows)
        .await
}

pub(super) async fn list(
    store: &Connected,
    filter: &LetterFilter,
    order: Order,
    past: Option<DeadLetterId>,
    limit: usize,
) -> Result<Page<DeadLetterRow, DeadLetterId>, StoreError> {
    let mut span = Span::of(filter, order, past);
    let (first, last) = (
        store.layout.bucket(span.first.unix_ms()),
        store.layout.bucket(span.end.unix_ms()),
    );
    let mut in_buckets = buckets(store, Listed::DeadLetters, first, last).await?;
    if order == Order::Oldest {
        in_buckets.reverse();
    }
    let (mut items, mut scanned) = (Vec::new(), 0);
    for bucket in in_buckets {
        loop {
            let scan = scan(store, bucket, span).await?;
            for letter in scan.letters {
                if items.len() == limit || scanned == MOST_SCANNED {
                    let next = Some(span.past(order));
                    return Ok(Page { items, next });
                }
                scanned += 1;
                span.go_past(order, letter.letter.id);
                if filter.shows(&letter) {
                    items.push(letter);
                }
            }
            if !scan.more {
                break;
            }
        }
    }
    Ok(Page { items, next: None })
}

/// The letters that a list has yet to look at: from `first` on (beyond it, where the oldest come
/// first), below `end`.
#[derive(Clone, Copy)]
struct Span {
    order: Order,
    first: DeadLetterId,
    end: DeadLetterId,
}

impl Span {
    fn of(filter: &LetterFilter, order: Order, past: Option<DeadLetterId>) -> Self {
        let last = DeadLetterId::from_uuid(Uuid::max());
        let mut span = Self {
            order,
            first: filter
                .from
                .map_or(DeadLetterId::from_uuid(Uuid::nil()), DeadLetterId::first_at),
            end: filter.until.map_or(last, DeadLetterId::first_at),
        };
        if let Some(past) = past {
            span.go_past(order, past);
        }
        span
    }

    fn go_past(&mut self, order: Order, id: DeadLetterId) {
        match order {
            Order::Newest => self.end = id.min(self.end),
            Order::Oldest => self.first = id.max(self.first),
        }
    }

    fn past(&self, order: Order) -> DeadLetterId {
        match order {
            Order::Newest => self.end,
            Order::Oldest => self.first,
        }
    }
}

/// Some of a bucket's letters, in order, and whether there are more beyond them.
struct Scan {
    letters: Vec<DeadLetterRow>,
    more: bool,
}

async fn scan(store: &Connected, bucket: i64, span: Span) -> Result<Scan, StoreError> {
    let statements = &store.statements;
    let statement = match span.order {
        Order::Newest => &statements.scan_newest_letters,
        Order::Oldest => &statements.scan_oldest_letters,
    };
    let (first, end) = (
        span.first.as_bytes().as_slice(),
        span.end.as_bytes().as_slice(),
    );
    let each = (0..store.layout.status_shards as i32)
        .map(|shard| (bucket, shard, first, end, SCANNED_AT_ONCE as i32));
    let shards: Vec<Vec<Cells>> = store
        .session
        .rows_of_each(statement, each.collect())
        .await?;
    let mut letters: Vec<DeadLetterRow> = Vec::new();
    // A shard that gave as many as it was asked for may have more beyond its last one.
    let mut horizons = Vec::new();
    for cells in shards {
        let is_full = cells.len() == SCANNED_AT_ONCE;
        for cells in cells {
            letters.extend(row(&store.codec, cells)?);
        }
        if is_full {
            horizons.extend(letters.last().map(|row| row.letter.id));
        }
    }
    match span.order {
        Order::Newest => {
            let horizon = horizons.iter().max().copied();
            letters.retain(|row| horizon.is_none_or(|horizon| row.letter.id >= horizon));
            letters.sort_unstable_by_key(|row| std::cmp::Reverse(row.letter.id));
        }
        Order::Oldest => {
            let horizon = horizons.iter().min().copied();
            letters.retain(|row| horizon.is_none_or(|horizon| row.letter.id <= horizon));
            letters.sort_unstable_by_key(|row| row.letter.id);
        }
    }
    Ok(Scan {
        letters,
        more: !horizons.is_empty(),
    })
}
