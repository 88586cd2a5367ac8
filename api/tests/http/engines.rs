//! The embedded engines, so wrapped that a test sees what is written and can let things fail.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use herald_broker::{Acks, Broker, BrokerError, Outgoing, Producer, embedded::EmbeddedBroker};
use herald_runtime::setup::topics;
use herald_schemas::{
    catalog::Catalog,
    ids::{ApiKeyId, BatchId, DeadLetterId, EventId, NotificationId},
    records::{Attempt, BatchAccepted, DeadLetter, Event, EventMatched},
    rows::{
        CountKey, DeadLetterRow, EventFilter, EventHead, EventRow, Filter, LetterFilter,
        NotificationRow, Order, Page, RowWrite, Tally,
    },
    topics::Topics,
};
use herald_stages::retry::Ladder;
use herald_store::{
    CancelMark, CatalogChange, CatalogOutcome, Claim, Claimed, Counted, Due, KeyClaim, KeyHeld,
    Layout, Outcome, Race, RaceEnd, ScheduledRow, Standing, Store, StoreError, Totals,
    sqlite::SqliteStore,
};
use tempfile::TempDir;
use tokio::sync::RwLock;

/// A log and a store, set up; any number of APIs may work on them.
pub(crate) struct Engines {
    pub(crate) broker: Arc<EmbeddedBroker>,
    pub(crate) producer: Arc<Watched>,
    pub(crate) store: Arc<Unreadable>,
    _data: TempDir,
}

impl Engines {
    pub(crate) async fn open(names: &Topics, ladder: &Ladder) -> Self {
        let data = TempDir::new().unwrap();
        let broker = EmbeddedBroker::open(&data.path().join("log")).unwrap();
        let topics = topics(names, ladder, 1, Duration::from_secs(3_600));
        let specs: Vec<_> = topics.into_iter().map(|topic| topic.spec).collect();
        broker.setup(&specs).await.unwrap();
        let inner = SqliteStore::open(&data.path().join("store.db")).unwrap();
        let layout = Layout {
            status_shards: 1,
            claim_shards: 1,
            bucket_minutes: 60,
            retention_days: 90,
        };
        inner.setup(layout).await.unwrap();
        let producer = Arc::new(Watched {
            inner: broker.producer().await.unwrap(),
            batches: Mutex::default(),
            open: RwLock::new(()),
        });
        Self {
            broker,
            producer,
            store: Arc::new(Unreadable {
                inner,
                fails: AtomicBool::new(false),
            }),
            _data: data,
        }
    }
}

/// A producer whose batches can be seen, and held up.
pub(crate) struct Watched {
    inner: Arc<dyn Producer>,
    batches: Mutex<Vec<Vec<Outgoing>>>,
    /// Whoever holds it for writing holds up what is to be written.
    pub(crate) open: RwLock<()>,
}

impl Watched {
    /// What was handed over so far, whether or not it is held up.
    pub(crate) fn batches(&self) -> Vec<Vec<Outgoing>> {
        self.batches.lock().unwrap().clone()
    }
}

#[async_trait]
impl Producer for Watched {
    async fn enqueue(&self, batch: Vec<Outgoing>) -> Result<Acks, BrokerError> {
        self.batches.lock().unwrap().push(batch.clone());
        let _open = self.open.read().await;
        self.inner.enqueue(batch).await
    }
}

/// A store whose catalog cannot be read while `fails` is set. All else is the inner one's.
pub(crate) struct Unreadable {
    inner: SqliteStore,
    pub(crate) fails: AtomicBool,
}

impl Unreadable {
    fn read(&self) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("as the test wants it".to_owned()));
        }
        Ok(())
    }
}

macro_rules! store {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for Unreadable {
            async fn catalog_version(&self) -> Result<i64, StoreError> {
                self.read()?;
                self.inner.catalog_version().await
            }

            async fn catalog(&self) -> Result<Catalog, StoreError> {
                self.read()?;
                self.inner.catalog().await
            }

            $(async fn $name(&self, $($arg: $kind),*) -> Result<$answer, StoreError> {
                self.inner.$name($($arg),*).await
            })*
        }
    };
}

store! {
    setup(layout: Layout) -> ();
    layout() -> Layout;
    ping() -> ();
    notifications(ids: &[NotificationId]) -> Vec<Option<NotificationRow>>;
    write_notifications(writes: &[RowWrite], stamp: i64) -> ();
    calls(id: NotificationId) -> Vec<Attempt>;
    list_notifications(filter: &Filter, before: Option<NotificationId>, limit: usize)
        -> Page<NotificationRow>;
    totals(of: Counted) -> Totals;
    advance_totals(of: Counted, from: i64, to: i64, counts: &[(CountKey, i64)],
        tallies: &[(Tally, i64)]) -> bool;
    has_dead_letters(ids: &[DeadLetterId]) -> Vec<bool>;
    claim(claims: &[Claim], outcomes: &[Outcome]) -> Vec<Claimed>;
    write_events(events: &[(EventId, Event)]) -> ();
    write_matches(matches: &[EventMatched]) -> ();
    event(id: EventId) -> Option<EventRow>;
    list_events(filter: &EventFilter, before: Option<EventId>, limit: usize)
        -> Page<EventHead, EventId>;
    write_batches(batches: &[BatchAccepted]) -> ();
    batch(id: BatchId) -> Option<BatchAccepted>;
    write_dead_letters(letters: &[DeadLetter]) -> ();
    dead_letter(id: DeadLetterId) -> Option<DeadLetterRow>;
    list_dead_letters(filter: &LetterFilter, order: Order, past: Option<DeadLetterId>, limit: usize)
        -> Page<DeadLetterRow, DeadLetterId>;
    note_requeued(requeued: &[(DeadLetterId, NotificationId)]) -> ();
    change_catalog(change: CatalogChange) -> CatalogOutcome;
    mark_cancelled(marks: &[CancelMark]) -> Vec<Standing>;
    unmark_cancelled(marks: &[CancelMark]) -> ();
    end_race(race: &Race, proposal: RaceEnd) -> RaceEnd;
    take_keys(claims: &[KeyClaim]) -> Vec<KeyHeld>;
    lease_key(scope: &str, key: &str, seen: &KeyHeld, leased_until: i64) -> bool;
    answer_key(scope: &str, key: &str, held: &KeyHeld, answer: &[u8]) -> ();
    note_api_key_use(id: ApiKeyId, at: i64) -> ();
    api_key_uses(ids: &[ApiKeyId]) -> Vec<Option<i64>>;
    own_schedule(shard: i32, owner: &str, now: i64) -> Due;
    put_scheduled(shard: i32, rows: &[ScheduledRow]) -> ();
    due_scheduled(shard: i32, from: Due, now: i64, limit: usize) -> Vec<ScheduledRow>;
    advance_schedule(shard: i32, owner: &str, to: Due) -> bool;
    expire(now_ms: i64) -> ();
}
