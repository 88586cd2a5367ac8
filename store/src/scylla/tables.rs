//! The keyspace, the tables and their versions, and the statements on them. `ks.` stands for the
//! keyspace, see [`Session::prepare`].

use std::time::Duration;

use scylla::statement::prepared::PreparedStatement;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::session::{ScyllaSettings, Session};
use crate::{Layout, StoreError};

/// The one table that is there before all others: the version of the rest, the layout that was
/// fixed, and who is at work on both. Conditional writes only.
const SETUP: &str = "CREATE TABLE IF NOT EXISTS ks.setup (
    one int PRIMARY KEY, version int, worker uuid,
    status_shards int, claim_shards int, bucket_minutes int, retention_days int)";

/// What each version adds, from version 1 on. A released one is never changed, and each statement
/// can be run again. `{windows}` becomes how rows are compacted that expire together.
///
/// Ids are blobs: those sort as their bytes do, while the databases sort UUIDs in ways of their own.
/// A table with a `bucket` is partitioned by time and shard, see [`Layout`].
const MIGRATIONS: &[&[&str]] = &[
    &[
        // The whole notification in a row. Written with the stamp as the timestamp of each cell, so
        // that of two writes the one with the higher stamp stands: no conditional write here, ever.
        "CREATE TABLE IF NOT EXISTS ks.notifications (
        bucket bigint, shard int, id blob,
        status text, channel text, priority text,
        state text, identity text, message text,
        calls map<int, text>,
        PRIMARY KEY ((bucket, shard), id)
    ) WITH CLUSTERING ORDER BY (id DESC)",
        // Notifications by what they can be found by, which is `value`.
        "CREATE TABLE IF NOT EXISTS ks.refs (
        kind text, bucket bigint, shard int, value text, id blob,
        PRIMARY KEY ((kind, bucket, shard), value, id)
    ) WITH CLUSTERING ORDER BY (value ASC, id DESC) AND {windows}",
        // Which buckets are not empty, and until when. That is also the timestamp of the cell.
        "CREATE TABLE IF NOT EXISTS ks.buckets (
        kind text, bucket bigint, until bigint,
        PRIMARY KEY (kind, bucket)
    ) WITH CLUSTERING ORDER BY (bucket DESC)",
        // The exact counts of a partition, true for the offset `at`. `*` as channel and priority: a
        // tally, its word in `status` and its hour or day in `day`. Conditional only.
        "CREATE TABLE IF NOT EXISTS ks.totals (
        part int, at bigint static,
        day int, status text, channel text, priority text, number bigint,
        PRIMARY KEY (part, day, status, channel, priority)
    )",
        // Attempts count from 1; below 0 are the marks of those who want to cancel, so that a claim
        // reads both at once.
        "CREATE TABLE IF NOT EXISTS ks.claims (
        bucket bigint, shard int, id blob, attempt int, worker text, outcome blob,
        PRIMARY KEY ((bucket, shard), id, attempt)
    ) WITH {windows}",
        "CREATE TABLE IF NOT EXISTS ks.events (
        bucket bigint, shard int, id blob,
        event text, payload text, occurred_at bigint, correlation_id text, matched text,
        PRIMARY KEY ((bucket, shard), id)
    ) WITH CLUSTERING ORDER BY (id DESC) AND {windows}",
        // The body is the record itself, in Avro's single-object encoding.
        // The head is the record without its bytes, which lists show.
        "CREATE TABLE IF NOT EXISTS ks.dead_letters (
        bucket bigint, shard int, id blob, body blob, head blob, requeued_as blob,
        PRIMARY KEY ((bucket, shard), id)
    ) WITH CLUSTERING ORDER BY (id DESC) AND {windows}",
        // All of it in one partition, so that one condition on `version` guards every change. The kinds
        // are those of the objects, and `… name` for who holds a name. Conditional writes only.
        "CREATE TABLE IF NOT EXISTS ks.catalog (
        one int, version bigint static,
        kind text, key text, number int, holder uuid, name text, body text, retired boolean,
        PRIMARY KEY (one, kind, key, number)
    )",
    ],
    &[
        // How races between attempts and cancels ended. Conditional writes only.
        "CREATE TABLE IF NOT EXISTS ks.races (
        bucket bigint, shard int, id blob, attempt int, ended text,
        PRIMARY KEY ((bucket, shard), id, attempt)
    ) WITH {windows}",
        "CREATE TABLE IF NOT EXISTS ks.batches (
        bucket bigint, shard int, id blob, body text,
        PRIMARY KEY ((bucket, shard), id)
    ) WITH {windows}",
        // Idempotency keys. Conditional writes only.
        "CREATE TABLE IF NOT EXISTS ks.keys (
        scope text, key text,
        value text, digest text, leased_until bigint, kept_until bigint, answer blob,
        PRIMARY KEY ((scope, key))
    )",
        // Who owns a shard of what is scheduled, and up to where its rows have gone on. Conditional
        // writes only.
        "CREATE TABLE IF NOT EXISTS ks.schedules (
        shard int PRIMARY KEY, owner text, send_at bigint, id blob)",
        // Rows are read once, in their order, and never deleted: they expire.
        "CREATE TABLE IF NOT EXISTS ks.scheduled (
        shard int, bucket bigint, send_at bigint, id blob, body blob,
        PRIMARY KEY ((shard, bucket), send_at, id)
    )",
    ],
    &[
        // Written with the time of the use as the timestamp, so that the last one stands.
        "CREATE TABLE IF NOT EXISTS ks.api_key_uses (id blob PRIMARY KEY, at bigint)",
    ],
];

