//! The Store seam: what is kept beside the log so that it can be asked for.
//!
//! Two implementations: [`scylla`] (ScyllaDB, or Cassandra) and [`sqlite`] (one process). Nothing
//! above this crate knows which one it runs on, and one contract suite (`tests/contract`) runs against
//! both. Operations take slices and answer slices: the pipeline works in batches, and the rows are
//! laid out so that a batch is one write (see `layout`).
//!
//! What a row *means* is decided elsewhere (`herald_stages::materialize`); here it is kept.

mod layout;
pub mod scylla;
pub mod sqlite;

use async_trait::async_trait;
use herald_schemas::{
    catalog::{Catalog, Kind},
    codec::Codec,
    ids::{ApiKeyId, BatchId, DeadLetterId, EventId, NotificationId, UnixMs},
    records::{Attempt, BatchAccepted, DeadLetter, Event, EventMatched},
    rows::{
        CountKey, DeadLetterRow, EventFilter, EventHead, EventRow, Filter, LetterFilter,
        NotificationRow, Order, Page, RowWrite, Tally,
    },
    words::UnknownWord,
};

use herald_telemetry::RoundTrips;
pub use layout::Layout;

/// What can go wrong with the store itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away or slow; the same call may go through later.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// `herald setup` has not been run, or an older one has.
    #[error("{0}: run `herald setup`")]
    NotSetUp(String),
    /// Setup was asked for a layout other than the one that rows already lie in.
    #[error("{0}")]
    LayoutChanged(String),
    /// Wrong settings, a row that cannot be read: trying again will not help.
    #[error("store: {0}")]
    Fatal(String),
}

/// Wants to send a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The notification.
    pub id: NotificationId,
    /// Its recipient: decides the claim's shard.
    pub recipient: String,
    /// The attempt, from 1.
    pub attempt: i32,
    /// Which worker asks; for people who look into the table.
    pub worker: String,
}

/// How an attempt ended, so that a record that comes again need not be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The notification.
    pub id: NotificationId,
    /// Its recipient, as in the [`Claim`].
    pub recipient: String,
    /// The attempt, from 1.
    pub attempt: i32,
    /// What the worker needs to say the same again; opaque here.
    pub body: Vec<u8>,
}

/// What stands about a claimed notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The newest attempt whose outcome is known, and that outcome's body.
    pub outcome: Option<(i32, Vec<u8>)>,
    /// Whether somebody asked to cancel it.
    pub cancel_marked: bool,
}

/// Wants to withdraw a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelMark {
    /// The notification.
    pub id: NotificationId,
    /// Its recipient, as in the [`Claim`].
    pub recipient: String,
    /// Which mark it is, of several that may be there: above 0.
    pub mark: i32,
    /// When it is to be sent, if later: the mark is kept that much longer.
    pub send_at: Option<UnixMs>,
}

/// The race between an attempt and those who want to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race {
    /// The notification.
    pub id: NotificationId,
    /// Its recipient, as in the [`Claim`].
    pub recipient: String,
    /// The attempt, from 1.
    pub attempt: i32,
    /// See [`CancelMark::send_at`].
    pub send_at: Option<UnixMs>,
}

/// What stands about a notification that somebody wants to withdraw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The newest attempt that was claimed.
    pub claimed: Option<i32>,
    /// The newest attempt whose outcome is known, and that outcome's body.
    pub outcome: Option<(i32, Vec<u8>)>,
}

/// How a race between an attempt and a cancel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaceEnd {
    /// The attempt is made.
    Sent,
    /// The notification is withdrawn.
    Cancelled,
}

impl RaceEnd {
    /// As the store writes it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Cancelled => "cancelled",
        }
    }

    fn read(word: &str) -> Result<Self, StoreError> {
        match word {
            "sent" => Ok(Self::Sent),
            "cancelled" => Ok(Self::Cancelled),
            other => Err(StoreError::Fatal(format!("races: unknown end {other:?}"))),
        }
    }
}

/// Wants an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClaim {
    /// Whose key it is and what it names: the same key in another scope is another one.
    pub scope: String,
    /// The key.
    pub key: String,
    /// What the key is to name.
    pub value: String,
    /// A digest of the request; empty where any request will do.
    pub digest: String,
    /// Until when whoever holds it is given to make what it names.
    pub leased_until: UnixMs,
    /// Until when the key is kept.
    pub kept_until: UnixMs,
}

