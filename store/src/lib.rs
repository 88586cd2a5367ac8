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
    ids::{DeadLetterId, EventId, NotificationId},
    records::{Attempt, Event, EventMatched},
    rows::{CountKey, DeadLetterRow, EventRow, Filter, NotificationRow, Page, RowWrite},
};

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

/// The exact counts of one partition of `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Every record before this offset is counted.
    pub offset: i64,
    /// How many notifications are in each cell.
    pub counts: Vec<(CountKey, i64)>,
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

    // Exact counts: a row a partition of `status`, written by materialize alone.

    /// The counts of a partition; zero at offset 0 when there are none.
    async fn totals(&self, partition: i32) -> Result<Totals, StoreError>;

    /// Adds `changes` to the counts and sets their offset, if it still is `from`. False: it is
    /// not, somebody else counts this partition now.
    async fn advance_totals(
        &self,
        partition: i32,
        from: i64,
        to: i64,
        changes: &[(CountKey, i64)],
    ) -> Result<bool, StoreError>;

    // Claims: written by deliver alone.

    /// Stores `outcomes` and `claims`, then says what stands about each claim, in their order.
    /// Outcomes are stored first, in the same writes where they share a partition.
    async fn claim(
        &self,
        claims: &[Claim],
        outcomes: &[Outcome],
    ) -> Result<Vec<Claimed>, StoreError>;

    // Events: written by materialize alone.

    /// Writes events. What the rules said of one before stays.
    async fn write_events(&self, events: &[(EventId, Event)]) -> Result<(), StoreError>;

    /// Writes what the rules said. Shows only once the event itself is written.
    async fn write_matches(&self, matches: &[EventMatched]) -> Result<(), StoreError>;

    /// An event.
    async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError>;

    // Dead letters: written by materialize alone.

    /// Writes dead letters.
    async fn write_dead_letters(&self, letters: &[DeadLetterRow]) -> Result<(), StoreError>;

    /// A dead letter.
    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterRow>, StoreError>;

    /// The newest `limit` dead letters older than `before`.
    async fn list_dead_letters(
        &self,
        before: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetterRow>, StoreError>;

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