/// The version of the tables that this program works with.
const NEWEST: i32 = MIGRATIONS.len() as i32;

/// How long a setup that died keeps others waiting, in seconds.
const LEASE_SECONDS: i32 = 60;
/// How long to wait for another setup.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(90);

/// Makes or updates keyspace and tables, and fixes the layout.
pub(super) async fn set_up(
    session: &Session,
    settings: &ScyllaSettings,
    layout: Layout,
) -> Result<(), StoreError> {
    make_keyspace(session, settings).await?;
    session.alter(SETUP).await?;
    let set_up = async {
        let work = Work::take(session).await?;
        let done = work.migrate(layout).await;
        let left = work.leave().await;
        done.and(left)
    };
    set_up.await.map_err(|error| match error {
        // A statement on the table of setups that the database does not take, while this is setup.
        StoreError::NotSetUp(text) => StoreError::Fatal(text),
        other => other,
    })
}

async fn make_keyspace(session: &Session, settings: &ScyllaSettings) -> Result<(), StoreError> {
    let keyspace = session.keyspace();
    let there = session
        .prepare("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?")
        .await?;
    // Whoever may not make a keyspace can be given one.
    if session
        .row::<(String,)>(&there, (keyspace,))
        .await?
        .is_some()
    {
        return Ok(());
    }
    let knows_tablets = session
        .prepare(
            "SELECT column_name FROM system_schema.columns WHERE keyspace_name = 'system_schema'
             AND table_name = 'scylla_keyspaces' AND column_name = 'initial_tablets'",
        )
        .await?;
    // Conditional writes need a keyspace without tablets, a word that Cassandra and ScyllaDB before
    // 6.0 do not know.
    let tablets = match session.row::<(String,)>(&knows_tablets, ()).await? {
        Some(_) => " AND tablets = {'enabled': false}",
        None => "",
    };
    let copies = settings.replication_factor;
    session
        .alter(&format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication =
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': {copies}}}{tablets}"
        ))
        .await
}

/// The right to change the tables, which one setup has at a time: changes made at once by several
/// nodes of a Cassandra cluster can contradict each other.
struct Work<'s> {
    session: &'s Session,
    worker: Uuid,
}

