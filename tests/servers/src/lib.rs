//! Kafka, Cassandra and a Confluent-compatible registry for tests: fetched once, started on free
//! ports of the loopback interface, ended with whoever started them.
//!
//! [`process`] and [`net`] are also what the end-to-end tests start `herald` with. What the tests
//! send to these servers is not here.

mod apicurio;
mod cassandra;
mod install;
mod kafka;
pub mod net;
pub mod process;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use cassandra::drop_keyspace;
pub use install::{Installed, fetch, once, run, unavailable};

use process::Process;

/// Where Kafka is, `host:port`.
pub const KAFKA: &str = "HERALD_TEST_KAFKA";
/// Where Cassandra is, `host:port`.
pub const SCYLLA: &str = "HERALD_TEST_SCYLLA";
/// Where the registry is, a URL.
pub const REGISTRY: &str = "HERALD_TEST_REGISTRY";
/// Set to `1`: tests that need the servers fail without them, where they are else left out.
pub const REAL: &str = "HERALD_TEST_REAL";

/// How long a server may take to be ready; on a busy machine it takes several times its usual 5 s.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a server may take to end before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// What went wrong, where, and what the server last said.
#[derive(Debug)]
pub struct Error(pub(crate) String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn io(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// The three servers, running. Dropped, they are stopped and their data is removed.
pub struct Servers {
    // Before `_directory`: they end before their data is taken away.
    processes: Vec<Process>,
    environment: Vec<(&'static str, String)>,
    _directory: RunDirectory,
}

impl Servers {
    /// Starts the three and waits until they answer. They end with the calling thread, so call
    /// this on one that lives as long as they are needed.
    pub fn start(installed: &Installed, target: &Path) -> Result<Self, Error> {
        let directory = RunDirectory::new(target)?;
        let path = &directory.0;
        let kafka = kafka::start(installed, &path.join("kafka"))?;
        let cassandra = cassandra::start(installed, &path.join("cassandra"))?;
        let apicurio = apicurio::start(installed, &path.join("apicurio"))?;
        let environment = vec![
            (KAFKA, format!("127.0.0.1:{}", kafka.port)),
            (SCYLLA, format!("127.0.0.1:{}", cassandra.port)),
            (
                REGISTRY,
                format!("http://127.0.0.1:{}/apis/ccompat/v7", apicurio.port),
            ),
        ];
        let mut processes = Vec::new();
        for starting in [kafka, cassandra, apicurio] {
            processes.push(starting.ready()?);
        }
        Ok(Self {
            processes,
            environment,
            _directory: directory,
        })
    }

    /// The variables by which tests find the servers.
    pub fn environment(&self) -> &[(&'static str, String)] {
        &self.environment
    }

    /// The server processes.
    pub fn processes(&mut self) -> &mut [Process] {
        &mut self.processes
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // All are told before the first is waited for.
        for process in &self.processes {
            process.signal("TERM");
        }
        for process in &mut self.processes {
            process.stop(STOPPED_WITHIN);
        }
    }
}

/// A server that was started and may not be ready yet.
struct Starting {
    process: Process,
    port: u16,
    is_ready: fn(u16) -> bool,
}

impl Starting {
    fn ready(mut self) -> Result<Process, Error> {
        let port = self.port;
        let is_ready = self.is_ready;
        self.process
            .ready(READY_WITHIN, || is_ready(port))
            .map_err(Error)?;
        Ok(self.process)
    }
}

/// A directory of this process' own, below `servers/run`. What processes left behind that are no
/// more is removed on the way.
struct RunDirectory(PathBuf);

impl RunDirectory {
    fn new(target: &Path) -> Result<Self, Error> {
        let run = target.join("servers/run");
        fs::create_dir_all(&run).map_err(Error::io(run.display()))?;
        let run = run.canonicalize().map_err(Error::io(run.display()))?;
        for entry in fs::read_dir(&run)
            .map_err(Error::io(run.display()))?
            .flatten()
        {
            let of_dead_process = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
                .is_some_and(|pid| !process::is_alive(pid));
            if of_dead_process {
                // Another run may be removing the same.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let own = run.join(std::process::id().to_string());
        fs::create_dir_all(&own).map_err(Error::io(own.display()))?;
        Ok(Self(own))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
