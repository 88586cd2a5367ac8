//! A token bucket: how many may go, at a rate that can change.

use std::time::{Duration, Instant};

/// How much of a second's tokens may be saved up. As many again may be on their way through a claim
/// (see `gates`), and go with them when the store was slow: together less than a tenth of a second's.
const BURST: f64 = 0.04;

/// How many may be saved up at the least: one, and what comes before somebody looks.
const LEAST: f64 = 1.5;

/// Tokens that come at a rate. It starts empty, so that a limit holds whoever takes over.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tokens a second; none: as many as are asked for.
    rate: Option<f64>,
    tokens: f64,
    /// Up to when the tokens are counted.
    counted: Instant,
}

impl Bucket {
    /// Unlimited, until a rate is set.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: None,
            tokens: 0.0,
            counted: now,
        }
    }

    /// Sets the rate, from now on.
    pub(super) fn set_rate(&mut self, rate: Option<f64>, now: Instant) {
        if self.rate != rate {
            self.count(now);
            self.rate = rate;
            self.fill(self.tokens);
        }
    }

    /// Whether there is a token.
    pub(super) fn has_one(&mut self, now: Instant) -> bool {
        self.count(now);
        self.rate.is_none() || self.tokens >= 1.0
    }

    /// Takes the token that there is.
    pub(super) fn take(&mut self) {
        if self.rate.is_some() {
            self.tokens -= 1.0;
        }
    }

    /// Takes one back that was not used.
    pub(super) fn give_back(&mut self) {
        if self.rate.is_some() {
            self.fill(self.tokens + 1.0);
        }
    }

    /// How long until there is a token; none: not at this rate.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.has_one(now) {
            return Some(Duration::ZERO);
        }
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64((1.0 - self.tokens) / rate).ok()
    }

    /// How many tokens may be saved up; none: there is no limit.
    pub(super) fn capacity(&self) -> Option<f64> {
        self.rate.map(|rate| (rate * BURST).max(LEAST))
    }

    fn fill(&mut self, tokens: f64) {
        self.tokens = tokens.min(self.capacity().unwrap_or(0.0));
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.counted = self.counted.max(now);
        if let Some(rate) = self.rate {
            self.fill(self.tokens + rate * passed.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are taken in each of some seconds, by who asks every `step` for as many as it can.
    fn taken(bucket: &mut Bucket, start: Instant, seconds: usize, step: Duration) -> Vec<u32> {
        let mut counts = vec![0; seconds];
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(seconds as u64) {
            while bucket.has_one(start + at) {
                bucket.take();
                counts[at.as_secs() as usize] += 1;
            }
            at += step;
        }
        counts
    }

    #[test]
    fn the_rate_is_kept_however_often_it_is_asked() {
        let start = Instant::now();
        for (rate, step) in [
            (100.0, 1),
            (100.0, 20),
            (100.0, 35),
            (33.3, 10),
            (2_000.0, 7),
        ] {
            let mut bucket = Bucket::new(start);
            bucket.set_rate(Some(rate), start);
            let counts = taken(&mut bucket, start, 30, Duration::from_millis(step));
            let all: u32 = counts.iter().sum();
            let share = f64::from(all) / (rate * 30.0);
            assert!((0.98..=1.0).contains(&share), "{rate} {step}: {share}");
            let most = counts.iter().max().copied().unwrap_or(0);
            assert!(
                f64::from(most) <= rate * 1.06 + 1.0,
                "{rate} {step}: {most}"
            );
        }
    }

    #[test]
    fn it_starts_empty_and_saves_up_no_more_than_a_little() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.set_rate(Some(100.0), start);
        assert!(!bucket.has_one(start));
        assert_eq!(bucket.wait(start), Some(Duration::from_millis(10)));
        let later = start + Duration::from_secs(3_600);
        let counts = taken(&mut bucket, later, 1, Duration::from_secs(1));
        assert_eq!(counts, [4], "after an hour of silence");
    }

    #[test]
    fn a_rate_can_change_and_what_was_saved_up_with_it() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert!(bucket.has_one(start), "unlimited");
        bucket.set_rate(Some(1_000.0), start);
        let later = start + Duration::from_secs(1);
        bucket.set_rate(Some(10.0), later);
        assert_eq!(taken(&mut bucket, later, 1, Duration::from_secs(1)), [1]);
        bucket.set_rate(Some(0.0), later);
        assert_eq!(bucket.wait(later + Duration::from_secs(9)), None);
        bucket.set_rate(None, later);
        assert!(bucket.has_one(later));
    }

    #[test]
    fn what_was_not_used_is_there_for_the_next() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.set_rate(Some(1.0), start);
        let later = start + Duration::from_secs(1);
        assert!(bucket.has_one(later));
        bucket.take();
        assert!(!bucket.has_one(later));
        bucket.give_back();
        assert!(bucket.has_one(later));
    }
}