impl<'s> Work<'s> {
    async fn take(session: &'s Session) -> Result<Self, StoreError> {
        let worker = Uuid::now_v7();
        let first = session
            .prepare_once("INSERT INTO ks.setup (one, version) VALUES (1, 0) IF NOT EXISTS")
            .await?;
        session.apply_one(&first, ()).await?;
        let take = session
            .prepare_once(
                "UPDATE ks.setup USING TTL ? SET worker = ? WHERE one = 1 IF worker = null",
            )
            .await?;
        let deadline = Instant::now() + WAIT_FOR_OTHERS;
        while !session.apply_one(&take, (LEASE_SECONDS, worker)).await? {
            if Instant::now() >= deadline {
                let text = "another setup is under way".to_owned();
                return Err(StoreError::Unavailable(text));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(Self { session, worker })
    }

    async fn migrate(&self, layout: Layout) -> Result<(), StoreError> {
        let row = SetupRow::read(self.session).await?;
        let have = row.version;
        if have > NEWEST {
            return Err(newer(have));
        }
        let layout = self.fix(&row, layout).await?;
        let keep = self
            .session
            .prepare_once("UPDATE ks.setup USING TTL ? SET worker = ? WHERE one = 1 IF worker = ?")
            .await?;
        let reached = self
            .session
            .prepare_once("UPDATE ks.setup SET version = ? WHERE one = 1 IF worker = ?")
            .await?;
        for (migration, version) in MIGRATIONS.iter().zip(1..).skip(have as usize) {
            for statement in *migration {
                let kept = (LEASE_SECONDS, self.worker, self.worker);
                self.still_ours(self.session.apply_one(&keep, kept).await?)?;
                let statement = statement.replace("{windows}", &windows(layout));
                self.session.alter(&statement).await?;
            }
            let done = self.session.apply_one(&reached, (version, self.worker));
            self.still_ours(done.await?)?;
        }
        Ok(())
    }

    /// Fixes the layout, or holds it against the one that the first setup fixed.
    async fn fix(&self, row: &SetupRow, asked: Layout) -> Result<Layout, StoreError> {
        if let Some(fixed) = row.layout {
            fixed.must_be(asked)?;
            return Ok(fixed);
        }
        let fix = self
            .session
            .prepare_once(
                "UPDATE ks.setup SET status_shards = ?, claim_shards = ?, bucket_minutes = ?,
                     retention_days = ? WHERE one = 1 IF worker = ?",
            )
            .await?;
        let values = (
            asked.status_shards as i32,
            asked.claim_shards as i32,
            asked.bucket_minutes as i32,
            asked.retention_days as i32,
            self.worker,
        );
        self.still_ours(self.session.apply_one(&fix, values).await?)?;
        Ok(asked)
    }

    fn still_ours(&self, applied: bool) -> Result<(), StoreError> {
        if applied {
            return Ok(());
        }
        let text = format!("setup took more than {LEASE_SECONDS} s and another one began");
        Err(StoreError::Unavailable(text))
    }

    async fn leave(self) -> Result<(), StoreError> {
        let leave = self
            .session
            .prepare_once("UPDATE ks.setup SET worker = null WHERE one = 1 IF worker = ?")
            .await?;
        self.session.apply_one(&leave, (self.worker,)).await?;
        Ok(())
    }
}

/// Rows that expire together lie together: some thirty windows in their time.
fn windows(layout: Layout) -> String {
    let days = (layout.retention_days / 30).max(1);
    format!(
        "compaction = {{'class': 'TimeWindowCompactionStrategy', \
         'compaction_window_unit': 'DAYS', 'compaction_window_size': '{days}'}}"
    )
}

/// What stands in the table `setup`.
struct SetupRow {
    version: i32,
    layout: Option<Layout>,
}

impl SetupRow {
    async fn read(session: &Session) -> Result<Self, StoreError> {
        type Numbers = (
            Option<i32>,
            Option<i32>,
            Option<i32>,
            Option<i32>,
            Option<i32>,
        );
        let read = session
            .prepare(
                "SELECT version, status_shards, claim_shards, bucket_minutes, retention_days
                 FROM ks.setup WHERE one = 1",
            )
            .await?;
        let row: Option<Numbers> = session.row(&read, ()).await?;
        let (version, status, claims, bucket, retention) = row.unwrap_or_default();
        let layout = (|| {
            Some(Layout {
                status_shards: status?.try_into().ok()?,
                claim_shards: claims?.try_into().ok()?,
                bucket_minutes: bucket?.try_into().ok()?,
                retention_days: retention?.try_into().ok()?,
            })
        })();
        Ok(Self {
            version: version.unwrap_or(0),
            layout,
        })
    }
}

/// Whether the tables are of this program's version; their layout, else what to do about it.
pub(super) async fn check(session: &Session) -> Result<Layout, StoreError> {
    let SetupRow { version, layout } = SetupRow::read(session).await?;
    match (version, layout) {
        (NEWEST, Some(layout)) => Ok(layout),
        (0, _) | (_, None) => Err(StoreError::NotSetUp(
            "the store has no tables yet".to_owned(),
        )),
        (have, _) if have < NEWEST => Err(StoreError::NotSetUp(format!(
            "the store is of version {have}, not {NEWEST}"
        ))),
        (have, _) => Err(newer(have)),
    }
}

fn newer(have: i32) -> StoreError {
    StoreError::Fatal(format!(
        "the store was set up by a newer herald (version {have}; this one knows {NEWEST})"
    ))
}

macro_rules! statements {
    ($($(#[$doc:meta])* $prepare:ident $name:ident = $cql:literal;)+) => {
        /// Every statement on the tables, prepared once.
        pub(super) struct Statements {
            $($(#[$doc])* pub(super) $name: PreparedStatement,)+
        }

        impl Statements {
            pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
                Ok(Self { $($name: session.$prepare($cql).await?,)+ })
            }
        }
    };
}

statements! {
    prepare put_notification =
        "UPDATE ks.notifications USING TTL ? AND TIMESTAMP ?
         SET status = ?, state = ?, channel = ?, priority = ?, identity = ?, message = ?,
             calls = calls + ?
         WHERE bucket = ? AND shard = ? AND id = ?";
    prepare get_notifications =
        "SELECT identity, state, message FROM ks.notifications
         WHERE bucket = ? AND shard = ? AND id IN ?";
    prepare get_calls =
        "SELECT calls FROM ks.notifications WHERE bucket = ? AND shard = ? AND id = ?";
    /// What a list is filtered by, newest first.
    prepare scan_notifications =
        "SELECT id, status, channel, priority FROM ks.notifications
         WHERE bucket = ? AND shard = ? AND id >= ? AND id < ? LIMIT ?";
    prepare put_ref =
        "INSERT INTO ks.refs (kind, bucket, shard, value, id) VALUES (?, ?, ?, ?, ?) USING TTL ?";
    prepare scan_refs =
        "SELECT id FROM ks.refs WHERE kind = ? AND bucket = ? AND shard = ? AND value = ?
         AND id >= ? AND id < ? LIMIT ?";
    prepare note_bucket =
        "UPDATE ks.buckets USING TTL ? AND TIMESTAMP ? SET until = ? WHERE kind = ? AND bucket = ?";
    prepare scan_buckets =
        "SELECT bucket FROM ks.buckets WHERE kind = ? AND bucket >= ? AND bucket <= ?";
    prepare get_totals =
        "SELECT at, day, status, channel, priority, number FROM ks.totals WHERE part = ?";
    prepare get_counts =
        "SELECT day, status, channel, priority, number FROM ks.totals WHERE part = ? AND day IN ?";
    prepare_once first_totals = "UPDATE ks.totals SET at = ? WHERE part = ? IF at = null";
    prepare_once next_totals = "UPDATE ks.totals SET at = ? WHERE part = ? IF at = ?";
    prepare_once put_count =
        "UPDATE ks.totals USING TTL ? SET number = ?
         WHERE part = ? AND day = ? AND status = ? AND channel = ? AND priority = ?";
    prepare put_claim =
        "UPDATE ks.claims USING TTL ? SET worker = ?, outcome = ?
         WHERE bucket = ? AND shard = ? AND id = ? AND attempt = ?";
    prepare get_claims =
        "SELECT id, attempt, outcome FROM ks.claims WHERE bucket = ? AND shard = ? AND id IN ?";
    prepare delete_claim =
        "DELETE FROM ks.claims WHERE bucket = ? AND shard = ? AND id = ? AND attempt = ?";
    prepare_once end_race =
        "INSERT INTO ks.races (bucket, shard, id, attempt, ended) VALUES (?, ?, ?, ?, ?)
         IF NOT EXISTS USING TTL ?";
    prepare_settled get_race =
        "SELECT ended FROM ks.races WHERE bucket = ? AND shard = ? AND id = ? AND attempt = ?";
    prepare_once take_key =
        "INSERT INTO ks.keys (scope, key, value, digest, leased_until, kept_until)
         VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS USING TTL ?";
    prepare_settled get_key =
        "SELECT value, digest, leased_until, kept_until, answer FROM ks.keys
         WHERE scope = ? AND key = ?";
    prepare_once lease_key =
        "UPDATE ks.keys USING TTL ? SET leased_until = ? WHERE scope = ? AND key = ?
         IF value = ? AND leased_until = ?";
    prepare_once answer_key =
        "UPDATE ks.keys USING TTL ? SET answer = ? WHERE scope = ? AND key = ? IF value = ?";
    prepare note_api_key_use =
        "INSERT INTO ks.api_key_uses (id, at) VALUES (?, ?) USING TTL ? AND TIMESTAMP ?";
    prepare get_api_key_use = "SELECT at FROM ks.api_key_uses WHERE id = ?";
    prepare_once first_owner =
        "INSERT INTO ks.schedules (shard, owner, send_at, id) VALUES (?, ?, ?, ?) IF NOT EXISTS";
    prepare_once next_owner = "UPDATE ks.schedules SET owner = ? WHERE shard = ? IF EXISTS";
    prepare_settled get_schedule = "SELECT send_at, id FROM ks.schedules WHERE shard = ?";
    prepare_once advance_schedule =
        "UPDATE ks.schedules SET send_at = ?, id = ? WHERE shard = ? IF owner = ?";
    prepare put_scheduled =
        "INSERT INTO ks.scheduled (shard, bucket, send_at, id, body) VALUES (?, ?, ?, ?, ?)
         USING TTL ?";
    prepare scan_scheduled =
        "SELECT send_at, id, body FROM ks.scheduled WHERE shard = ? AND bucket = ?
         AND (send_at, id) > (?, ?) AND (send_at, id) <= (?, ?) LIMIT ?";
    prepare put_event =
        "UPDATE ks.events USING TTL ?
         SET event = ?, payload = ?, occurred_at = ?, correlation_id = ?
         WHERE bucket = ? AND shard = ? AND id = ?";
    prepare put_matched =
        "UPDATE ks.events USING TTL ? SET matched = ? WHERE bucket = ? AND shard = ? AND id = ?";
    prepare get_event =
        "SELECT event, payload, occurred_at, correlation_id, matched FROM ks.events
         WHERE bucket = ? AND shard = ? AND id = ?";
    prepare scan_events =
        "SELECT id, event, occurred_at, correlation_id FROM ks.events
         WHERE bucket = ? AND shard = ? AND id >= ? AND id < ? LIMIT ?";
    prepare put_batch =
        "UPDATE ks.batches USING TTL ? SET body = ? WHERE bucket = ? AND shard = ? AND id = ?";
    prepare get_batch = "SELECT body FROM ks.batches WHERE bucket = ? AND shard = ? AND id = ?";
    prepare put_dead_letter =
        "UPDATE ks.dead_letters USING TTL ? SET body = ?, head = ?
         WHERE bucket = ? AND shard = ? AND id = ?";
    /// The head is written with the body, and it is short.
    prepare get_letters_written =
        "SELECT id, WRITETIME(head) FROM ks.dead_letters
         WHERE bucket = ? AND shard = ? AND id IN ?";
    prepare note_requeued =
        "UPDATE ks.dead_letters USING TTL ? SET requeued_as = ?
         WHERE bucket = ? AND shard = ? AND id = ?";
    prepare get_dead_letter =
        "SELECT body, requeued_as FROM ks.dead_letters
         WHERE bucket = ? AND shard = ? AND id = ?";
    prepare scan_newest_letters =
        "SELECT head, requeued_as FROM ks.dead_letters
         WHERE bucket = ? AND shard = ? AND id >= ? AND id < ? LIMIT ?";
    prepare scan_oldest_letters =
        "SELECT head, requeued_as FROM ks.dead_letters
         WHERE bucket = ? AND shard = ? AND id > ? AND id < ? ORDER BY id ASC LIMIT ?";
    prepare get_catalog_version = "SELECT version FROM ks.catalog WHERE one = 1 LIMIT 1";
    prepare_settled get_settled_version = "SELECT version FROM ks.catalog WHERE one = 1 LIMIT 1";
    prepare get_catalog =
        "SELECT version, kind, body, retired FROM ks.catalog WHERE one = 1";
    prepare get_object =
        "SELECT number, name, body, retired FROM ks.catalog
         WHERE one = 1 AND kind = ? AND key = ? ORDER BY kind DESC, key DESC, number DESC LIMIT 1";
    prepare get_holder =
        "SELECT holder FROM ks.catalog WHERE one = 1 AND kind = ? AND key = ? AND number = 0";
    prepare_once first_version =
        "UPDATE ks.catalog SET version = ? WHERE one = 1 IF version = null";
    prepare_once next_version =
        "UPDATE ks.catalog SET version = ? WHERE one = 1 IF version = ?";
    prepare_once put_object =
        "INSERT INTO ks.catalog (one, kind, key, number, name, body, retired)
         VALUES (1, ?, ?, ?, ?, ?, false)";
    prepare_once retire_object =
        "UPDATE ks.catalog SET retired = true WHERE one = 1 AND kind = ? AND key = ? AND number = ?";
    prepare_once delete_object =
        "DELETE FROM ks.catalog WHERE one = 1 AND kind = ? AND key = ? AND number = ?";
    prepare_once put_holder =
        "INSERT INTO ks.catalog (one, kind, key, number, holder) VALUES (1, ?, ?, 0, ?)";
    prepare_once delete_holder =
        "DELETE FROM ks.catalog WHERE one = 1 AND kind = ? AND key = ? AND number = 0";
}
