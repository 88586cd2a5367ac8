//! The connection: how it is made, statements run singly and in batches.

use std::{collections::BTreeMap, fmt, fs, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use herald_telemetry::{Operation, RoundTrips};
use openssl::ssl::{SslContext, SslMethod, SslVerifyMode};
use scylla::{
    client::{
        execution_profile::ExecutionProfile, session::Session as Driver,
        session_builder::SessionBuilder,
    },
    deserialize::row::DeserializeRow,
    errors::{NextRowError, PagerExecutionError},
    response::query_result::QueryResult,
    serialize::row::SerializeRow,
    statement::{
        Consistency, SerialConsistency,
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
    value::Row,
};
use tokio::time::timeout;

use super::errors::{failed, no_page, not_connected, not_prepared, unreadable};
use crate::StoreError;

/// Where the cluster is and how it is spoken to.
#[derive(Clone)]
pub struct ScyllaSettings {
    /// Some of its nodes, `host:port`; the others are learnt from them.
    pub nodes: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// User and password, where the cluster asks for them.
    pub login: Option<(String, String)>,
    /// TLS, where it is wanted.
    pub tls: Option<Tls>,
    /// How many copies of each row a new keyspace keeps.
    pub replication_factor: u32,
}

/// Shows neither user nor password.
impl fmt::Debug for ScyllaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScyllaSettings")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .finish_non_exhaustive()
    }
}

/// How the nodes' certificates are checked: against these authorities, and each for the address
/// that the node is connected to, which has to be among its subject alternative names.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// A PEM file of the certificates to trust; none: the system's.
    pub ca: Option<String>,
}

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the cluster may take to tell about itself.
const SESSION_WITHIN: Duration = Duration::from_secs(15);
/// How long a request may take, the driver's own retries included.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a change of the tables may take: less than a setup has the right to make it.
const SCHEMA_WITHIN: Duration = Duration::from_secs(45);
/// How many requests of one call are under way at once.
const REQUESTS_AT_ONCE: usize = 16;
/// How large a batch may become: the databases refuse one of half a commit log segment (16 MiB),
/// and handle small ones better.
const BATCH_BYTES: usize = 1 << 20;
/// How many rows a batch may have.
const BATCH_ROWS: usize = 100;
/// How many ids one statement asks for: ScyllaDB takes no more.
const IDS_AT_ONCE: usize = 100;

/// A partition of a table that has buckets: the bucket and the shard.
pub(super) type Place = (i64, i32);

/// A connection to the cluster.
pub(super) struct Session {
    driver: Driver,
    keyspace: String,
    trips: Trips,
}

/// What is timed: each request to the cluster that reads or writes rows; a read of many pages as a
/// whole. Every method of [`Session`] that makes one names its kind.
#[derive(Clone)]
pub(super) struct Trips {
    reads: Operation,
    writes: Operation,
    conditional: Operation,
}

impl Trips {
    pub(super) fn new(trips: &RoundTrips) -> Self {
        Self {
            reads: trips.operation("read"),
            writes: trips.operation("write"),
            conditional: trips.operation("conditional_write"),
        }
    }
}

