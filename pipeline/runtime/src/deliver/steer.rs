//! Keeps the gates as they should be: what operators have set, which providers there are, and which
//! part of each limit is this worker's; and tells the other workers what it has to do.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use herald_schemas::words::{Channel, Priority};

use super::{IDLE_WAIT, Runner};
use crate::{peers::Demand, providers::Providers};

/// How often there is a look at all that.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a backlog counts as one after it was last seen, so that it is not told to come and go.
const BACKLOG_LASTS: Duration = Duration::from_secs(1);
/// The shortest wait for a gate: what it lets go meanwhile is claimed together. Less than what a
/// bucket saves up.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// What was looked at last.
#[derive(Default)]
pub(super) struct Steering {
    looked: Option<Instant>,
    catalog_version: Option<i64>,
    providers: Option<Arc<Providers>>,
    /// Whether records wait that may not go for now, or whose recipient is being served.
    pub(super) is_held_back: bool,
    /// In how many partitions of each channel records waited because of its limit, and when.
    backlogs: [Option<(u32, Instant)>; Channel::ALL.len()],
}

impl Runner {
    /// Looks whether something changed, now and then.
    pub(super) fn steer(&mut self) {
        let now = Instant::now();
        let looked = self.steering.looked;
        if looked.is_some_and(|looked| now.duration_since(looked) < LOOK_EVERY) {
            return;
        }
        self.steering.looked = Some(now);
        let catalog = self.worker.catalogs.current();
        if self.steering.catalog_version != Some(catalog.version()) {
            self.steering.catalog_version = Some(catalog.version());
            self.gates.control(catalog.controls(), now);
        }
        let providers = self.worker.providers.load_full();
        let known = self.steering.providers.as_ref();
        if !known.is_some_and(|known| Arc::ptr_eq(known, &providers)) {
            self.gates.provide(&providers);
            self.steering.providers = Some(providers);
        }
        self.take_shares(now);
    }

    fn take_shares(&mut self, now: Instant) {
        let held = self.queues.held();
        let all = self.worker.partitions * Priority::ALL.len() as u32;
        let mut demands = BTreeMap::new();
        for channel in self.worker.serves.channels.clone() {
            let held = held[channel as usize];
            let waiting = self.backlog(channel, now);
            demands.insert(channel, Demand { held, waiting });
            let by_partitions = || f64::from(held) / f64::from(all.max(1));
            let share = self.worker.peers.share(channel);
            self.gates
                .share(channel, share.unwrap_or_else(by_partitions), now);
        }
        let open = self.gates.open_breakers();
        self.worker.peers.report_deliver(demands, open);
    }

    /// In how many partitions records wait because of the limit, or did so a moment ago.
    fn backlog(&mut self, channel: Channel, now: Instant) -> u32 {
        let is_limited = !self.queues.is_empty() && self.gates.is_limited(channel, now);
        let waiting = match is_limited {
            true => self.queues.waiting(channel) as u32,
            false => 0,
        };
        let backlog = &mut self.steering.backlogs[channel as usize];
        if waiting > 0 {
            *backlog = Some((waiting, now));
        } else if backlog.is_some_and(|(_, at)| now.duration_since(at) > BACKLOG_LASTS) {
            *backlog = None;
        }
        backlog.map_or(0, |(waiting, _)| waiting)
    }

    /// How long until something that waits may be let go.
    pub(super) fn until_a_gate_opens(&mut self) -> Duration {
        if !self.steering.is_held_back {
            return IDLE_WAIT;
        }
        let now = Instant::now();
        let waits = self.worker.serves.channels.iter().filter_map(|&channel| {
            (self.queues.waiting(channel) > 0).then(|| self.gates.wait(channel, now))?
        });
        let wait = waits.filter(|wait| !wait.is_zero()).min();
        wait.map_or(IDLE_WAIT, |wait| wait.clamp(SHORTEST_WAIT, IDLE_WAIT))
    }
}
