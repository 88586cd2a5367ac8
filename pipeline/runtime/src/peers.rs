//! What workers tell each other, on the topic `control`: who is there, what each of them has to do,
//! and how much of a channel's limit is whose.
//!
//! Everybody reads all of it and works with what the log says, of itself too. So all go by the same
//! numbers, but for the moments that a record takes to arrive, and the parts of a limit that
//! workers take add up to the limit.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use herald_broker::{Broker, Record, Start, Subscription, Turn};
use herald_schemas::{ids::UnixMs, records::Control, topics::Topics, words::Channel};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, broadcast},
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    inbox::Inbox,
    outbox::Outbox,
    stage::Stage,
    worker::{Shutdown, StageError, now},
};

/// How often a worker says how it is.
const BEAT: Duration = Duration::from_secs(1);
/// How soon after that it may say so again, when something changed.
const SHORTEST_BEAT: Duration = Duration::from_millis(50);
/// How long a worker counts that says nothing.
const ALIVE: Duration = Duration::from_secs(3);
/// How long a record may take to be acked before it is given up: the next one says the same.
const SENT_WITHIN: Duration = Duration::from_secs(2);
/// Which part of a limit is kept for workers that have no backlog, while others have one.
const RESERVE: f64 = 0.05;
/// How many commands may wait for a stage's supervisor.
const MOST_COMMANDS: usize = 64;

/// The kinds of records on `control`.
const HEARTBEAT: &str = "worker";
const COMMAND: &str = "command";

/// What a worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Its name in claims: where it runs.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// When it started.
    pub started_at: UnixMs,
    /// Whether it is about to be gone.
    pub is_leaving: bool,
    /// Its stages.
    pub stages: BTreeMap<String, StageReport>,
    /// What deliver has to do.
    pub channels: BTreeMap<Channel, Demand>,
    /// The providers that it leaves alone for now.
    pub open_breakers: BTreeMap<Channel, Vec<Arc<str>>>,
}

/// How a stage is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageReport {
    /// Whether it is running, not stopped nor between two starts.
    pub is_running: bool,
    /// Whether it is to run.
    pub is_wanted: bool,
    /// How often it failed and was started again.
    pub restarts: u32,
}

/// What deliver has to do for a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// How many partitions it holds.
    pub held: u32,
    /// In how many of them records wait because of the limit.
    pub waiting: u32,
}

/// What an operator wants of a worker's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// To run.
    Start,
    /// Not to run, until they are started or the process is.
    Stop,
    /// To finish what they have in hand, and start anew.
    Restart,
}

/// An action and the stages that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What is to be done.
    pub action: Action,
    /// By name; empty: all that the worker has.
    pub stages: Vec<String>,
}

/// A worker that was heard of lately.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it said last.
    pub heartbeat: Heartbeat,
    /// When it said so, by its clock.
    pub at: UnixMs,
    heard: Instant,
}

/// All that this process knows of the workers, and what it tells of itself if it is one.
pub struct Peers {
    id: Arc<str>,
    mine: Mutex<Heartbeat>,
    changed: Notify,
    members: Mutex<HashMap<String, Member>>,
    commands: broadcast::Sender<Command>,
}

impl Peers {
    /// For a process that is `id` to the others.
    pub fn new(id: &str, name: &str) -> Arc<Self> {
        let mine = Heartbeat {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: now(),
            ..Heartbeat::default()
        };
        Arc::new(Self {
            id: id.into(),
            mine: Mutex::new(mine),
            changed: Notify::new(),
            members: Mutex::default(),
            commands: broadcast::channel(MOST_COMMANDS).0,
        })
    }

    /// This process' id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The workers that were heard of lately, by id.
    pub fn members(&self) -> BTreeMap<String, Member> {
        let members = unpoisoned(&self.members);
        let alive = members
            .iter()
            .filter(|(_, one)| one.is_alive(Instant::now()));
        alive.map(|(id, one)| (id.clone(), one.clone())).collect()
    }

