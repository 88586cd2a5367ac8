//! The store in one SQLite file, for one machine.
//!
//! * `file`: one thread that writes in groups, connections that read.
//! * `tables`: the tables and their versions.
//! * `notifications`, `pipeline`, `cancels`, `keys`, `schedules`,
//!   `dead_letters`, `catalog`: the statements.

mod cancels;
mod catalog;
mod dead_letters;
mod events;
mod file;
mod keys;
mod notifications;
mod pipeline;
mod schedules;
mod tables;

use std::{path::Path, time::Duration};

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
use prometheus::core::Collector;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{sync::OnceCell, time::timeout};

use self::file::File;
use crate::{
    CancelMark, CatalogChange, CatalogOutcome, Claim, Claimed, Counted, Due, KeyClaim, KeyHeld,
    Layout, Outcome, Race, RaceEnd, ScheduledRow, Standing, Store, StoreError, Totals, now,
};

/// A store in one file.
pub struct SqliteStore {
    file: File,
    layout: OnceCell<Layout>,
    codec: Codec,
}

impl SqliteStore {
    /// Opens the file, making an empty one when there is none; [`Store::setup`] makes its tables.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let codec = Codec::new(&Framing::SingleObject)
            .map_err(|error| StoreError::Fatal(error.to_string()))?;
        Ok(Self {
            file: File::open(path)?,
            layout: OnceCell::new(),
            codec,
        })
    }

    /// How long reads and writes take, for the registry that shows it.
    pub fn round_trips(&self) -> Box<dyn Collector> {
        self.file.round_trips()
    }

    async fn fixed_layout(&self) -> Result<Layout, StoreError> {
        self.layout
            .get_or_try_init(|| self.file.read(read_layout))
            .await
            .copied()
    }
}

fn read_layout(connection: &Connection) -> Result<Layout, StoreError> {
    let layout = connection
        .query_row(
            "SELECT status_shards, claim_shards, bucket_minutes, retention_days FROM layout",
            [],
            |row| {
                Ok(Layout {
                    status_shards: row.get(0)?,
                    claim_shards: row.get(1)?,
                    bucket_minutes: row.get(2)?,
                    retention_days: row.get(3)?,
                })
            },
        )
        .optional()?;
    layout.ok_or_else(|| StoreError::NotSetUp("the store has no layout yet".to_owned()))
}

fn set_up(connection: &Connection, layout: Layout) -> Result<(), StoreError> {
    tables::migrate(connection)?;
    connection.execute(
        "INSERT INTO layout VALUES (1, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        params![
            layout.status_shards,
            layout.claim_shards,
            layout.bucket_minutes,
            layout.retention_days
        ],
    )?;
    let fixed = read_layout(connection)?;
    fixed.must_be(layout)
}

#[async_trait]
impl Store for SqliteStore {
    async fn setup(&self, layout: Layout) -> Result<(), StoreError> {
        self.file
            .write(move |connection| set_up(connection, layout))
            .await
    }

