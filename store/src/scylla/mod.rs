//! The store in ScyllaDB, or in Cassandra, for any number of machines.
//!
//! * `session`: the connection, statements run singly and in batches.
//! * `errors`: what its errors mean.
//! * `tables`: the keyspace, the tables and their versions, and the statements on them.
//! * `notifications`, `list`, `pipeline`, `cancels`, `keys`, `schedules`, `events`,
//!   `dead_letters`, `catalog`: what the store's methods do.
//!
//! Reads and writes are at QUORUM, conditional writes at SERIAL. Only CQL that both databases speak.

mod cancels;
mod catalog;
mod dead_letters;
mod errors;
mod events;
mod keys;
mod list;
mod notifications;
mod pipeline;
mod schedules;
mod session;
mod tables;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use herald_schemas::{
    catalog::Catalog,
    codec::{Codec, Framing},
    ids::{ApiKeyId, BatchId, DeadLetterId, EventId, NotificationId, UnixMs},
    records::{Attempt, BatchAccepted, DeadLetter, Event, EventMatched},
    rows::{
        CountKey, DeadLetterRow, EventFilter, EventHead, EventRow, Filter, LetterFilter,
        NotificationRow, Order, Page, RowWrite, Tally,
    },
};
use herald_telemetry::RoundTrips;
use prometheus::core::Collector;
use tokio::{sync::OnceCell, time::timeout};

pub use self::session::{ScyllaSettings, Tls};
use self::{
    session::{Session, Trips},
    tables::Statements,
};
use crate::{
    CancelMark, CatalogChange, CatalogOutcome, Claim, Claimed, Counted, Due, KeyClaim, KeyHeld,
    Layout, Outcome, Race, RaceEnd, ScheduledRow, Standing, Store, StoreError, Totals, round_trips,
};

/// A keyspace of a ScyllaDB or Cassandra cluster. It is connected to when it is first used, and
/// again, by the driver, whenever nodes come back.
pub struct ScyllaStore {
    settings: ScyllaSettings,
    connected: OnceCell<Connected>,
    codec: Codec,
    round_trips: RoundTrips,
    trips: Trips,
}

/// A session in the keyspace, and what is known about it.
struct Connected {
    session: Session,
    statements: Statements,
    layout: Layout,
    buckets: KnownBuckets,
    codec: Codec,
}

impl ScyllaStore {
    /// A store by these settings; nothing is asked of the cluster yet.
    pub fn new(settings: ScyllaSettings) -> Result<Self, StoreError> {
        let codec = Codec::new(&Framing::SingleObject)
            .map_err(|error| StoreError::Fatal(error.to_string()))?;
        let round_trips = round_trips()?;
        Ok(Self {
            trips: Trips::new(&round_trips),
            round_trips,
            settings,
            connected: OnceCell::new(),
            codec,
        })
    }

    /// How long the cluster takes to answer, for the registry that shows it.
    pub fn round_trips(&self) -> Box<dyn Collector> {
        self.round_trips.collector()
    }

    async fn connected(&self) -> Result<&Connected, StoreError> {
        self.connected.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connected, StoreError> {
        let session = Session::connect(&self.settings, self.trips.clone()).await?;
        let layout = tables::check(&session).await?;
        Ok(Connected {
            statements: Statements::prepare(&session).await?,
            session,
            layout,
            buckets: KnownBuckets::default(),
            codec: self.codec.clone(),
        })
    }
}

#[async_trait]
impl Store for ScyllaStore {
    async fn setup(&self, layout: Layout) -> Result<(), StoreError> {
        let session = Session::connect(&self.settings, self.trips.clone()).await?;
        tables::set_up(&session, &self.settings, layout).await
    }

