//! Whether something may be sent now: the limit of its channel, what is paused, and which of its
//! providers are well. Nothing is claimed that may not be sent.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use herald_channels::Provider;
use herald_schemas::{
    catalog::Controls,
    records::Attempt,
    words::{Channel, Priority},
};
use herald_stages::deliver::TRANSIENT;

use super::{
    breaker::{Breaker, Health, Leave},
    bucket::Bucket,
};
use crate::{
    limits::Limits,
    providers::{Providers, Route},
};

/// The gates of all channels.
pub(super) struct Gates {
    limits: Limits,
    gates: Vec<Gate>,
    paused: Paused,
}

/// What operators hold back.
#[derive(Default)]
struct Paused {
    everything: bool,
    channels: [bool; Channel::ALL.len()],
    lanes: [bool; 3],
}

/// The gate of one channel.
struct Gate {
    bucket: Bucket,
    /// How many a second all workers may send together.
    limit: Option<f64>,
    /// How much of that is this worker's.
    share: f64,
    /// How many were let through and are not sent yet: they are being claimed.
    claiming: u32,
    /// All providers, as configured.
    all: Route,
    providers: Vec<Watched>,
    health: Health,
}

/// What is known of a provider.
struct Watched {
    name: Arc<str>,
    breaker: Breaker,
}

/// Leave to make one attempt: a token, and whom to ask.
pub(super) struct Pass {
    /// In the order in which they are asked.
    pub(super) providers: Route,
    /// Which of the channel's providers is probed.
    probe: Option<usize>,
}

impl Gates {
    /// Everything is open and nobody has a token yet.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        let gate = |_: &Channel| Gate {
            bucket: Bucket::new(now),
            limit: None,
            share: 0.0,
            claiming: 0,
            all: Route::default(),
            providers: Vec::new(),
            health: Health::new(limits.health),
        };
        Self {
            gates: Channel::ALL.iter().map(gate).collect(),
            paused: Paused::default(),
            limits,
        }
    }

    /// Takes over what operators have set.
    pub(super) fn control(&mut self, controls: &Controls, now: Instant) {
        self.paused = Paused {
            everything: controls.paused.everything,
            channels: std::array::from_fn(|index| {
                controls.paused.channels.contains(&Channel::ALL[index])
            }),
            lanes: std::array::from_fn(|index| {
                controls.paused.lanes.contains(&Priority::ALL[index])
            }),
        };
        for (channel, gate) in Channel::ALL.iter().zip(&mut self.gates) {
            let set = controls.rate_limits.get(channel).copied();
            let limit = set.unwrap_or_else(|| self.limits.per_second(*channel));
            gate.limit = (limit > 0).then(|| f64::from(limit));
            gate.set_rate(now);
        }
    }

    /// Takes over the providers of each channel. New ones have done nothing wrong yet.
    pub(super) fn provide(&mut self, providers: &Providers) {
        for (channel, gate) in Channel::ALL.iter().zip(&mut self.gates) {
            let route = providers.of(*channel);
            let is_same = |(one, other)| Arc::ptr_eq(one, other);
            if route.len() == gate.all.len() && route.iter().zip(gate.all.iter()).all(is_same) {
                continue;
            }
            let watched = |provider: &Arc<dyn Provider>| Watched {
                name: provider.name().into(),
                breaker: Breaker::new(self.limits.breaker),
            };
            gate.providers = route.iter().map(watched).collect();
            gate.health = Health::new(self.limits.health);
            gate.all = route;
        }
    }

    /// Sets which part of a channel's limit is this worker's.
    pub(super) fn share(&mut self, channel: Channel, share: f64, now: Instant) {
        let gate = &mut self.gates[channel as usize];
        gate.share = share;
        gate.set_rate(now);
    }

    /// Whether one of this channel and lane may be sent now.
    pub(super) fn is_open(&mut self, channel: Channel, lane: Priority, now: Instant) -> bool {
        let paused = &self.paused;
        let is_paused =
            paused.everything || paused.channels[channel as usize] || paused.lanes[lane.index()];
        let gate = &mut self.gates[channel as usize];
        !is_paused && gate.may_ask(now) && gate.is_within_limit(now)
    }

    /// Whether the limit alone keeps the channel waiting.
    pub(super) fn is_limited(&mut self, channel: Channel, now: Instant) -> bool {
        let is_paused = self.paused.everything || self.paused.channels[channel as usize];
        let gate = &mut self.gates[channel as usize];
        !is_paused && gate.may_ask(now) && !gate.is_within_limit(now)
    }

    /// Lets one through an open gate.
    pub(super) fn pass(&mut self, channel: Channel, now: Instant) -> Pass {
        let gate = &mut self.gates[channel as usize];
        gate.bucket.take();
        gate.claiming += 1;
        gate.route(now)
    }

    /// It is being sent.
    pub(super) fn sending(&mut self, channel: Channel) {
        self.gates[channel as usize].claiming -= 1;
    }

    /// It is not sent after all: the next one may have its leave.
    pub(super) fn give_back(&mut self, channel: Channel, pass: &Pass, now: Instant) {
        let gate = &mut self.gates[channel as usize];
        gate.claiming -= 1;
        gate.bucket.give_back();
        if let Some(probed) = pass.probe.and_then(|index| gate.providers.get_mut(index)) {
            probed.breaker.probe_again(now);
        }
    }

    /// Learns from how an attempt went.
    pub(super) fn used(&mut self, channel: Channel, pass: &Pass, calls: &[Attempt], now: Instant) {
        let gate = &mut self.gates[channel as usize];
        for (index, provider) in gate.providers.iter_mut().enumerate() {
            let call = calls.iter().find(|call| call.provider == *provider.name);
            let is_probe = pass.probe == Some(index);
            // None as well: not asked, since the one before it has accepted.
            let Some(failed) = call.and_then(failed) else {
                if is_probe {
                    provider.breaker.probe_again(now);
                }
                continue;
            };
            provider.breaker.note(failed, is_probe, now);
            if index == 0 {
                gate.health.note(failed, now);
            }
        }
    }

    /// How long until a gate opens that is shut for a time only: to look again then.
    pub(super) fn wait(&mut self, channel: Channel, now: Instant) -> Option<Duration> {
        let gate = &mut self.gates[channel as usize];
        if gate.may_ask(now) {
            return gate.bucket.wait(now);
        }
        let probes = gate
            .providers
            .iter()
            .filter_map(|one| one.breaker.opens_at());
        Some(probes.min()?.saturating_duration_since(now))
    }

    /// The breakers that are open, by channel.
    pub(super) fn open_breakers(&self) -> BTreeMap<Channel, Vec<Arc<str>>> {
        let mut open = BTreeMap::new();
        for (channel, gate) in Channel::ALL.iter().zip(&self.gates) {
            let names = gate.providers.iter().filter(|one| one.breaker.is_open());
            let names: Vec<Arc<str>> = names.map(|one| Arc::clone(&one.name)).collect();
            if !names.is_empty() {
                open.insert(*channel, names);
            }
        }
        open
    }
}