    async fn layout(&self) -> Result<Layout, StoreError> {
        self.fixed_layout().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let answer = self
            .file
            .read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?));
        let patience = Duration::from_secs(2);
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
        let ids = ids.to_vec();
        self.file
            .read(move |connection| notifications::read(connection, &ids))
            .await
    }

    async fn write_notifications(&self, writes: &[RowWrite], stamp: i64) -> Result<(), StoreError> {
        let layout = self.fixed_layout().await?;
        let writes = writes.to_vec();
        self.file
            .write(move |connection| notifications::write(connection, &writes, stamp, layout))
            .await
    }

    async fn calls(&self, id: NotificationId) -> Result<Vec<Attempt>, StoreError> {
        self.file
            .read(move |connection| notifications::calls(connection, id))
            .await
    }

    async fn list_notifications(
        &self,
        filter: &Filter,
        before: Option<NotificationId>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, StoreError> {
        let filter = filter.clone();
        self.file
            .read(move |connection| notifications::list(connection, &filter, before, limit))
            .await
    }

    async fn totals(&self, of: Counted) -> Result<Totals, StoreError> {
        self.file
            .read(move |connection| pipeline::totals(connection, of))
            .await
    }

    async fn advance_totals(
        &self,
        of: Counted,
        from: i64,
        to: i64,
        counts: &[(CountKey, i64)],
        tallies: &[(Tally, i64)],
    ) -> Result<bool, StoreError> {
        let (counts, tallies) = (counts.to_vec(), tallies.to_vec());
        self.file
            .write(move |connection| {
                pipeline::advance_totals(connection, of, from, to, &counts, &tallies)
            })
            .await
    }

    async fn claim(
        &self,
        claims: &[Claim],
        outcomes: &[Outcome],
    ) -> Result<Vec<Claimed>, StoreError> {
        let (claims, outcomes) = (claims.to_vec(), outcomes.to_vec());
        self.file
            .write(move |connection| pipeline::claim(connection, &claims, &outcomes))
            .await
    }

    async fn mark_cancelled(&self, marks: &[CancelMark]) -> Result<Vec<Standing>, StoreError> {
        let (marks, layout) = (marks.to_vec(), self.fixed_layout().await?);
        self.file
            .write(move |connection| cancels::mark(connection, &marks, layout, now()))
            .await
    }

    async fn unmark_cancelled(&self, marks: &[CancelMark]) -> Result<(), StoreError> {
        let marks = marks.to_vec();
        self.file
            .write(move |connection| cancels::unmark(connection, &marks))
            .await
    }

    async fn end_race(&self, race: &Race, proposal: RaceEnd) -> Result<RaceEnd, StoreError> {
        let (race, layout) = (race.clone(), self.fixed_layout().await?);
        self.file
            .write(move |connection| cancels::end_race(connection, &race, proposal, layout, now()))
            .await
    }

    async fn take_keys(&self, claims: &[KeyClaim]) -> Result<Vec<KeyHeld>, StoreError> {
        let claims = claims.to_vec();
        self.file
            .write(move |connection| keys::take(connection, &claims, now()))
            .await
    }

    async fn lease_key(
        &self,
        scope: &str,
        key: &str,
        seen: &KeyHeld,
        leased_until: UnixMs,
    ) -> Result<bool, StoreError> {
        let (scope, key, seen) = (scope.to_owned(), key.to_owned(), seen.clone());
        self.file
            .write(move |connection| keys::lease(connection, &scope, &key, &seen, leased_until))
            .await
    }

    async fn answer_key(
        &self,
        scope: &str,
        key: &str,
        held: &KeyHeld,
        answer: &[u8],
    ) -> Result<(), StoreError> {
        let (scope, key, held) = (scope.to_owned(), key.to_owned(), held.clone());
        let answer = answer.to_vec();
        self.file
            .write(move |connection| keys::answer(connection, &scope, &key, &held, &answer))
            .await
    }

    async fn note_api_key_use(&self, id: ApiKeyId, at: UnixMs) -> Result<(), StoreError> {
        self.file
            .write(move |connection| keys::note_use(connection, id, at))
            .await
    }

    async fn api_key_uses(&self, ids: &[ApiKeyId]) -> Result<Vec<Option<UnixMs>>, StoreError> {
        let ids = ids.to_vec();
        self.file
            .read(move |connection| keys::uses(connection, &ids))
            .await
    }

    async fn own_schedule(&self, shard: i32, owner: &str, now: UnixMs) -> Result<Due, StoreError> {
        let owner = owner.to_owned();
        self.file
            .write(move |connection| schedules::own(connection, shard, &owner, now))
            .await
    }

    async fn put_scheduled(&self, shard: i32, rows: &[ScheduledRow]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        self.file
            .write(move |connection| schedules::put(connection, shard, &rows))
            .await
    }

    async fn due_scheduled(
        &self,
        shard: i32,
        from: Due,
        now: UnixMs,
        limit: usize,
    ) -> Result<Vec<ScheduledRow>, StoreError> {
        self.file
            .read(move |connection| schedules::due(connection, shard, from, now, limit))
            .await
    }

    async fn advance_schedule(&self, shard: i32, owner: &str, to: Due) -> Result<bool, StoreError> {
        let owner = owner.to_owned();
        self.file
            .write(move |connection| schedules::advance(connection, shard, &owner, to))
            .await
    }

    async fn write_events(&self, events: &[(EventId, Event)]) -> Result<(), StoreError> {
        let events = events.to_vec();
        self.file
            .write(move |connection| events::write(connection, &events))
            .await
    }

    async fn write_matches(&self, matches: &[EventMatched]) -> Result<(), StoreError> {
        let matches = matches.to_vec();
        self.file
            .write(move |connection| events::write_matches(connection, &matches))
            .await
    }

    async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        self.file
            .read(move |connection| events::read(connection, id))
            .await
    }

    async fn list_events(
        &self,
        filter: &EventFilter,
        before: Option<EventId>,
        limit: usize,
    ) -> Result<Page<EventHead, EventId>, StoreError> {
        let filter = filter.clone();
        self.file
            .read(move |connection| events::list(connection, &filter, before, limit))
            .await
    }

    async fn write_batches(&self, batches: &[BatchAccepted]) -> Result<(), StoreError> {
        let batches = batches.to_vec();
        self.file
            .write(move |connection| pipeline::write_batches(connection, &batches))
            .await
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchAccepted>, StoreError> {
        self.file
            .read(move |connection| pipeline::batch(connection, id))
            .await
    }

    async fn write_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let (letters, codec) = (letters.to_vec(), self.codec.clone());
        self.file
            .write(move |connection| dead_letters::write(connection, &letters, &codec))
            .await
    }

    async fn has_dead_letters(&self, ids: &[DeadLetterId]) -> Result<Vec<bool>, StoreError> {
        let ids = ids.to_vec();
        self.file
            .read(move |connection| dead_letters::has(connection, &ids))
            .await
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterRow>, StoreError> {
        let codec = self.codec.clone();
        self.file
            .read(move |connection| dead_letters::read(connection, id, &codec))
            .await
    }

    async fn list_dead_letters(
        &self,
        filter: &LetterFilter,
        order: Order,
        past: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Page<DeadLetterRow, DeadLetterId>, StoreError> {
        let (filter, codec) = (filter.clone(), self.codec.clone());
        self.file
            .read(move |connection| {
                dead_letters::list(connection, &filter, order, past, limit, &codec)
            })
            .await
    }

    async fn note_requeued(
        &self,
        requeued: &[(DeadLetterId, NotificationId)],
    ) -> Result<(), StoreError> {
        let requeued = requeued.to_vec();
        self.file
            .write(move |connection| dead_letters::note_requeued(connection, &requeued))
            .await
    }

    async fn catalog_version(&self) -> Result<i64, StoreError> {
        self.file.read(catalog::version).await
    }

    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.file.read(catalog::read).await
    }

    async fn change_catalog(&self, change: CatalogChange) -> Result<CatalogOutcome, StoreError> {
        self.file
            .write(move |connection| catalog::change(connection, change))
            .await
    }

    async fn expire(&self, now_ms: i64) -> Result<(), StoreError> {
        let layout = self.fixed_layout().await?;
        self.file
            .write(move |connection| expire(connection, now_ms, layout))
            .await
    }
}

/// How many rows of each table one call takes away.
const EXPIRED_AT_ONCE: usize = 500;

fn expire(connection: &Connection, now_ms: i64, layout: Layout) -> Result<(), StoreError> {
    notifications::expire(connection, now_ms, EXPIRED_AT_ONCE)?;
    pipeline::expire(connection, now_ms - layout.retention_ms(), EXPIRED_AT_ONCE)?;
    pipeline::expire_tallies(connection, now_ms, layout.retention_ms())?;
    keys::expire(connection, now_ms, EXPIRED_AT_ONCE)?;
    keys::forget_uses(connection, now_ms - layout.retention_ms())?;
    cancels::expire(connection, now_ms, EXPIRED_AT_ONCE)?;
    // Freed pages go back to the file system, a piece at a time.
    let mut statement = connection.prepare("PRAGMA incremental_vacuum(1000)")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