    async fn layout(&self) -> Result<Layout, StoreError> {
        Ok(self.connected().await?.layout)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let patience = Duration::from_secs(2);
        let answer = async { self.connected().await?.session.ping().await };
        timeout(patience, answer).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!(
                "no answer within {patience:?}"
            )))
        })
    }

    async fn notifications(
        &self,
        ids: &[NotificationId],
    ) -> Result<Vec<Option<NotificationRow>>, StoreError> {
        notifications::read(self.connected().await?, ids).await
    }

    async fn write_notifications(&self, writes: &[RowWrite], stamp: i64) -> Result<(), StoreError> {
        notifications::write(self.connected().await?, writes, stamp).await
    }

    async fn calls(&self, id: NotificationId) -> Result<Vec<Attempt>, StoreError> {
        notifications::calls(self.connected().await?, id).await
    }

    async fn list_notifications(
        &self,
        filter: &Filter,
        before: Option<NotificationId>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, StoreError> {
        list::notifications(self.connected().await?, filter, before, limit).await
    }

    async fn totals(&self, of: Counted) -> Result<Totals, StoreError> {
        pipeline::totals(self.connected().await?, of).await
    }

    async fn advance_totals(
        &self,
        of: Counted,
        from: i64,
        to: i64,
        counts: &[(CountKey, i64)],
        tallies: &[(Tally, i64)],
    ) -> Result<bool, StoreError> {
        let store = self.connected().await?;
        pipeline::advance_totals(store, of, (from, to), counts, tallies).await
    }

    async fn claim(
        &self,
        claims: &[Claim],
        outcomes: &[Outcome],
    ) -> Result<Vec<Claimed>, StoreError> {
        pipeline::claim(self.connected().await?, claims, outcomes).await
    }

    async fn mark_cancelled(&self, marks: &[CancelMark]) -> Result<Vec<Standing>, StoreError> {
        cancels::mark(self.connected().await?, marks).await
    }

    async fn unmark_cancelled(&self, marks: &[CancelMark]) -> Result<(), StoreError> {
        cancels::unmark(self.connected().await?, marks).await
    }

    async fn end_race(&self, race: &Race, proposal: RaceEnd) -> Result<RaceEnd, StoreError> {
        cancels::end_race(self.connected().await?, race, proposal).await
    }

    async fn take_keys(&self, claims: &[KeyClaim]) -> Result<Vec<KeyHeld>, StoreError> {
        keys::take(self.connected().await?, claims).await
    }

    async fn lease_key(
        &self,
        scope: &str,
        key: &str,
        seen: &KeyHeld,
        leased_until: UnixMs,
    ) -> Result<bool, StoreError> {
        keys::lease(self.connected().await?, scope, key, seen, leased_until).await
    }

    async fn answer_key(
        &self,
        scope: &str,
        key: &str,
        held: &KeyHeld,
        answer: &[u8],
    ) -> Result<(), StoreError> {
        keys::answer(self.connected().await?, scope, key, held, answer).await
    }

    async fn note_api_key_use(&self, id: ApiKeyId, at: UnixMs) -> Result<(), StoreError> {
        keys::note_use(self.connected().await?, id, at).await
    }

    async fn api_key_uses(&self, ids: &[ApiKeyId]) -> Result<Vec<Option<UnixMs>>, StoreError> {
        keys::uses(self.connected().await?, ids).await
    }

    async fn own_schedule(&self, shard: i32, owner: &str, now: UnixMs) -> Result<Due, StoreError> {
        schedules::own(self.connected().await?, shard, owner, now).await
    }

    async fn put_scheduled(&self, shard: i32, rows: &[ScheduledRow]) -> Result<(), StoreError> {
        schedules::put(self.connected().await?, shard, rows).await
    }

    async fn due_scheduled(
        &self,
        shard: i32,
        from: Due,
        now: UnixMs,
        limit: usize,
    ) -> Result<Vec<ScheduledRow>, StoreError> {
        schedules::due(self.connected().await?, shard, from, now, limit).await
    }

    async fn advance_schedule(&self, shard: i32, owner: &str, to: Due) -> Result<bool, StoreError> {
        schedules::advance(self.connected().await?, shard, owner, to).await
    }

    async fn write_events(&self, events: &[(EventId, Event)]) -> Result<(), StoreError> {
        events::write(self.connected().await?, events).await
    }

    async fn write_matches(&self, matches: &[EventMatched]) -> Result<(), StoreError> {
        events::write_matches(self.connected().await?, matches).await
    }

    async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        events::read(self.connected().await?, id).await
    }

    async fn list_events(
        &self,
        filter: &EventFilter,
        before: Option<EventId>,
        limit: usize,
    ) -> Result<Page<EventHead, EventId>, StoreError> {
        events::list(self.connected().await?, filter, before, limit).await
    }

    async fn write_batches(&self, batches: &[BatchAccepted]) -> Result<(), StoreError> {
        pipeline::write_batches(self.connected().await?, batches).await
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchAccepted>, StoreError> {
        pipeline::batch(self.connected().await?, id).await
    }

    async fn write_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        dead_letters::write(self.connected().await?, letters).await
    }

    async fn has_dead_letters(&self, ids: &[DeadLetterId]) -> Result<Vec<bool>, StoreError> {
        dead_letters::has(self.connected().await?, ids).await
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterRow>, StoreError> {
        dead_letters::read(self.connected().await?, id).await
    }

    async fn list_dead_letters(
        &self,
        filter: &LetterFilter,
        order: Order,
        past: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Page<DeadLetterRow, DeadLetterId>, StoreError> {
        dead_letters::list(self.connected().await?, filter, order, past, limit).await
    }

    async fn note_requeued(
        &self,
        requeued: &[(DeadLetterId, NotificationId)],
    ) -> Result<(), StoreError> {
        dead_letters::note_requeued(self.connected().await?, requeued).await
    }

    async fn catalog_version(&self) -> Result<i64, StoreError> {
        catalog::version(self.connected().await?).await
    }

    async fn catalog(&self) -> Result<Catalog, StoreError> {
        catalog::read(self.connected().await?).await
    }

    async fn change_catalog(&self, change: CatalogChange) -> Result<CatalogOutcome, StoreError> {
        catalog::change(self.connected().await?, &change).await
    }

    /// Rows are written with the time they have to live: the database drops them.
    async fn expire(&self, _now_ms: i64) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What lies in buckets that a list walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Listed {
    Notifications,
    DeadLetters,
    Events,
}

impl Listed {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::DeadLetters => "dead letters",
            Self::Events => "events",
        }
    }
}

