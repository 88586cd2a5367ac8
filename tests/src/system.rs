//! A whole Herald for one test: the processes of one engine, with an API to talk to.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use herald_test_servers::{
    KAFKA, REGISTRY, SCYLLA, drop_keyspace,
    net::{free_port, http_ok},
    process::{Process, dying_with_parent},
};
use tempfile::TempDir;

use crate::{Client, Provider, SOON, skip};

/// The key that every system of the tests takes.
pub const KEY: &str = "test-key";
const ADMIN_LISTEN: &str = "HERALD_ADMIN_LISTEN";
/// How long `herald` may take to end when it is asked to: what its users are promised.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// What a system runs on.
#[derive(Debug, Clone)]
pub enum Engine {
    /// `herald dev`: one process and a directory.
    Embedded,
    /// Kafka, Cassandra and a registry: `herald setup`, `api` and `worker`.
    Real(Servers),
}

/// Where the real servers are.
#[derive(Debug, Clone)]
pub struct Servers {
    kafka: String,
    scylla: String,
    registry: String,
}

impl Servers {
    /// Kafka, `host:port`.
    pub fn kafka(&self) -> &str {
        &self.kafka
    }

    /// The registry, a URL.
    pub fn registry(&self) -> &str {
        &self.registry
    }
}

impl Engine {
    /// The real servers, where the test command started them; else the test is left out.
    pub fn real(test: &str) -> Option<Self> {
        let servers = || -> Result<Servers, String> {
            Ok(Servers {
                kafka: find(KAFKA)?,
                scylla: find(SCYLLA)?,
                registry: find(REGISTRY)?,
            })
        };
        match servers() {
            Ok(servers) => Some(Self::Real(servers)),
            Err(reason) => {
                skip(&format!("{test} on real servers"), &reason);
                None
            }
        }
    }
}

fn find(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A command that starts the built `herald`, with nothing of the tests' own environment in it.
///
/// # Panics
///
/// When it is not built.
pub fn herald() -> Command {
    let binary = match env::var_os("HERALD_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => {
            // target/PROFILE/deps/THIS → target/PROFILE/herald
            let this = env::current_exe().expect("this program");
            this.ancestors()
                .nth(2)
                .expect("a target directory")
                .join("herald")
        }
    };
    let path = binary.display().to_string();
    assert!(
        binary.exists(),
        "{path} is not there: cargo build -p herald, or set HERALD_BIN"
    );
    let mut command = dying_with_parent(&path);
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    // Many run at once: those that are to show their metrics are told where.
    command.env(ADMIN_LISTEN, "");
    command
}

/// A running system. A test ends with [`System::stop`].
pub struct System {
    engine: Engine,
    address: String,
    /// The admin ports: of the process that has the API in it, and of the worker.
    admin: [String; 2],
    settings: Vec<(String, String)>,
    // Before `directory`: they end before their data is taken away.
    processes: Vec<Process>,
    directory: TempDir,
    stopped: bool,
}

impl System {
    /// Starts everything, with the provider as its way out and these `HERALD_…` variables, and
    /// waits until the API is ready.
    ///
    /// # Panics
    ///
    /// When it does not start; with the end of what it wrote.
    pub fn start(engine: &Engine, provider: &Provider, settings: &[(&str, &str)]) -> Self {
        let mut system = Self::prepare(engine, provider, settings);
        if let Engine::Real(_) = engine {
            let mut setup = system.spawn("setup", &["setup"]);
            let status = setup.ended(SOON);
            assert!(
                status.is_some_and(|status| status.success()),
                "{status:?}\n{}",
                setup.tail()
            );
        }
        system.resume();
        system
    }

