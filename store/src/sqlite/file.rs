//! The file: one thread that writes, a few connections that read.
//!
//! SQLite has one writer at a time, and a transaction costs a sync of the disk, however much is in
//! it. So everything that waits to be written goes into one transaction (group commit): each job
//! in a savepoint of its own, so that one that fails takes nothing else with it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use herald_telemetry::{Operation, RoundTrips};
use rusqlite::Connection;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::tables;
use crate::{StoreError, round_trips};
use prometheus::core::Collector;

/// How many jobs may wait for the writer.
const QUEUE: usize = 256;
/// How many jobs share a transaction at the most.
const GROUP: usize = 64;
const READERS: usize = 4;
/// After this time the disk is said to hang.
const PATIENCE: Duration = Duration::from_secs(30);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Fatal(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// A job, run within the group's transaction, and how its result gets back once that is committed.
type Job = Box<dyn FnOnce(&Connection) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// An open file.
pub(super) struct File {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    /// As many as there are permits, at the most.
    idle: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
    trips: RoundTrips,
    reads: Operation,
    writes: Operation,
}

impl File {
    /// Opens the file, making an empty one when there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = open(path)?;
        let trips = round_trips()?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_all(connection, queue))
            .map_err(|error| StoreError::Fatal(error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            jobs,
            idle: Arc::default(),
            reading: Arc::new(Semaphore::new(READERS)),
            reads: trips.operation("read"),
            writes: trips.operation("write"),
            trips,
        })
    }

    /// How long each read and each write took, its wait for others included.
    pub(super) fn round_trips(&self) -> Box<dyn Collector> {
        self.trips.collector()
    }

    /// Writes, and answers once it is on the disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = in_savepoint(connection, job);
            Box::new(move |committed| {
                // Nobody waiting for the answer is no concern of the writer's.
                let _ = done.send(committed.and(outcome));
            })
        });
        let gone = || StoreError::Fatal("the store's writer has ended".to_owned());
        let work = async {
            self.jobs.send(job).await.map_err(|_| gone())?;
            result.await.map_err(|_| gone())?
        };
        self.writes.time(in_time(work)).await
    }

    /// Reads; what was written before is seen.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let work = async {
            let permit = Arc::clone(&self.reading).acquire_owned().await;
            let (idle, path) = (Arc::clone(&self.idle), self.path.clone());
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let connection = match lock(&idle).pop() {
                    Some(connection) => connection,
                    None => open_reader(&path)?,
                };
                let answer = read(&connection);
                lock(&idle).push(connection);
                answer
            });
            task.await
                .unwrap_or_else(|error| Err(StoreError::Fatal(error.to_string())))
        };
        self.reads.time(in_time(work)).await
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!(
            "no answer from the disk within {PATIENCE:?}"
        )))
    })
}

fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let named = |error: rusqlite::Error| StoreError::Fatal(format!("{}: {error}", path.display()));
    let connection = Connection::open(path).map_err(named)?;
    connection
        .execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA busy_timeout = 5000; PRAGMA cache_size = -32000;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(named)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the file for reading; only once it has its tables, so that nothing above asks for them.
fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000;")?;
    connection.set_prepared_statement_cache_capacity(64);
    tables::check(&connection)?;
    Ok(connection)
}

fn write_all(connection: Connection, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(GROUP);
    while let Some(job) = queue.blocking_recv() {
        jobs.push(job);
        while jobs.len() < GROUP
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        write_group(&connection, jobs.drain(..));
    }
}

fn write_group(connection: &Connection, jobs: impl Iterator<Item = Job>) {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        // Dropped unrun, a job answers that the writer has ended; so run each on its own instead,
        // which answers with what is really wrong.
        for job in jobs {
            job(connection)(Err(StoreError::Unavailable(error.to_string())));
        }
        return;
    }
    let replies: Vec<Reply> = jobs.map(|job| job(connection)).collect();
    let committed = connection.execute_batch("COMMIT").map_err(|error| {
        let _ = connection.execute_batch("ROLLBACK");
        error.to_string()
    });
    for reply in replies {
        reply(committed.clone().map_err(StoreError::Unavailable));
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if connection.is_autocommit() {
        return Err(StoreError::Unavailable(
            "the store cannot be written to".to_owned(),
        ));
    }
    connection.execute_batch("SAVEPOINT job")?;
    let outcome = job(connection);
    if outcome.is_err() {
        connection.execute_batch("ROLLBACK TO job")?;
    }
    connection.execute_batch("RELEASE job")?;
    outcome
}