    /// What is wanted of this worker's stages from now on.
    pub(crate) fn commands(&self) -> broadcast::Receiver<Command> {
        self.commands.subscribe()
    }

    /// Says how a stage is.
    pub(crate) fn report_stage(&self, stage: Stage, report: StageReport) {
        self.change(|mine| mine.stages.insert(stage.as_str().to_owned(), report) != Some(report));
    }

    /// Says what deliver has to do, and whom it leaves alone.
    pub(crate) fn report_deliver(
        &self,
        channels: BTreeMap<Channel, Demand>,
        open_breakers: BTreeMap<Channel, Vec<Arc<str>>>,
    ) {
        self.change(|mine| {
            let is_new = mine.channels != channels || mine.open_breakers != open_breakers;
            (mine.channels, mine.open_breakers) = (channels, open_breakers);
            is_new
        });
    }

    /// Which part of a channel's limit is this worker's. None: nothing was heard lately, of
    /// itself above all.
    pub(crate) fn share(&self, channel: Channel) -> Option<f64> {
        let (members, now) = (unpoisoned(&self.members), Instant::now());
        members.get(&*self.id).filter(|me| me.is_alive(now))?;
        let demand = |one: &Member| one.heartbeat.channels.get(&channel).copied();
        let alive = members.iter().filter(|(_, one)| one.is_alive(now));
        let demands = alive.map(|(id, one)| (**id == *self.id, demand(one).unwrap_or_default()));
        Some(share(demands))
    }

    /// Tells and listens until shutdown is asked for; `tells`: whether this process is a worker.
    pub async fn run(
        &self,
        broker: &dyn Broker,
        topics: &Topics,
        inbox: &Inbox,
        outbox: &Outbox,
        tells: bool,
        mut shutdown: Shutdown,
    ) {
        let work = async {
            tokio::join!(self.listen_on(broker, topics, inbox), async {
                if tells {
                    self.tell_on(outbox).await;
                }
            })
        };
        tokio::select! {
            _ = work => {}
            () = shutdown.asked() => {}
        }
        if tells {
            self.change(|mine| std::mem::replace(&mut mine.is_leaving, true));
            self.tell(outbox).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Heartbeat) -> bool) {
        let is_new = change(&mut unpoisoned(&self.mine));
        if is_new {
            self.changed.notify_one();
        }
    }

    async fn tell_on(&self, outbox: &Outbox) {
        loop {
            self.tell(outbox).await;
            sleep(SHORTEST_BEAT).await;
            let _ = timeout(BEAT - SHORTEST_BEAT, self.changed.notified()).await;
        }
    }

    async fn tell(&self, outbox: &Outbox) {
        let body = serde_json::to_string(&*unpoisoned(&self.mine)).unwrap_or_default();
        let record = Control {
            kind: HEARTBEAT.to_owned(),
            name: self.id.to_string(),
            body,
            at: now(),
        };
        match timeout(SENT_WITHIN, outbox.control(&record)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the other workers were not told of this one"),
            Err(_) => warn!("the other workers were not told of this one in time"),
        }
    }

    async fn listen_on(&self, broker: &dyn Broker, topics: &Topics, inbox: &Inbox) {
        loop {
            if let Err(error) = self.listen(broker, topics, inbox).await {
                warn!(%error, "the other workers are not heard; listening again");
                sleep(BEAT).await;
            }
        }
    }

    async fn listen(
        &self,
        broker: &dyn Broker,
        topics: &Topics,
        inbox: &Inbox,
    ) -> Result<(), StageError> {
        let what = Subscription {
            group: None,
            topics: vec![topics.control()],
            start: Start::Latest,
            max_batch: 1_000,
        };
        let mut consumer = broker.subscribe(what).await?;
        loop {
            if let Turn::Records(records) = consumer.next(BEAT).await? {
                for record in records {
                    self.hear(&record, inbox).await?;
                }
            }
            unpoisoned(&self.members).retain(|_, one| one.heard.elapsed() < 10 * ALIVE);
        }
    }