    /// As [`System::start`], but nothing of it runs yet and nothing is set up.
    ///
    /// # Panics
    ///
    /// When there is no room for its data.
    pub fn prepare(engine: &Engine, provider: &Provider, settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut all = vec![
            ("API_KEYS".to_owned(), KEY.to_owned()),
            (
                "NOTIFICATION_PROVIDER_WEBHOOK_URL".to_owned(),
                provider.url().to_owned(),
            ),
        ];
        // As fast as it goes and whatever the provider says, unless a test is about just that.
        for (name, value) in [
            ("NOTIFICATION_RATE_LIMIT_PER_SECOND", "0"),
            ("NOTIFICATION_CIRCUIT_FAILURE_THRESHOLD", "1000000"),
        ] {
            all.push((name.to_owned(), value.to_owned()));
        }
        if let Engine::Real(servers) = engine {
            all.extend(servers.settings());
        }
        let mut system = Self {
            engine: engine.clone(),
            address: free_address(),
            admin: [free_address(), free_address()],
            settings: all,
            processes: Vec::new(),
            directory,
            stopped: true,
        };
        for (name, value) in settings {
            system.set(name, value);
        }
        system
    }

    /// Starts the processes, again, on what is stored, and waits until the API is ready.
    ///
    /// # Panics
    ///
    /// When they don't start; with the end of what they wrote.
    pub fn resume(&mut self) {
        self.launch();
        self.until_ready();
    }

    /// Starts the processes and waits for nothing.
    ///
    /// # Panics
    ///
    /// When they cannot be started at all.
    pub fn launch(&mut self) {
        self.processes = match self.engine {
            Engine::Embedded => vec![self.spawn_api()],
            Engine::Real(_) => vec![
                self.spawn_api(),
                self.spawn_showing(&self.admin[1], "worker", &["worker"]),
            ],
        };
        self.stopped = false;
    }

    /// The process that has the API in it: the first.
    fn spawn_api(&self) -> Process {
        match self.engine {
            Engine::Embedded => {
                let data = self.data().display().to_string();
                let arguments = ["dev", "--data", &data, "--listen", &self.address];
                self.spawn_showing(&self.admin[0], "dev", &arguments)
            }
            Engine::Real(_) => {
                let arguments = ["api", "--listen", &self.address];
                self.spawn_showing(&self.admin[0], "api", &arguments)
            }
        }
    }

    /// Ends the process that has the API in it without warning, starts it again and waits until it
    /// is ready. On real servers the worker goes on all the while.
    ///
    /// # Panics
    ///
    /// When it does not start; with the end of what it wrote.
    pub fn kill_and_resume_api(&mut self) {
        self.processes[0].kill();
        self.processes[0] = self.spawn_api();
        self.until_ready();
    }

