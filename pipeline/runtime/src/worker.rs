//! A worker: any set of stages in one process, each started anew when it fails.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use herald_broker::{Broker, BrokerError, Partition};
use herald_registry::RegistryError;
use herald_schemas::{ids::UnixMs, topics::Topics};
use herald_stages::Settings;
use herald_store::{Store, StoreError};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    catalogs::Catalogs,
    deliver,
    inbox::Inbox,
    materialize,
    metrics::Metrics,
    outbox::{Outbox, OutboxError},
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

type Running = Pin<Box<dyn Future<Output = Result<(), StageError>> + Send>>;

impl Worker {
    /// Runs `stages` until shutdown is asked for and what they have in hand is finished.
    pub async fn run(self, stages: &[Stage], shutdown: Shutdown) {
        let mut running = JoinSet::new();
        for stage in stages {
            running.spawn(self.clone().supervise(*stage, shutdown.clone()));
        }
        while let Some(stopped) = running.join_next().await {
            if let Err(error) = stopped {
                error!(%error, "a stage panicked");
            }
        }
    }

    /// Starts a stage again and again, pausing between failures.
    async fn supervise(self, stage: Stage, mut shutdown: Shutdown) {
        let mut pause = Duration::from_millis(100);
        while !shutdown.is_asked() {
            info!(%stage, "stage started");
            let started = tokio::time::Instant::now();
            // On a task of its own: a panic in a stage is a failure like any other.
            let ended = tokio::spawn(self.start(stage, shutdown.clone())).await;
            match ended {
                Ok(Ok(())) => break,
                Ok(Err(error)) => warn!(%stage, %error, "stage failed; it starts again"),
                Err(error) => error!(%stage, %error, "stage panicked; it starts again"),
            }
            self.metrics.restarted(stage);
            if started.elapsed() > Duration::from_secs(60) {
                pause = Duration::from_millis(100);
            }
            let _ = timeout(pause, shutdown.asked()).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        info!(%stage, "stage stopped");
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
