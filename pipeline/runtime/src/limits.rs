//! How much may be sent and when it is better not to, as the configuration says.

use herald_schemas::words::Channel;

pub use crate::deliver::{BreakerSettings, HealthSettings};

/// What delivering goes by besides the retry policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many a second all workers together may send, by channel; 0: as many as they can.
    pub rates: [u32; Channel::ALL.len()],
    /// When a provider is left alone.
    pub breaker: BreakerSettings,
    /// When a fallback goes first.
    pub health: HealthSettings,
}

impl Limits {
    /// How many a second all workers together may send; 0: as many as they can.
    pub fn per_second(&self, channel: Channel) -> u32 {
        self.rates[channel as usize]
    }
}

impl Default for Limits {
    /// Without a limit.
    fn default() -> Self {
        Self {
            rates: [0; Channel::ALL.len()],
            breaker: BreakerSettings::default(),
            health: HealthSettings::default(),
        }
    }
}