/// An idempotency key as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHeld {
    /// Whether this claim made it.
    pub is_new: bool,
    /// What it names.
    pub value: String,
    /// The digest of the request that it was first claimed with.
    pub digest: String,
    /// See [`KeyClaim::leased_until`].
    pub leased_until: UnixMs,
    /// See [`KeyClaim::kept_until`].
    pub kept_until: UnixMs,
    /// The answer that was given, where one was kept.
    pub answer: Option<Vec<u8>>,
}

/// A notification that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledRow {
    /// When it is to go on.
    pub send_at: UnixMs,
    /// The notification.
    pub id: NotificationId,
    /// The request; opaque here.
    pub body: Vec<u8>,
}

impl ScheduledRow {
    /// Its place in the order in which rows become due.
    pub fn place(&self) -> Due {
        (self.send_at, self.id)
    }
}

/// A place in the order in which scheduled notifications become due.
pub type Due = (UnixMs, NotificationId);

/// Whose records are counted together: those of one partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Of `status`: where notifications are.
    Status(i32),
    /// Of `dead-letters`.
    DeadLetters(i32),
}

impl Counted {
    /// As the store writes it.
    const fn part(self) -> i32 {
        match self {
            Self::Status(partition) => partition,
            Self::DeadLetters(partition) => -1 - partition,
        }
    }
}

/// The exact counts of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Every record before this offset is counted.
    pub offset: i64,
    /// How many notifications are in each cell.
    pub counts: Vec<(CountKey, i64)>,
    /// And the rest. What is told by the hour is kept for two days, what is told by the day for as
    /// long as the rows are.
    pub tallies: Vec<(Tally, i64)>,
}

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogChange {
    /// A new object, or a new state of one. `name` is kept unique within the kind. A template's
    /// body is a new version, and the older ones are retired; sources and rules have no history.
    Put {
        /// What it is.
        kind: Kind,
        /// Its id, a UUID.
        id: uuid::Uuid,
        /// 1 makes an object. Of a template, anything above is the number after its newest; of a
        /// source or a rule, anything above replaces the one that is there.
        version: i32,
        /// Only if the catalog still is at this version; none: whatever it is.
        seen: Option<i64>,
        /// Its unique name.
        name: String,
        /// The object as JSON.
        body: String,
    },
    /// Takes an object out; a template's versions stay, retired.
    Delete {
        /// What it is.
        kind: Kind,
        /// Its id.
        id: uuid::Uuid,
    },
}

/// What became of a [`CatalogChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogOutcome {
    /// Done; the catalog is now at this version.
    Changed(i64),
    /// Another object of the kind has that name.
    NameTaken,
    /// There is no such object, or (version 1) there is one already, or (a template) its newest
    /// version is not the one before this one. A change that was made before, word for word, is
    /// [`CatalogOutcome::Changed`] again.
    Conflict,
    /// The catalog is no longer at the version that was [`seen`](CatalogChange::Put::seen).
    Stale,
}