/// The buckets that this process has written down as not empty, and how long that note lives.
///
/// A list asks for those instead of trying every hour of three months.
#[derive(Default)]
struct KnownBuckets(Mutex<HashMap<(Listed, i64), UnixMs>>);

/// How many buckets are remembered; beyond, they are written down again.
const MOST_KNOWN: usize = 10_000;

/// By how much a note may live shorter than a row in its bucket wants, before it is renewed: so it
/// is written this much longer, and not anew for every row.
const NOTE_MARGIN_MS: i64 = 86_400_000;

impl KnownBuckets {
    /// Whether the bucket has to be written down for rows that live until `until`.
    fn lacks(&self, listed: Listed, bucket: i64, until: UnixMs) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&(listed, bucket))
            .is_none_or(|noted| *noted < until)
    }

    fn add(&self, listed: Listed, bucket: i64, until: UnixMs) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert((listed, bucket), until);
    }
}

impl Connected {
    /// Until when something is kept that is written now, and the seconds that it has to live.
    fn kept_from(&self, now: UnixMs) -> (UnixMs, i32) {
        let until = self.layout.kept_beside(None, now);
        (until, ttl(until, now))
    }

    /// Writes down that there are rows in these buckets; before the rows themselves are written.
    async fn note_buckets(
        &self,
        listed: Listed,
        buckets: impl IntoIterator<Item = (i64, UnixMs)>,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut latest: HashMap<i64, UnixMs> = HashMap::new();
        for (bucket, until) in buckets {
            let noted = latest.entry(bucket).or_insert(until);
            *noted = until.max(*noted);
        }
        for (bucket, until) in latest {
            let until = end(until, now);
            if self.buckets.lacks(listed, bucket, until) {
                let until = end(until.saturating_add(NOTE_MARGIN_MS), now);
                // Of the notes of several processes the one that lives longest has to stand, so its
                // end is its timestamp. In milliseconds: as microseconds that is long ago, and
                // ScyllaDB takes none that is ahead of its clock.
                let values = (ttl(until, now), until, until, listed.as_str(), bucket);
                self.session
                    .execute(&self.statements.note_bucket, values)
                    .await?;
                self.buckets.add(listed, bucket, until);
            }
        }
        Ok(())
    }
}

/// The shortest time to live that is given: to a row of which the clock says that it is too old
/// already.
const SHORTEST_MS: i64 = 3_600_000;
/// 2038-01-01. Cassandra refuses what ends after the 19th, unless it has been told that it need not
/// be read by its version 4.
const LAST_END: UnixMs = 2_145_916_800_000;
/// What the databases take for a row that stays.
const FOR_EVER: i32 = 0;

/// When something ends that is wanted until `until`, which can be any time.
fn end(until: UnixMs, now: UnixMs) -> UnixMs {
    until.clamp(now + SHORTEST_MS, LAST_END.max(now + SHORTEST_MS))
}

/// Seconds from `now` to when something ends that is wanted until `until`. What is to live longer
/// than the databases can count is kept for ever: better that than gone before its time.
fn ttl(until: UnixMs, now: UnixMs) -> i32 {
    let end = end(until, now);
    if end >= LAST_END {
        return FOR_EVER;
    }
    ((end - now + 999) / 1_000) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_what_the_databases_take() {
        let now = 1_800_000_000_000;
        assert_eq!(ttl(now + 7_200_000, now), 7_200);
        assert_eq!(ttl(now + 7_200_001, now), 7_201);
        assert_eq!(ttl(0, now), 3_600);
        assert_eq!(ttl(i64::MIN, now), 3_600);
        assert_eq!(ttl(i64::MAX, now), FOR_EVER);
        assert_eq!(ttl(now, LAST_END), FOR_EVER);
    }

    #[test]
    fn a_bucket_is_noted_again_only_when_its_note_ends_too_soon() {
        let known = KnownBuckets::default();
        assert!(known.lacks(Listed::Notifications, 7, 100));
        known.add(Listed::Notifications, 7, 100);
        assert!(!known.lacks(Listed::Notifications, 7, 100));
        assert!(known.lacks(Listed::Notifications, 7, 101));
        assert!(known.lacks(Listed::DeadLetters, 7, 100));
    }
}
