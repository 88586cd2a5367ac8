//! A worker: any set of stages in one process, each started anew when it fails.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use herald_broker::{Broker, BrokerError, Consumer, Partition, Start, Subscription};
use herald_registry::RegistryError;
use herald_schemas::{
    ids::UnixMs,
    topics::Topics,
    words::{Channel, Priority},
};
use herald_stages::Settings;
use herald_store::{Store, StoreError};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    catalogs::Catalogs,
    deliver,
    inbox::Inbox,
    limits::Limits,
    materialize,
    metrics::Metrics,
    outbox::{Outbox, OutboxError},
    peers::{Action, Command, Peers, StageReport},
    providers::Providers,
    schedule,
    stage::Stage,
    transform,
};

/// Why a stage stopped. It is started anew and goes on where its group last committed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The log.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The schema registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What a stage said could not be written.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Another process counts this partition now.
    #[error("{0} is materialized by another worker")]
    Superseded(Partition),
    /// Another process lets what is scheduled in this shard go on now.
    #[error("shard {0} of what is scheduled has another owner")]
    NotOwner(i32),
}

/// What every stage works with.
#[derive(Clone)]
pub struct Worker {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Topic and group names.
    pub topics: Topics,
    /// Decodes.
    pub inbox: Inbox,
    /// Encodes and produces.
    pub outbox: Arc<Outbox>,
    /// Compiled rules and templates.
    pub catalogs: Arc<Catalogs>,
    /// What the pure stages go by.
    pub settings: Arc<Settings>,
    /// Who carries what.
    pub providers: Arc<ArcSwap<Providers>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This worker's name in claims.
    pub name: Arc<str>,
    /// How many provider calls are made at once.
    pub max_calls: usize,
    /// How much may be sent, and when it is better not to.
    pub limits: Limits,
    /// The other workers.
    pub peers: Arc<Peers>,
    /// What of the work it takes.
    pub serves: Serves,
    /// How many partitions each of the `deliveries` topics has.
    pub partitions: u32,
}

/// What deliver, and by lane also render, of a worker takes; the rest is other workers'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serves {
    /// These channels.
    pub channels: Vec<Channel>,
    /// These lanes.
    pub lanes: Vec<Priority>,
}

impl Default for Serves {
    /// All.
    fn default() -> Self {
        Self {
            channels: Channel::ALL.to_vec(),
            lanes: Priority::ALL.to_vec(),
        }
    }
}

/// Tells everything in a process to finish and stop.
#[derive(Clone)]
pub struct Shutdown {
    asked: watch::Receiver<bool>,
}

impl Shutdown {
    /// A shutdown, and what triggers it by being called or dropped.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (trigger, asked) = watch::channel(false);
        (trigger, Self { asked })
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow() || self.asked.has_changed().is_err()
    }

    /// Resolves once it is asked for.
    pub async fn asked(&mut self) {
        let _ = self.asked.wait_for(|asked| *asked).await;
    }
}

/// How long a stage is given to finish what it has in hand.
pub(crate) const DRAIN: Duration = Duration::from_secs(4);

/// Unix milliseconds of this machine's clock.
pub fn now() -> UnixMs {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as UnixMs)
}

/// The pause before a stage that failed starts again, at first.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What operators want of a stage.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    is_stopped: bool,
    /// How often it was to start anew.
    restarts: u32,
}

/// Resolves when something else is wanted, or the end.
async fn changed(wanted: &mut watch::Receiver<Wanted>, shutdown: &mut Shutdown) {
    tokio::select! {
        Ok(()) = wanted.changed() => {}
        () = shutdown.asked() => {}
    }
}

