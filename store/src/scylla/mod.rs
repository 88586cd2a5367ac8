//! The store in ScyllaDB, or in Cassandra, for any number of machines.
//!
//! * `session`: the connection, what its errors mean, statements run singly and in batches.
//! * `tables`: the keyspace, the tables and their versions, and the statements on them.
//! * `notifications`, `list`, `pipeline`, `catalog`: what the store's methods do.
//!
//! Reads and writes are at QUORUM, conditional writes at SERIAL. Only CQL that both databases speak.

mod catalog;
mod list;
mod notifications;
mod pipeline;
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
    ids::{DeadLetterId, EventId, NotificationId, UnixMs},
    records::{Attempt, Event, EventMatched},
    rows::{CountKey, DeadLetterRow, EventRow, Filter, NotificationRow, Page, RowWrite},
};
use tokio::{sync::OnceCell, time::timeout};

pub use self::session::{ScyllaSettings, Tls};
use self::{session::Session, tables::Statements};
use crate::{
    CatalogChange, CatalogOutcome, Claim, Claimed, Layout, Outcome, Store, StoreError, Totals,
};

/// A keyspace of a ScyllaDB or Cassandra cluster. It is connected to when it is first used, and
/// again, by the driver, whenever nodes come back.
pub struct ScyllaStore {
    settings: ScyllaSettings,
    connected: OnceCell<Connected>,
    codec: Codec,
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
        Ok(Self {
            settings,
            connected: OnceCell::new(),
            codec,
        })
    }

    async fn connected(&self) -> Result<&Connected, StoreError> {
        self.connected.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connected, StoreError> {
        let session = Session::connect(&self.settings).await?;
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
        let session = Session::connect(&self.settings).await?;
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

    async fn totals(&self, partition: i32) -> Result<Totals, StoreError> {
        pipeline::totals(self.connected().await?, partition).await
    }

    async fn advance_totals(
        &self,
        partition: i32,
        from: i64,
        to: i64,
        changes: &[(CountKey, i64)],
    ) -> Result<bool, StoreError> {
        pipeline::advance_totals(self.connected().await?, partition, from, to, changes).await
    }

    async fn claim(
        &self,
        claims: &[Claim],
        outcomes: &[Outcome],
    ) -> Result<Vec<Claimed>, StoreError> {
        pipeline::claim(self.connected().await?, claims, outcomes).await
    }

    async fn write_events(&self, events: &[(EventId, Event)]) -> Result<(), StoreError> {
        pipeline::write_events(self.connected().await?, events).await
    }

    async fn write_matches(&self, matches: &[EventMatched]) -> Result<(), StoreError> {
        pipeline::write_matches(self.connected().await?, matches).await
    }

    async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        pipeline::event(self.connected().await?, id).await
    }

    async fn write_dead_letters(&self, letters: &[DeadLetterRow]) -> Result<(), StoreError> {
        pipeline::write_dead_letters(self.connected().await?, letters).await
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterRow>, StoreError> {
        pipeline::dead_letter(self.connected().await?, id).await
    }

    async fn list_dead_letters(
        &self,
        before: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetterRow>, StoreError> {
        list::dead_letters(self.connected().await?, before, limit).await
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
}

impl Listed {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::DeadLetters => "dead letters",
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
            if self.buckets.lacks(listed, bucket, until) {
                let until = until + NOTE_MARGIN_MS;
                let values = (listed.as_str(), bucket, ttl(until, now));
                self.session
                    .execute(&self.statements.note_bucket, values)
                    .await?;
                self.buckets.add(listed, bucket, until);
            }
        }
        Ok(())
    }
}

/// The longest time to live that the databases take, in seconds: 20 years.
const LONGEST_TTL: i64 = 20 * 365 * 86_400;
/// The shortest that is given: a row of which the clock says that it is too old already.
const SHORTEST_TTL: i64 = 3_600;

/// Seconds from `now` to `until`.
fn ttl(until: UnixMs, now: UnixMs) -> i32 {
    let seconds = until.saturating_sub(now).saturating_add(999) / 1_000;
    seconds.clamp(SHORTEST_TTL, LONGEST_TTL) as i32
}

/// The time, for what is to live from now on.
fn now() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as UnixMs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_what_the_databases_take() {
        assert_eq!(ttl(1_000 + 7_200_000, 1_000), 7_200);
        assert_eq!(ttl(7_200_001, 0), 7_201);
        assert_eq!(i64::from(ttl(0, 1_700_000_000_000)), SHORTEST_TTL);
        assert_eq!(i64::from(ttl(i64::MAX, 0)), LONGEST_TTL);
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