/// A store. All methods are safe to call again after an error, with the same arguments.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // Setup.

    /// Makes or updates the tables, and fixes the layout: the first setup's is kept, another one
    /// is refused. Safe to run from several places at once.
    async fn setup(&self, layout: Layout) -> Result<(), StoreError>;

    /// The layout that setup fixed.
    async fn layout(&self) -> Result<Layout, StoreError>;

    /// Whether the store answers, within 2 s.
    async fn ping(&self) -> Result<(), StoreError>;

    // Notifications: written by materialize alone.

    /// The rows of these ids, in their order. Ids that share a shard are read together.
    async fn notifications(
        &self,
        ids: &[NotificationId],
    ) -> Result<Vec<Option<NotificationRow>>, StoreError>;

    /// Writes rows, their index rows and their calls. `stamp` orders the writes of one row: of two
    /// writes the one with the higher stamp stands, whichever came last (the offset of the status
    /// record is used).
    async fn write_notifications(&self, writes: &[RowWrite], stamp: i64) -> Result<(), StoreError>;

    /// The log of calls of a notification, in order.
    async fn calls(&self, id: NotificationId) -> Result<Vec<Attempt>, StoreError>;

    /// The newest `limit` notifications that `filter` lets through, older than `before`.
    async fn list_notifications(
        &self,
        filter: &Filter,
        before: Option<NotificationId>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, StoreError>;

    // Exact counts: by partition, written by materialize alone.

    /// The counts of a partition; zero at offset 0 when there are none.
    async fn totals(&self, of: Counted) -> Result<Totals, StoreError>;

    /// Adds to the counts and the tallies and sets their offset, if it still is `from`. False: it is
    /// not, somebody else counts this partition now.
    async fn advance_totals(
        &self,
        of: Counted,
        from: i64,
        to: i64,
        counts: &[(CountKey, i64)],
        tallies: &[(Tally, i64)],
    ) -> Result<bool, StoreError>;

    // Claims: written by deliver alone.

    /// Stores `outcomes` and `claims`, then says what stands about each claim, in their order.
    /// Outcomes are stored first, in the same writes where they share a partition.
    async fn claim(
        &self,
        claims: &[Claim],
        outcomes: &[Outcome],
    ) -> Result<Vec<Claimed>, StoreError>;

    // Cancelling: marks by the API, verdicts by whoever sees the other.

    /// Stores `marks`, then says what stands about each, in their order. A [`Store::claim`] that
    /// does not see the mark is one that is seen here.
    async fn mark_cancelled(&self, marks: &[CancelMark]) -> Result<Vec<Standing>, StoreError>;

    /// Takes marks back: whoever set them lost.
    async fn unmark_cancelled(&self, marks: &[CancelMark]) -> Result<(), StoreError>;

    /// Ends the race for an attempt. The first proposal stands, and is answered to all.
    async fn end_race(&self, race: &Race, proposal: RaceEnd) -> Result<RaceEnd, StoreError>;

    // Idempotency keys: written by the API alone.

    /// Claims keys, no two of them alike; says how each stands. Of many that claim one at once,
    /// one is told that it is new.
    async fn take_keys(&self, claims: &[KeyClaim]) -> Result<Vec<KeyHeld>, StoreError>;

    /// Leases a key anew, if its lease still is the one that was `seen`. False: somebody else did.
    async fn lease_key(
        &self,
        scope: &str,
        key: &str,
        seen: &KeyHeld,
        leased_until: UnixMs,
    ) -> Result<bool, StoreError>;

    /// Keeps the answer with a key that is there.
    async fn answer_key(
        &self,
        scope: &str,
        key: &str,
        held: &KeyHeld,
        answer: &[u8],
    ) -> Result<(), StoreError>;

    // API keys: the keys themselves are in the catalog.

    /// Notes that a key was used. The latest use stands.
    async fn note_api_key_use(&self, id: ApiKeyId, at: UnixMs) -> Result<(), StoreError>;

    /// When each of these keys was last noted to be used, in their order.
    async fn api_key_uses(&self, ids: &[ApiKeyId]) -> Result<Vec<Option<UnixMs>>, StoreError>;

    // Schedules: written by the stage schedule alone, one owner a shard.

    /// Makes `owner` the owner of a shard; answers up to where its rows have gone on. A shard
    /// without any starts at `now`.
    async fn own_schedule(&self, shard: i32, owner: &str, now: UnixMs) -> Result<Due, StoreError>;

    /// Stores rows of a shard. They are beyond what its owner knows to have gone on.
    async fn put_scheduled(&self, shard: i32, rows: &[ScheduledRow]) -> Result<(), StoreError>;

    /// The first `limit` rows of a shard after `from` and due at `now`, in their order.
    async fn due_scheduled(
        &self,
        shard: i32,
        from: Due,
        now: UnixMs,
        limit: usize,
    ) -> Result<Vec<ScheduledRow>, StoreError>;

    /// Notes that the rows of a shard have gone on up to `to`. False: it has another owner now.
    async fn advance_schedule(&self, shard: i32, owner: &str, to: Due) -> Result<bool, StoreError>;

    // Events: written by materialize alone.

    /// Writes events. What the rules said of one before stays.
    async fn write_events(&self, events: &[(EventId, Event)]) -> Result<(), StoreError>;

    /// Writes what the rules said. Shows only once the event itself is written.
    async fn write_matches(&self, matches: &[EventMatched]) -> Result<(), StoreError>;

    /// An event.
    async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError>;

    /// The newest `limit` events that `filter` lets through, older than `before`. A page may be
    /// shorter and not the last.
    async fn list_events(
        &self,
        filter: &EventFilter,
        before: Option<EventId>,
        limit: usize,
    ) -> Result<Page<EventHead, EventId>, StoreError>;

    // Batches: written by materialize alone.

    /// Writes batches.
    async fn write_batches(&self, batches: &[BatchAccepted]) -> Result<(), StoreError>;

    /// A batch.
    async fn batch(&self, id: BatchId) -> Result<Option<BatchAccepted>, StoreError>;

    // Dead letters: written by materialize, their requeueing noted by the API.

    /// Writes dead letters. Whether one was requeued stays.
    async fn write_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError>;

    /// Whether there are these dead letters, in their order.
    async fn has_dead_letters(&self, ids: &[DeadLetterId]) -> Result<Vec<bool>, StoreError>;

    /// A dead letter.
    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterRow>, StoreError>;

    /// The first `limit` dead letters that `filter` lets through, in this order, beyond `past`;
    /// without their bytes. A page may be shorter and not the last.
    async fn list_dead_letters(
        &self,
        filter: &LetterFilter,
        order: Order,
        past: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Page<DeadLetterRow, DeadLetterId>, StoreError>;

    /// Notes which notifications were made of dead letters again.
    async fn note_requeued(
        &self,
        requeued: &[(DeadLetterId, NotificationId)],
    ) -> Result<(), StoreError>;

    // Catalog: written by the API alone.

    /// The version of the catalog: one cheap read.
    async fn catalog_version(&self) -> Result<i64, StoreError>;

    /// The catalog, at least as new as `catalog_version` said when it was called.
    async fn catalog(&self) -> Result<Catalog, StoreError>;

    /// Changes the catalog; the change is readable before the version counts up.
    async fn change_catalog(&self, change: CatalogChange) -> Result<CatalogOutcome, StoreError>;

    // Retention.

    /// Frees what has expired, where the database does not do so by itself. Called now and then;
    /// a call does a bounded piece of work.
    async fn expire(&self, now_ms: i64) -> Result<(), StoreError>;
}

/// A column that is JSON, read.
fn json<T: serde::de::DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Fatal(format!("column {column} cannot be read: {error}")))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Fatal(error.to_string()))
}

