//! The stages by name: what `--stages` takes, what a consumer group is called, what a metric's
//! label says.

use std::{fmt, str::FromStr};

/// A stage of the pipeline; each is its own consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Events → notifications.
    Match,
    /// Notifications → deliveries.
    Render,
    /// Deliveries → providers.
    Deliver,
    /// Retry tiers → deliveries, when due.
    Retry,
    /// Early notifications → notifications, when due.
    Schedule,
    /// Status, events, dead letters → the store.
    Materialize,
}

/// A name that is no stage's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown stage {0:?}: expected some of match, render, deliver, retry, schedule, materialize"
)]
pub struct UnknownStage(pub String);

impl Stage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Match,
        Self::Render,
        Self::Deliver,
        Self::Retry,
        Self::Schedule,
        Self::Materialize,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Render => "render",
            Self::Deliver => "deliver",
            Self::Retry => "retry",
            Self::Schedule => "schedule",
            Self::Materialize => "materialize",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(name: &str) -> Result<Self, UnknownStage> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.as_str() == name)
            .ok_or_else(|| UnknownStage(name.chars().take(64).collect()))
    }
}