    /// What cannot be read is of a version to come, and not for us.
    async fn hear(&self, record: &Record, inbox: &Inbox) -> Result<(), StageError> {
        let Ok(control) = inbox.decode::<Control>(&record.value).await? else {
            return Ok(());
        };
        match control.kind.as_str() {
            HEARTBEAT => {
                let Ok(heartbeat) = serde_json::from_str::<Heartbeat>(&control.body) else {
                    return Ok(());
                };
                let mut members = unpoisoned(&self.members);
                if heartbeat.is_leaving {
                    members.remove(&control.name);
                    return Ok(());
                }
                let member = Member {
                    heartbeat,
                    at: control.at,
                    heard: Instant::now(),
                };
                members.insert(control.name, member);
            }
            COMMAND if control.name == *self.id => {
                if let Ok(command) = serde_json::from_str::<Command>(&control.body) {
                    // Nobody listens where no stage runs.
                    let _ = self.commands.send(command);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What tells a worker what to do with its stages.
pub fn command(worker: &str, command: &Command) -> Control {
    Control {
        kind: COMMAND.to_owned(),
        name: worker.to_owned(),
        body: serde_json::to_string(command).unwrap_or_default(),
        at: now(),
    }
}

impl Member {
    fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) < ALIVE
    }
}

/// What is behind it is whole after every step.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Our part of a limit: by partitions in which records wait, of all workers' that have some; those
/// that have none share the reserve by the partitions they hold.
fn share(demands: impl Iterator<Item = (bool, Demand)>) -> f64 {
    let (mut waiting, mut idle) = (0, 0);
    let mut mine = Demand::default();
    for (is_mine, demand) in demands {
        if is_mine {
            mine = demand;
        }
        match demand.waiting {
            0 => idle += demand.held,
            some => waiting += some,
        }
    }
    let part = |part: u32, all: u32| f64::from(part) / f64::from(all.max(1));
    let reserve = match (waiting, idle) {
        (0, _) => 1.0,
        (_, 0) => 0.0,
        _ => RESERVE,
    };
    match mine.waiting {
        0 => reserve * part(mine.held, idle),
        some => (1.0 - reserve) * part(some, waiting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of all workers that hold and have waiting so much.
    fn shares(demands: &[(u32, u32)]) -> Vec<f64> {
        let of = |me: usize| {
            let demands = demands.iter().enumerate();
            share(demands.map(|(index, (held, waiting))| {
                let (held, waiting) = (*held, *waiting);
                (index == me, Demand { held, waiting })
            }))
        };
        (0..demands.len()).map(of).collect()
    }

    #[test]
    fn parts_go_by_what_waits_and_add_up_to_the_limit() {
        for (demands, expected) in [
            (&[(36, 0)][..], &[1.0][..]),
            (&[(36, 12)], &[1.0]),
            (&[(18, 0), (18, 0)], &[0.5, 0.5]),
            (&[(18, 9), (18, 3)], &[0.75, 0.25]),
            (&[(18, 1), (18, 0)], &[0.95, 0.05]),
            (&[(12, 1), (12, 0), (12, 0)], &[0.95, 0.025, 0.025]),
            // One that has just come and holds nothing takes nothing away.
            (&[(36, 12), (0, 0)], &[1.0, 0.0]),
        ] {
            assert_eq!(shares(demands), expected, "{demands:?}");
            let sum: f64 = shares(demands).iter().sum();
            assert!((sum - 1.0).abs() < 1e-9, "{demands:?}: {sum}");
        }
        assert_eq!(shares(&[(0, 0)]), [0.0]);
    }

    #[test]
    fn what_a_worker_says_reads_back_and_may_say_less() {
        let mut heartbeat = Heartbeat::default();
        heartbeat.channels.insert(Channel::Sms, Demand::default());
        let json = serde_json::to_string(&heartbeat).unwrap();
        assert_eq!(serde_json::from_str::<Heartbeat>(&json).unwrap(), heartbeat);
        assert_eq!(
            serde_json::from_str::<Heartbeat>("{}").unwrap(),
            Heartbeat::default()
        );
    }
}