/// Hands on what operators want, for ever.
async fn obey(
    mut commands: broadcast::Receiver<Command>,
    stages: &HashMap<Stage, watch::Sender<Wanted>>,
) {
    loop {
        let command = match commands.recv().await {
            Ok(command) => command,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        };
        info!(action = ?command.action, stages = ?command.stages, "an operator's command");
        for (stage, want) in stages {
            let names = &command.stages;
            if names.is_empty() || names.iter().any(|name| name == stage.as_str()) {
                want.send_modify(|wanted| match command.action {
                    Action::Start => wanted.is_stopped = false,
                    Action::Stop => wanted.is_stopped = true,
                    Action::Restart => {
                        wanted.is_stopped = false;
                        wanted.restarts += 1;
                    }
                });
            }
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), StageError>> + Send>>;

impl Worker {
    /// Runs `stages` until shutdown is asked for and what they have in hand is finished.
    pub async fn run(self, stages: &[Stage], shutdown: Shutdown) {
        let mut running = JoinSet::new();
        let mut wanted = HashMap::new();
        for stage in stages {
            let (want, wanted_of) = watch::channel(Wanted::default());
            wanted.insert(*stage, want);
            running.spawn(self.clone().supervise(*stage, wanted_of, shutdown.clone()));
        }
        let obey = obey(self.peers.commands(), &wanted);
        let stages = async {
            while let Some(stopped) = running.join_next().await {
                if let Err(error) = stopped {
                    error!(%error, "a stage panicked");
                }
            }
        };
        tokio::select! {
            () = obey => {}
            () = stages => {}
        }
    }

    /// Starts a stage again and again, pausing between failures, for as long as it is wanted.
    async fn supervise(
        self,
        stage: Stage,
        mut wanted: watch::Receiver<Wanted>,
        mut shutdown: Shutdown,
    ) {
        let mut pause = SHORTEST_PAUSE;
        let mut restarts = 0;
        while !shutdown.is_asked() {
            let is_wanted = !wanted.borrow_and_update().is_stopped;
            let report = |is_running, restarts| StageReport {
                is_running,
                is_wanted,
                restarts,
            };
            self.peers.report_stage(stage, report(is_wanted, restarts));
            self.metrics.wanted(stage, is_wanted);
            if !is_wanted {
                changed(&mut wanted, &mut shutdown).await;
                continue;
            }
            info!(%stage, "stage started");
            let started = tokio::time::Instant::now();
            let (stop, stopping) = Shutdown::new();
            // On a task of its own: a panic in a stage is a failure like any other.
            let mut running = tokio::spawn(self.start(stage, stopping));
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = changed(&mut wanted, &mut shutdown) => {
                    stop.send_replace(true);
                    running.await
                }
            };
            self.metrics.stopped(stage);
            match ended {
                Ok(Ok(())) => {
                    info!(%stage, "stage stopped");
                    continue;
                }
                Ok(Err(error)) => warn!(%stage, %error, "stage failed; it starts again"),
                Err(error) => error!(%stage, %error, "stage panicked; it starts again"),
            }
            restarts += 1;
            self.metrics.restarted(stage);
            self.peers.report_stage(stage, report(false, restarts));
            if started.elapsed() > Duration::from_secs(60) {
                pause = SHORTEST_PAUSE;
            }
            let _ = timeout(pause, shutdown.asked()).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Joins a stage's group: from here on it is running.
    pub(crate) async fn subscribe(
        &self,
        stage: Stage,
        topics: Vec<String>,
        max_batch: usize,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let what = Subscription {
            group: Some(self.topics.group(stage.as_str())),
            topics,
            start: Start::Earliest,
            max_batch,
        };
        let consumer = self.broker.subscribe(what).await?;
        self.metrics.started(stage);
        Ok(consumer)
    }

    fn start(&self, stage: Stage, shutdown: Shutdown) -> Running {
        let worker = self.clone();
        match stage {
            Stage::Match => Box::pin(transform::run(worker, transform::Match, shutdown)),
            Stage::Render => Box::pin(transform::run(worker, transform::Render, shutdown)),
            Stage::Retry => Box::pin(transform::run(worker, transform::Retry, shutdown)),
            Stage::Deliver => Box::pin(deliver::run(worker, shutdown)),
            Stage::Schedule => Box::pin(schedule::run(worker, shutdown)),
            Stage::Materialize => Box::pin(materialize::run(worker, shutdown)),
        }
    }
}

/// Calls `attempt` until it succeeds, pausing longer and longer, up to `pause_limit`. To be
/// dropped when nobody wants the result any more.
pub(crate) async fn until_ok<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                warn!(%error, what, "trying again");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }
}
