//! Circuit breakers: a provider that fails is left alone for a while.
//!
//! A breaker opens when, of the last calls, at least half failed and at least so many as are set.
//! Once it was open for its time, it is half open: one probe at a time goes through. A probe that
//! succeeds closes it; after one that fails, the next may go a little later.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many calls are remembered.
const MOST_CALLS: usize = 50;

/// When breakers open and close, and when a fallback goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// The fewest failures that open it.
    pub failures: usize,
    /// How long a call counts.
    pub window: Duration,
    /// How long it stays open before a probe may go.
    pub open_for: Duration,
    /// How long after a probe that failed the next one may go.
    pub probe_every: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            window: Duration::from_secs(60),
            open_for: Duration::from_secs(30),
            probe_every: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// No call before this.
    Open(Instant),
    /// A probe is on its way.
    Probing,
}

/// A breaker of one provider.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// When each of the last calls ended, and whether it failed.
    calls: VecDeque<(Instant, bool)>,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// As any other.
    Call,
    /// As a probe.
    Probe,
    /// Not now.
    None,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            calls: VecDeque::new(),
        }
    }

    /// Whether calls are held back, but for probes.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Whether a call may be made now.
    pub(super) fn leave(&self, now: Instant) -> Leave {
        match self.state {
            State::Closed => Leave::Call,
            State::Open(until) if until <= now => Leave::Probe,
            State::Open(_) | State::Probing => Leave::None,
        }
    }

    /// When a probe may go, where nothing else may.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        match self.state {
            State::Open(until) => Some(until),
            State::Closed | State::Probing => None,
        }
    }

    /// A probe is about to go.
    pub(super) fn probe(&mut self) {
        self.state = State::Probing;
    }

    /// The probe did not go after all.
    pub(super) fn probe_again(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open(now);
        }
    }

    /// Takes a call into account that ended now. While it is open, only the probe's counts: the
    /// others began before.
    pub(super) fn note(&mut self, failed: bool, was_probe: bool, now: Instant) {
        if was_probe {
            self.calls.clear();
            self.state = match failed {
                true => State::Open(now + self.settings.probe_every),
                false => State::Closed,
            };
        } else if self.state == State::Closed {
            self.calls.push_back((now, failed));
            self.forget(now);
            let failures = self.calls.iter().filter(|(_, failed)| *failed).count();
            if failures >= self.settings.failures.max(1) && failures * 2 >= self.calls.len() {
                self.state = State::Open(now + self.settings.open_for);
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |at: Instant| now.duration_since(at) > self.settings.window;
        while self.calls.len() > MOST_CALLS || self.calls.front().is_some_and(|(at, _)| is_old(*at))
        {
            self.calls.pop_front();
        }
    }
}

/// When a fallback goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    /// So many failures …
    pub failures: usize,
    /// … within this time make a primary unhealthy …
    pub window: Duration,
    /// … for this long.
    pub unhealthy_for: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            failures: 3,
            window: Duration::from_secs(60),
            unhealthy_for: Duration::from_secs(60),
        }
    }
}

/// Whether a primary provider is asked first.
#[derive(Debug)]
pub(super) struct Health {
    settings: HealthSettings,
    failures: VecDeque<Instant>,
    unhealthy_until: Option<Instant>,
}

impl Health {
    /// A healthy one.
    pub(super) fn new(settings: HealthSettings) -> Self {
        Self {
            settings,
            failures: VecDeque::new(),
            unhealthy_until: None,
        }
    }

    /// Whether it is asked first.
    pub(super) fn is_good(&self, now: Instant) -> bool {
        self.unhealthy_until.is_none_or(|until| until <= now)
    }

    /// Takes a call into account that ended now.
    pub(super) fn note(&mut self, failed: bool, now: Instant) {
        if !failed {
            return;
        }
        self.failures.push_back(now);
        let is_old = |at: &Instant| now.duration_since(*at) > self.settings.window;
        while self.failures.front().is_some_and(is_old) {
            self.failures.pop_front();
        }
        if self.failures.len() >= self.settings.failures.max(1) {
            self.failures.clear();
            self.unhealthy_until = Some(now + self.settings.unhealthy_for);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn noted(breaker: &mut Breaker, calls: &[bool], now: Instant) {
        for failed in calls {
            breaker.note(*failed, false, now);
        }
    }

    #[test]
    fn it_opens_when_half_of_the_calls_fail_and_enough_of_them() {
        let now = Instant::now();
        for (good, bad, is_open) in [
            (0, 4, false),
            (0, 5, true),
            (5, 5, true),
            (6, 5, false),
            (100, 24, false),
            (100, 25, true),
        ] {
            let mut breaker = Breaker::new(BreakerSettings::default());
            noted(&mut breaker, &vec![false; good], now);
            noted(&mut breaker, &vec![true; bad], now);
            assert_eq!(breaker.is_open(), is_open, "{good} good, {bad} bad");
        }
    }

    #[test]
    fn old_failures_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerSettings::default());
        noted(&mut breaker, &[true; 4], now);
        noted(&mut breaker, &[true; 4], now + 61 * SECOND);
        assert_eq!(breaker.leave(now + 61 * SECOND), Leave::Call);
        noted(&mut breaker, &[true], now + 62 * SECOND);
        assert_eq!(breaker.leave(now + 62 * SECOND), Leave::None);
    }

    #[test]
    fn one_probe_at_a_time_goes_through_until_one_succeeds() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerSettings::default());
        noted(&mut breaker, &[true; 5], now);
        assert_eq!(breaker.leave(now + 29 * SECOND), Leave::None);
        // What began before it opened changes nothing.
        noted(&mut breaker, &[false; 60], now + SECOND);
        assert_eq!(breaker.opens_at(), Some(now + 30 * SECOND));
        assert_eq!(breaker.leave(now + 30 * SECOND), Leave::Probe);
        breaker.probe();
        assert_eq!(breaker.leave(now + 90 * SECOND), Leave::None);
        breaker.note(true, true, now + 31 * SECOND);
        assert_eq!(breaker.leave(now + 35 * SECOND), Leave::None);
        assert_eq!(breaker.leave(now + 36 * SECOND), Leave::Probe);
        breaker.probe();
        breaker.probe_again(now + 37 * SECOND);
        assert_eq!(breaker.leave(now + 37 * SECOND), Leave::Probe);
        breaker.probe();
        breaker.note(false, true, now + 38 * SECOND);
        assert_eq!(breaker.leave(now + 38 * SECOND), Leave::Call);
        noted(&mut breaker, &[true; 4], now + 38 * SECOND);
        assert!(!breaker.is_open(), "it counts anew");
    }

    #[test]
    fn a_primary_that_failed_thrice_goes_second_for_a_minute() {
        let now = Instant::now();
        let mut health = Health::new(HealthSettings::default());
        for (second, failed, is_good) in [
            (0, true, true),
            (10, true, true),
            (20, false, true),
            (61, true, true),
            (62, true, false),
            (121, true, false),
            (122, false, true),
        ] {
            let at = now + second * SECOND;
            health.note(failed, at);
            assert_eq!(health.is_good(at), is_good, "{second}");
        }
    }
}