/// Whether a call failed in a way that may pass. None: it says nothing of the provider, which was
/// not asked, since what was to be sent is not for it.
fn failed(call: &Attempt) -> Option<bool> {
    match &call.error {
        None => Some(false),
        Some(error) if error.kind == TRANSIENT => Some(true),
        Some(_) => call.response.is_some().then_some(false),
    }
}

impl Gate {
    fn set_rate(&mut self, now: Instant) {
        let rate = self.limit.map(|limit| limit * self.share);
        self.bucket.set_rate(rate, now);
    }

    /// Whether the limit lets one more through. Those who are being claimed go all at once when that
    /// took long, so they are few.
    fn is_within_limit(&mut self, now: Instant) -> bool {
        let most = self
            .bucket
            .capacity()
            .map_or(u32::MAX, |most| (most as u32).max(2));
        self.claiming < most && self.bucket.has_one(now)
    }

    /// Whether there is somebody to ask. A channel without providers has its records told so.
    fn may_ask(&self, now: Instant) -> bool {
        let mut providers = self.providers.iter();
        providers.len() == 0 || providers.any(|one| one.breaker.leave(now) != Leave::None)
    }

    /// Whom to ask, in order: an unhealthy primary last, an open breaker's provider not at all.
    fn route(&mut self, now: Instant) -> Pass {
        let is_good = self.health.is_good(now) || self.providers.len() < 2;
        let is_well = |one: &Watched| one.breaker.leave(now) == Leave::Call;
        if is_good && self.providers.iter().all(is_well) {
            return Pass {
                providers: Arc::clone(&self.all),
                probe: None,
            };
        }
        let mut order: Vec<usize> = (0..self.providers.len()).collect();
        if !is_good {
            order.rotate_left(1);
        }
        let mut probe = None;
        let mut asked = Vec::with_capacity(order.len());
        for index in order {
            let breaker = &mut self.providers[index].breaker;
            match breaker.leave(now) {
                Leave::None => continue,
                Leave::Probe if probe.is_some() => continue,
                Leave::Probe => {
                    breaker.probe();
                    probe = Some(index);
                }
                Leave::Call => {}
            }
            asked.push(Arc::clone(&self.all[index]));
        }
        Pass {
            providers: asked.into(),
            probe,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use herald_channels::{Call, Reply};
    use herald_schemas::{catalog::Paused, records::Failure};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SMS: Channel = Channel::Sms;
    const NORMAL: Priority = Priority::Normal;

    /// One that is asked by nobody here.
    struct Named(&'static str);

    #[async_trait]
    impl Provider for Named {
        fn name(&self) -> &str {
            self.0
        }

        async fn send(&self, _: &Call) -> Reply {
            std::future::pending().await
        }
    }

    fn gates(names: &[&'static str], now: Instant) -> Gates {
        let mut gates = Gates::new(Limits::default(), now);
        let provider = |name: &&'static str| Arc::new(Named(name)) as Arc<dyn Provider>;
        let mut providers = Providers::default();
        providers.set(SMS, names.iter().map(provider).collect());
        gates.provide(&providers);
        gates.control(&Controls::default(), now);
        gates.share(SMS, 1.0, now);
        gates
    }

    /// Whom the next one asks; none: nothing may go.
    fn asked(gates: &mut Gates, now: Instant) -> Option<(Pass, Vec<String>)> {
        if !gates.is_open(SMS, NORMAL, now) {
            return None;
        }
        let pass = gates.pass(SMS, now);
        let names = pass.providers.iter().map(|one| one.name().to_owned());
        let names = names.collect();
        Some((pass, names))
    }

    /// Lets one through and says how those who are asked answer.
    fn attempt(gates: &mut Gates, failing: &[&str], now: Instant) -> Vec<String> {
        let (pass, names) = asked(gates, now).expect("an open gate");
        gates.sending(SMS);
        let mut calls = Vec::new();
        for name in &names {
            let failed = failing.contains(&name.as_str());
            calls.push(call(name, failed));
            if !failed {
                break;
            }
        }
        gates.used(SMS, &pass, &calls, now);
        names
    }

    fn call(provider: &str, failed: bool) -> Attempt {
        Attempt {
            number: 1,
            step: 0,
            provider: provider.to_owned(),
            started_at: 0,
            latency_ms: 0,
            error: failed.then(|| Failure {
                kind: TRANSIENT.to_owned(),
                code: "http_500".to_owned(),
                message: String::new(),
            }),
            response: None,
        }
    }

    #[test]
    fn a_provider_that_fails_is_left_alone_but_for_one_probe_at_a_time() {
        let now = Instant::now();
        let mut gates = gates(&["one"], now);
        for _ in 0..5 {
            assert_eq!(attempt(&mut gates, &["one"], now), ["one"]);
        }
        assert!(asked(&mut gates, now).is_none());
        assert_eq!(gates.wait(SMS, now), Some(30 * SECOND));
        assert_eq!(gates.open_breakers()[&SMS], [Arc::from("one")]);
        let later = now + 30 * SECOND;
        let (probe, _) = asked(&mut gates, later).expect("a probe");
        assert!(asked(&mut gates, later).is_none(), "one at a time");
        // What was to be the probe is cancelled, say.
        gates.give_back(SMS, &probe, later);
        attempt(&mut gates, &["one"], later);
        assert!(asked(&mut gates, later + 4 * SECOND).is_none());
        attempt(&mut gates, &[], later + 5 * SECOND);
        attempt(&mut gates, &[], later + 5 * SECOND);
        assert!(gates.open_breakers().is_empty());
    }

    #[test]
    fn while_a_fallback_is_well_nothing_waits_for_the_primary() {
        let now = Instant::now();
        let mut gates = gates(&["one", "two"], now);
        for _ in 0..3 {
            assert_eq!(attempt(&mut gates, &["one"], now), ["one", "two"]);
        }
        assert_eq!(attempt(&mut gates, &[], now), ["two", "one"], "unhealthy");
        let later = now + 61 * SECOND;
        for _ in 0..3 {
            assert_eq!(attempt(&mut gates, &["one"], later), ["one", "two"]);
        }
        for _ in 0..5 {
            attempt(&mut gates, &["one", "two"], later);
        }
        let open = gates.open_breakers();
        assert_eq!(open[&SMS], [Arc::from("one"), Arc::from("two")]);
        assert!(asked(&mut gates, later).is_none());
        // Each is probed by an attempt of its own, and the one that is well takes the rest.
        let probing = later + 30 * SECOND;
        let (first, names) = asked(&mut gates, probing).expect("a probe");
        assert_eq!(names, ["two"]);
        gates.sending(SMS);
        gates.used(SMS, &first, &[call("two", false)], probing);
        assert_eq!(attempt(&mut gates, &[], probing), ["two", "one"]);
        assert_eq!(gates.open_breakers()[&SMS], [Arc::from("one")]);
        let healthy = later + 61 * SECOND;
        assert_eq!(attempt(&mut gates, &[], healthy), ["one", "two"]);
        assert!(gates.open_breakers().is_empty());
    }

    #[test]
    fn what_a_provider_was_not_asked_says_nothing_of_it() {
        let now = Instant::now();
        let mut gates = gates(&["one"], now);
        for _ in 0..5 {
            attempt(&mut gates, &["one"], now);
        }
        let later = now + 30 * SECOND;
        let (probe, _) = asked(&mut gates, later).expect("a probe");
        gates.sending(SMS);
        let mut refused = call("one", true);
        if let Some(error) = &mut refused.error {
            error.kind = "permanent".to_owned();
        }
        gates.used(SMS, &probe, &[refused.clone()], later);
        assert!(!gates.open_breakers().is_empty(), "nobody was asked");
        // What the provider itself refuses for good shows that it is there.
        let (probe, _) = asked(&mut gates, later).expect("another probe");
        gates.sending(SMS);
        refused.response = Some("no such number".to_owned());
        gates.used(SMS, &probe, &[refused], later);
        assert!(gates.open_breakers().is_empty());
    }

    #[test]
    fn other_providers_begin_with_a_good_name() {
        let now = Instant::now();
        let mut gates = gates(&["one"], now);
        for _ in 0..5 {
            attempt(&mut gates, &["one"], now);
        }
        let mut providers = Providers::default();
        providers.set(SMS, vec![Arc::new(Named("one"))]);
        gates.provide(&providers);
        assert_eq!(attempt(&mut gates, &[], now), ["one"]);
    }

    #[test]
    fn what_is_paused_stays_shut_and_the_rest_open() {
        let now = Instant::now();
        let mut gates = gates(&["one"], now);
        let mut pause = |paused: Paused| {
            let controls = Controls {
                paused,
                ..Controls::default()
            };
            gates.control(&controls, now);
            [(SMS, NORMAL), (SMS, Priority::Low), (Channel::Log, NORMAL)]
                .map(|(channel, lane)| gates.is_open(channel, lane, now))
        };
        let everything = Paused {
            everything: true,
            ..Paused::default()
        };
        assert_eq!(pause(everything), [false; 3]);
        let sms = Paused {
            channels: [SMS].into(),
            ..Paused::default()
        };
        assert_eq!(pause(sms), [false, false, true]);
        let low = Paused {
            lanes: [Priority::Low].into(),
            ..Paused::default()
        };
        assert_eq!(pause(low), [true, false, true]);
        assert_eq!(pause(Paused::default()), [true; 3]);
    }

    #[test]
    fn a_limit_is_for_what_is_sent_and_few_are_claimed_ahead() {
        let now = Instant::now();
        let mut gates = gates(&["one"], now);
        let limited = Controls {
            rate_limits: [(SMS, 100)].into(),
            ..Controls::default()
        };
        gates.control(&limited, now);
        gates.share(SMS, 0.5, now);
        assert!(gates.is_limited(SMS, now));
        assert_eq!(gates.wait(SMS, now), Some(SECOND / 50));
        let mut at = now;
        let mut passes = Vec::new();
        for _ in 0..100 {
            at += SECOND / 50;
            passes.extend(asked(&mut gates, at).map(|(pass, _)| pass));
        }
        assert_eq!(passes.len(), 2, "none of them is claimed yet");
        for pass in &passes {
            gates.give_back(SMS, pass, at);
        }
        assert!(gates.is_open(SMS, NORMAL, at), "none of them was sent");
    }
}