/// What stands in place of a channel and a priority in the row of a tally, whose word stands in
/// that of a status and whose hour or day in that of a day.
const OF_ALL: &str = "*";

/// How long a tally by the hour is kept: twice what is looked at.
const HOURS_KEPT_MS: i64 = 48 * 3_600_000;

/// The row of a count or a tally, read.
enum Cell {
    Count(CountKey),
    Tally(Tally),
}

impl Cell {
    fn read(day: i32, status: &str, channel: &str, priority: &str) -> Result<Self, StoreError> {
        if channel == OF_ALL {
            let unknown = || StoreError::Fatal(format!("counts: unknown tally {status:?}"));
            return Ok(Self::Tally(
                Tally::from_parts(status, day).ok_or_else(unknown)?,
            ));
        }
        let word = |error: UnknownWord| StoreError::Fatal(error.to_string());
        Ok(Self::Count(CountKey {
            day,
            status: status.parse().map_err(word)?,
            channel: channel.parse().map_err(word)?,
            priority: priority.parse().map_err(word)?,
        }))
    }
}

impl Totals {
    fn add(&mut self, cell: Cell, number: i64) {
        match cell {
            Cell::Count(key) => self.counts.push((key, number)),
            Cell::Tally(tally) => self.tallies.push((tally, number)),
        }
    }
}

/// How long the store takes, empty. Both implementations time what they have one place for: single
/// statements and batches, not the methods that are made of them.
fn round_trips() -> Result<RoundTrips, StoreError> {
    RoundTrips::new(
        "herald_store_round_trip_seconds",
        "How long one read, write or conditional write of the store took.",
    )
    .map_err(|error| StoreError::Fatal(error.to_string()))
}

/// The time, for what is to live from now on.
fn now() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as UnixMs)
}

/// How many events or dead letters one call looks at before it answers with what it has.
const MOST_SCANNED: usize = 20_000;

/// A dead letter as it is kept: whole, and what a list shows of it.
fn encoded(codec: &Codec, letter: &DeadLetter) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    let encode = |letter: &DeadLetter| match codec.encode(letter) {
        Ok(encoded) => Ok(encoded.to_vec()),
        Err(error) => Err(StoreError::Fatal(error.to_string())),
    };
    Ok((encode(letter)?, encode(&letter.head())?))
}