    /// Waits until the API is ready.
    ///
    /// # Panics
    ///
    /// When it does not get there; with the end of what it wrote.
    pub fn until_ready(&mut self) {
        let port = self.port();
        let api = &mut self.processes[0];
        api.ready(SOON, || http_ok(port, "/readyz"))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts one more API on the same servers, and answers a client of it.
    ///
    /// # Panics
    ///
    /// When it does not start; with the end of what it wrote.
    pub fn another_api(&mut self) -> Client {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut api = self.spawn("another-api", &["api", "--listen", &address]);
        api.ready(SOON, || http_ok(port, "/readyz"))
            .unwrap_or_else(|error| panic!("{error}"));
        self.processes.push(api);
        Client::new(&address, KEY)
    }

    /// Starts one more worker on the same servers.
    pub fn another_worker(&mut self) {
        let worker = self.spawn(&format!("worker-{}", self.processes.len()), &["worker"]);
        self.processes.push(worker);
    }

    /// The running processes.
    pub fn processes(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// The directory of the embedded pair.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A variable that its processes are started with; empty where it is not set.
    pub fn setting(&self, name: &str) -> &str {
        let set = self.settings.iter().rfind(|(set, _)| set == name);
        set.map_or("", |(_, value)| value)
    }

    /// Sets a variable for the processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// What stands before the names of its topics.
    pub fn topics_prefix(&self) -> &str {
        self.setting("HERALD_TOPICS_PREFIX")
    }

    /// Where its API is, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The admin port of the process that has the API in it, `host:port`.
    pub fn admin_address(&self) -> &str {
        &self.admin[0]
    }

    /// Clients of the admin ports: of the one process, or of API and worker.
    pub fn admin(&self) -> Vec<Client> {
        let processes = match self.engine {
            Engine::Embedded => 1,
            Engine::Real(_) => 2,
        };
        let addresses = self.admin.iter().take(processes);
        addresses.map(|address| Client::new(address, "")).collect()
    }

    /// A client of its API.
    pub fn client(&self) -> Client {
        Client::new(&self.address, KEY)
    }

    /// Everything that its processes wrote.
    pub fn output(&self) -> String {
        self.processes.iter().map(Process::output).collect()
    }

    /// Ends all processes without warning.
    pub fn kill(&mut self) {
        for process in &mut self.processes {
            process.kill();
        }
        self.stopped = true;
    }

    /// Asks all processes to end, by `INT` or `TERM`, and checks that they do as promised: soon,
    /// with success, and without having panicked before.
    ///
    /// # Panics
    ///
    /// When they don't.
    pub fn stop_by(&mut self, signal: &str) {
        let asked = Instant::now();
        for process in &mut self.processes {
            assert!(process.is_running(), "ended by itself\n{}", process.tail());
            process.signal(signal);
        }
        self.stopped = true;
        for process in &mut self.processes {
            let left = STOPS_WITHIN.saturating_sub(asked.elapsed());
            let status = process.ended(left);
            assert!(
                status.is_some_and(|status| status.success()),
                "{} did not end well within {STOPS_WITHIN:?} of {signal}: {status:?}\n{}",
                process.name(),
                process.tail()
            );
            assert!(
                !process.output().contains("panicked at"),
                "{}",
                process.tail()
            );
        }
    }

    /// As [`System::stop_by`] with `INT`, what Ctrl-C sends.
    pub fn stop(&mut self) {
        self.stop_by("INT");
    }

    /// Drops what it has in a server that many tests share.
    fn forget_rows(&self) {
        let Engine::Real(servers) = &self.engine else {
            return;
        };
        let (_, keyspace) = self
            .setting("HERALD_STORE_URL")
            .rsplit_once('/')
            .expect("a path");
        if let Err(error) = drop_keyspace(&servers.scylla, keyspace) {
            eprintln!("the keyspace {keyspace} stays: {error}");
        }
    }

    fn port(&self) -> u16 {
        let (_, port) = self.address.rsplit_once(':').expect("an address");
        port.parse().expect("a port")
    }

    /// Starts `herald` with these arguments and the system's settings; `name` tells its output from
    /// that of others.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        self.spawn_showing("", name, arguments)
    }

    /// As [`System::spawn`], with an admin port.
    fn spawn_showing(&self, admin: &str, name: &str, arguments: &[&str]) -> Process {
        let mut command = herald();
        command.args(arguments).current_dir(self.directory.path());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.env(ADMIN_LISTEN, admin);
        let log = self.directory.path().join(format!("{name}.log"));
        Process::spawn(&format!("herald {name}"), command, &log).expect("herald starts")
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

impl Servers {
    /// Topics and a keyspace of a system's own, so that many share the servers.
    fn settings(&self) -> Vec<(String, String)> {
        static SYSTEMS: AtomicU32 = AtomicU32::new(0);
        let number = SYSTEMS.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let name = format!("t{}_{}_{number}", since.as_millis(), std::process::id());
        [
            ("HERALD_BROKER_URL", format!("kafka://{}", self.kafka)),
            (
                "HERALD_STORE_URL",
                format!("scylla://{}/{name}", self.scylla),
            ),
            ("HERALD_SCHEMA_REGISTRY_URL", self.registry.clone()),
            ("HERALD_TOPICS_PREFIX", format!("{name}.")),
            // More than one, to have an order that could be broken; few, for some thirty topics.
            ("HERALD_TOPICS_PARTITIONS", "2".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if thread::panicking() {
            for process in &self.processes {
                eprintln!("{}", process.tail());
            }
        } else {
            assert!(self.stopped, "a test ends with System::stop");
            self.forget_rows();
        }
    }
}
