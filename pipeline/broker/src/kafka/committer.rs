//! Commits what a member has noted, on a thread of its own.
//!
//! rdkafka never reports how an asynchronous commit ended, so one that failed would go unnoticed:
//! commits wait for their answer. When the coordinator is away that takes many seconds, in which
//! the member must still hear that its partitions are lost. Hence not on the member's thread.

use std::{
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use herald_telemetry::Operation;
use rdkafka::{
    Offset,
    consumer::{CommitMode, Consumer as _},
};
use tracing::warn;

use super::{
    cluster::list,
    errors::failed,
    lock,
    member::{Link, Native},
};
use crate::BrokerError;

/// How often noted offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(50);
/// How long after a failure it is tried again.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Committer {
    native: Arc<Native>,
    link: Arc<Link>,
    commits: Operation,
    /// Whoever holds it commits: what is noted meanwhile goes with the next commit.
    turn: Mutex<()>,
}

impl Committer {
    pub(super) fn new(native: Arc<Native>, link: Arc<Link>, commits: Operation) -> Arc<Self> {
        Arc::new(Self {
            native,
            link,
            commits,
            turn: Mutex::new(()),
        })
    }

    /// Starts the thread; it ends with the membership.
    pub(super) fn start(self: &Arc<Self>) -> Result<JoinHandle<()>, BrokerError> {
        let committer = Arc::clone(self);
        let thread = thread::Builder::new().name("kafka-commit".to_owned());
        let started = thread.spawn(move || committer.run());
        started.map_err(|error| BrokerError::Fatal(format!("cannot start a thread: {error}")))
    }

    fn run(&self) {
        let mut wait = COMMIT_EVERY;
        while !self.link.is_leaving() {
            thread::sleep(wait);
            wait = match self.commit() {
                Ok(()) => COMMIT_EVERY,
                Err(error) => {
                    warn!(%error, "offsets not committed; trying again");
                    COMMIT_AGAIN
                }
            };
        }
    }

    /// Commits everything noted so far. A commit that is under way is waited for, so that after
    /// this nothing is.
    pub(super) fn commit(&self) -> Result<(), BrokerError> {
        let _turn = lock(&self.turn);
        let taken = lock(&self.link.notes).take();
        if taken.is_empty() {
            return Ok(());
        }
        let offsets = taken.iter().map(|(one, next)| (one, Offset::Offset(*next)));
        let committed = list(offsets).and_then(|list| {
            let since = Instant::now();
            let committed = self.native.commit(&list, CommitMode::Sync);
            self.commits.took(since, committed.is_ok());
            committed.map_err(|error| failed("cannot commit", &error))
        });
        if committed.is_err() {
            let partitions: Vec<_> = taken.into_iter().map(|(one, _)| one).collect();
            lock(&self.link.notes).failed(&partitions);
        }
        committed
    }
}
