//! When a failed attempt is made again.
//!
//! Delays are a fixed ladder, a topic each, so that the head of a partition is always the next one
//! due; an exponential delay takes the nearest rung.

use std::time::Duration;

use herald_schemas::{ids::UnixMs, records::DeliveryReady};

use crate::{Context, Output, Source, Verdict};

/// A rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// What its topic is called by, such as `5m`.
    pub name: String,
    /// How long its records wait.
    pub delay: Duration,
}

/// The rungs, shortest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder(Vec<Tier>);

/// A ladder that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// No rung at all.
    #[error("a ladder needs at least one delay")]
    Empty,
    /// A rung that is not above the one before it.
    #[error("delay {0} is not longer than the one before it")]
    NotRising(String),
}

impl Ladder {
    /// A ladder of these rungs, which must rise.
    pub fn new(tiers: Vec<Tier>) -> Result<Self, LadderError> {
        if tiers.is_empty() {
            return Err(LadderError::Empty);
        }
        if let Some(pair) = tiers.windows(2).find(|pair| pair[1].delay <= pair[0].delay) {
            return Err(LadderError::NotRising(pair[1].name.clone()));
        }
        Ok(Self(tiers))
    }

    /// The rungs.
    pub fn tiers(&self) -> &[Tier] {
        &self.0
    }

    /// The rung whose delay is nearest.
    fn nearest(&self, wait: Duration) -> usize {
        let distance = |tier: &Tier| tier.delay.abs_diff(wait);
        let nearest = self
            .0
            .iter()
            .enumerate()
            .min_by_key(|(_, tier)| distance(tier));
        nearest.map_or(0, |(index, _)| index)
    }

    /// The first rung that is long enough, or the last.
    fn at_least(&self, wait: Duration) -> usize {
        self.0
            .iter()
            .position(|tier| tier.delay >= wait)
            .unwrap_or(self.0.len() - 1)
    }
}

/// How the wait before an attempt is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Rung by rung; the last one again when they run out.
    Ladder,
    /// `base` × 2ⁿ up to `cap`, give or take the jitter.
    Exponential {
        /// Before the second attempt.
        base: Duration,
        /// The longest.
        cap: Duration,
        /// Of the wait, 0 to 100.
        jitter_percent: u32,
    },
}

/// When and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    ladder: Ladder,
    backoff: Backoff,
    max_attempts: u32,
}

impl Policy {
    /// `max_attempts` counts the first one too.
    pub fn new(ladder: Ladder, backoff: Backoff, max_attempts: u32) -> Self {
        Self {
            ladder,
            backoff,
            max_attempts,
        }
    }

    /// The ladder.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// The rung to wait on after `attempts` attempts; none when they were enough. A provider that
    /// asked for more time gets it, up to the last rung.
    pub fn next(
        &self,
        attempts: i32,
        retry_after: Option<Duration>,
        seed: u64,
    ) -> Option<(usize, &Tier)> {
        let made = attempts.max(1) as u32;
        if made >= self.max_attempts {
            return None;
        }
        let tiers = self.ladder.tiers();
        let ours = match self.backoff {
            Backoff::Ladder => (made as usize - 1).min(tiers.len() - 1),
            Backoff::Exponential {
                base,
                cap,
                jitter_percent,
            } => {
                let wait = base.saturating_mul(1 << (made - 1).min(30)).min(cap);
                self.ladder.nearest(jittered(wait, jitter_percent, seed))
            }
        };
        let asked = retry_after.map_or(0, |wait| self.ladder.at_least(wait));
        let index = ours.max(asked);
        Some((index, &tiers[index]))
    }
}

/// `wait` ± up to that many percent, by `seed`.
fn jittered(wait: Duration, percent: u32, seed: u64) -> Duration {
    // One round of splitmix64 spreads seeds that lie close to each other, as offsets do.
    let mut bits = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let unit = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    let factor = 1.0 + f64::from(percent.min(100)) / 100.0 * (unit * 2.0 - 1.0);
    Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
}

impl Default for Policy {
    /// A minute, five and fifteen; four attempts.
    fn default() -> Self {
        let tier = |name: &str, minutes: u64| Tier {
            name: name.to_owned(),
            delay: Duration::from_secs(minutes * 60),
        };
        let ladder = Ladder(vec![tier("1m", 1), tier("5m", 5), tier("15m", 15)]);
        Self {
            ladder,
            backoff: Backoff::Ladder,
            max_attempts: 4,
        }
    }
}

/// Due → delivered again; else not yet.
pub fn process(delivery: DeliveryReady, _: &Source<'_>, context: &Context<'_>) -> Verdict {
    match delivery.due_at {
        Some(due_at) if due_at > context.now => Verdict::Defer(due_at),
        _ => Verdict::Emit(vec![Output::Deliver(DeliveryReady {
            due_at: None,
            ..delivery
        })]),
    }
}

/// When a record that goes onto a rung at `at` is due.
pub(crate) fn due_at(at: UnixMs, tier: &Tier) -> UnixMs {
    at + tier.delay.as_millis() as i64
}