impl Session {
    /// Connects to the cluster; the keyspace need not be there yet.
    pub(super) async fn connect(
        settings: &ScyllaSettings,
        trips: Trips,
    ) -> Result<Self, StoreError> {
        // As the databases call it where it is written without quotes.
        let keyspace = settings.keyspace.to_ascii_lowercase();
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::Quorum)
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(REQUEST_WITHIN))
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&settings.nodes)
            .connection_timeout(CONNECT_WITHIN)
            .keyspaces_to_fetch([&keyspace])
            .fetch_full_schema_metadata(false)
            .default_execution_profile_handle(profile.into_handle());
        if let Some((user, password)) = &settings.login {
            builder = builder.user(user, password);
        }
        if let Some(tls) = &settings.tls {
            builder = builder.tls_context(Some(tls_context(tls)?));
        }
        let connecting = timeout(SESSION_WITHIN, builder.build()).await;
        let nodes = || settings.nodes.join(",");
        let driver = connecting
            .map_err(|_| {
                StoreError::Unavailable(format!("{}: no answer within {SESSION_WITHIN:?}", nodes()))
            })?
            .map_err(|error| not_connected(&nodes(), &error))?;
        Ok(Self {
            driver,
            keyspace,
            trips,
        })
    }

    /// The keyspace, as the databases call it.
    pub(super) fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// Whether the cluster answers.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let answer = self
            .driver
            .query_unpaged("SELECT key FROM system.local WHERE key = 'local'", ());
        self.trips.reads.time(answer).await.map_err(failed)?;
        Ok(())
    }

    /// Runs a change of the keyspace or its tables, and waits until all nodes know of it.
    pub(super) async fn alter(&self, statement: &str) -> Result<(), StoreError> {
        let statement = self.in_keyspace(statement);
        let altered = timeout(SCHEMA_WITHIN, self.driver.query_unpaged(statement, ())).await;
        altered
            .map_err(|_| {
                StoreError::Unavailable(format!("no change of tables within {SCHEMA_WITHIN:?}"))
            })?
            .map_err(failed)?;
        Ok(())
    }

    /// A statement with the keyspace in place of `ks`: the databases discourage `USE` beside
    /// prepared statements.
    fn in_keyspace(&self, statement: &str) -> String {
        statement.replace(" ks.", &format!(" {}.", self.keyspace))
    }

    /// Prepares a statement that may be run twice without harm. `ks.` in it is the keyspace.
    pub(super) async fn prepare(&self, statement: &str) -> Result<PreparedStatement, StoreError> {
        let mut prepared = self.prepare_once(statement).await?;
        prepared.set_is_idempotent(true);
        Ok(prepared)
    }

    /// Prepares a statement that the driver must not repeat by itself: a conditional write.
    pub(super) async fn prepare_once(
        &self,
        statement: &str,
    ) -> Result<PreparedStatement, StoreError> {
        let prepared = self.driver.prepare(self.in_keyspace(statement)).await;
        prepared.map_err(|error| not_prepared(&error))
    }

    /// Prepares a read of what is written conditionally that first finishes the writes whose end
    /// nobody learnt of. Another read can find one on a single node, and the next read miss it.
    pub(super) async fn prepare_settled(
        &self,
        statement: &str,
    ) -> Result<PreparedStatement, StoreError> {
        let mut prepared = self.prepare(statement).await?;
        prepared.set_consistency(Consistency::Serial);
        Ok(prepared)
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn execute(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), StoreError> {
        self.run(&self.trips.writes, statement, values).await?;
        Ok(())
    }

    async fn run(
        &self,
        trip: &Operation,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, StoreError> {
        let answer = self.driver.execute_unpaged(statement, values);
        trip.time(answer).await.map_err(failed)
    }

    /// The rows of a statement that is bounded by itself: by a LIMIT, by the keys it names.
    pub(super) async fn rows<T>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<T>, StoreError>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let result = self.run(&self.trips.reads, statement, values).await?;
        let result = result.into_rows_result().map_err(unreadable)?;
        let rows = result.rows::<T>().map_err(unreadable)?;
        rows.collect::<Result<_, _>>().map_err(unreadable)
    }

    /// The one row of such a statement, or none.
    pub(super) async fn row<T>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Option<T>, StoreError>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        Ok(self.rows(statement, values).await?.pop())
    }

    /// All rows of a statement that may have any number of them, read page by page.
    pub(super) async fn all_rows<T>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<T>, StoreError>
    where
        T: 'static + Send + for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let pages = self.pages(statement, values);
        self.trips.reads.time(pages).await
    }

    async fn pages<T>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<T>, StoreError>
    where
        T: 'static + Send + for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let pager = self.driver.execute_iter(statement.clone(), values).await;
        let pager = pager.map_err(|error| match error {
            PagerExecutionError::PrepareError(error) => not_prepared(&error),
            PagerExecutionError::NextPageError(error) => no_page(&error),
            other => StoreError::Unavailable(other.to_string()),
        })?;
        let rows = pager.rows_stream::<T>().map_err(unreadable)?;
        let no_row = |error| match error {
            NextRowError::NextPageError(error) => no_page(&error),
            other => unreadable(other),
        };
        rows.map_err(no_row).try_collect().await
    }

    /// The rows of a statement for each of the values, in their order, many asked for at once.
    pub(super) async fn rows_of_each<T, V>(
        &self,
        statement: &PreparedStatement,
        each: Vec<V>,
    ) -> Result<Vec<Vec<T>>, StoreError>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
        V: SerializeRow,
    {
        let mut reads = Vec::with_capacity(each.len());
        for values in each {
            reads.push(self.rows(statement, values));
        }
        stream::iter(reads)
            .buffered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    /// The rows with these ids, by a statement that takes bucket, shard and ids; in no order. Page
    /// by page: a hundred rows can be a hundred megabytes, which ScyllaDB refuses to send as one.
    pub(super) async fn rows_of_ids<T>(
        &self,
        statement: &PreparedStatement,
        ids: impl IntoIterator<Item = (Place, [u8; 16])>,
    ) -> Result<Vec<T>, StoreError>
    where
        T: 'static + Send + for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let mut places: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
        for (place, id) in ids {
            places.entry(place).or_default().push(id.to_vec());
        }
        let mut reads = Vec::new();
        for ((bucket, shard), ids) in &places {
            for ids in ids.chunks(IDS_AT_ONCE) {
                reads.push(self.all_rows(statement, (*bucket, *shard, ids)));
            }
        }
        let rows: Vec<Vec<T>> = stream::iter(reads)
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Writes rows by one statement, in batches within a partition each; those of different
    /// partitions at once. Rows come as (partition, bytes, values).
    pub(super) async fn write<P, V>(
        &self,
        statement: &PreparedStatement,
        rows: impl IntoIterator<Item = (P, usize, V)>,
    ) -> Result<(), StoreError>
    where
        P: Ord,
        V: SerializeRow,
    {
        let batches = batches(rows);
        let mut writes = Vec::with_capacity(batches.len());
        for values in &batches {
            writes.push(self.write_batch(statement, values));
        }
        stream::iter(writes)
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn write_batch<V: SerializeRow>(
        &self,
        statement: &PreparedStatement,
        values: &[V],
    ) -> Result<(), StoreError> {
        if let [one] = values {
            return self.execute(statement, one).await;
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        for _ in values {
            batch.append_statement(statement.clone());
        }
        let answer = self.driver.batch(&batch, values);
        self.trips.writes.time(answer).await.map_err(failed)?;
        Ok(())
    }

    /// Runs conditional writes of one partition as one; whether they were applied.
    pub(super) async fn apply(
        &self,
        writes: Vec<(&PreparedStatement, Box<dyn SerializeRow + Send + Sync>)>,
    ) -> Result<bool, StoreError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        let mut values = Vec::with_capacity(writes.len());
        for (statement, row) in writes {
            batch.append_statement(statement.clone());
            values.push(row);
        }
        let answer = self.driver.batch(&batch, &values);
        applied(self.trips.conditional.time(answer).await.map_err(failed)?)
    }

    /// [`Session::apply_one`] for each of the values, many at once; in their order.
    pub(super) async fn apply_each<V: SerializeRow>(
        &self,
        statement: &PreparedStatement,
        each: Vec<V>,
    ) -> Result<Vec<bool>, StoreError> {
        let mut writes = Vec::with_capacity(each.len());
        for values in each {
            writes.push(self.apply_one(statement, values));
        }
        stream::iter(writes)
            .buffered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    /// As [`Session::apply`], for one statement.
    pub(super) async fn apply_one(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, StoreError> {
        let answer = self.run(&self.trips.conditional, statement, values);
        applied(answer.await?)
    }
}

/// What a conditional write answers. By its name: the databases answer different other columns.
fn applied(answer: QueryResult) -> Result<bool, StoreError> {
    let rows = answer.into_rows_result().map_err(unreadable)?;
    let column = rows.column_specs().get_by_name("[applied]");
    let (index, _) =
        column.ok_or_else(|| unreadable("a conditional write without [applied] in its answer"))?;
    let first: Row = rows.first_row().map_err(unreadable)?;
    let value = first.columns.get(index).and_then(Option::as_ref);
    value
        .and_then(scylla::value::CqlValue::as_boolean)
        .ok_or_else(|| unreadable("[applied] is no boolean"))
}

/// Groups rows by partition, keeping their order, into batches that are not too large.
fn batches<P: Ord, V>(rows: impl IntoIterator<Item = (P, usize, V)>) -> Vec<Vec<V>> {
    let mut rows: Vec<(P, usize, V)> = rows.into_iter().collect();
    rows.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut batches: Vec<Vec<V>> = Vec::new();
    let (mut partition, mut filled) = (None, 0);
    for (of, bytes, row) in rows {
        match batches.last_mut() {
            Some(batch)
                if partition.as_ref() == Some(&of)
                    && batch.len() < BATCH_ROWS
                    && filled + bytes <= BATCH_BYTES =>
            {
                batch.push(row);
                filled += bytes;
            }
            _ => {
                batches.push(vec![row]);
                partition = Some(of);
                filled = bytes;
            }
        }
    }
    batches
}

fn tls_context(tls: &Tls) -> Result<SslContext, StoreError> {
    let wrong = |error: openssl::error::ErrorStack| StoreError::Fatal(format!("TLS: {error}"));
    let mut context = SslContext::builder(SslMethod::tls_client()).map_err(wrong)?;
    context.set_verify(SslVerifyMode::PEER);
    match &tls.ca {
        None => context.set_default_verify_paths().map_err(wrong)?,
        Some(file) => {
            // Read here, so that a missing file is named.
            fs::metadata(file).map_err(|error| StoreError::Fatal(format!("{file}: {error}")))?;
            context.set_ca_file(file).map_err(wrong)?;
        }
    }
    Ok(context.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_one_partition_and_is_bounded_in_rows_and_bytes() {
        let rows = (0..250).map(|n| (n % 2, 10, n));
        let sizes: Vec<usize> = batches(rows).iter().map(Vec::len).collect();
        assert_eq!(sizes, [100, 25, 100, 25]);
        let large = (0..5).map(|n| (0, BATCH_BYTES / 2, n));
        assert_eq!(batches(large), [vec![0, 1], vec![2, 3], vec![4]]);
        let huge = [(0, BATCH_BYTES * 3, 'a'), (0, 1, 'b')];
        assert_eq!(batches(huge), [vec!['a'], vec!['b']]);
    }

    #[test]
    fn rows_keep_their_order_within_a_partition() {
        let rows = [(1, 1, "a"), (0, 1, "b"), (1, 1, "c")];
        assert_eq!(batches(rows), [vec!["b"], vec!["a", "c"]]);
    }

    #[test]
    fn settings_do_not_print_the_password() {
        let settings = ScyllaSettings {
            nodes: vec!["a:9042".to_owned()],
            keyspace: "herald".to_owned(),
            login: Some(("user".to_owned(), "hunter2".to_owned())),
            tls: None,
            replication_factor: 1,
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
