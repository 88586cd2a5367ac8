//! How far a stage is behind, as far as that is not the stage's own business.

use std::time::Duration;

use herald_broker::{Consumer, Record};
use herald_schemas::ids::UnixMs;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::{metrics::Metrics, stage::Stage, worker::now};

/// How often it is asked how much is not read yet, and how long that may hold a stage up.
const EVERY: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_millis(500);

/// Since when a record waits. One whose producer did not say waits since now.
pub(crate) fn since(record: &Record) -> UnixMs {
    match record.timestamp {
        said if said > 0 => said,
        _ => now(),
    }
}

/// Since when the oldest of them waits.
pub(crate) fn oldest(records: &[Record]) -> Option<UnixMs> {
    records.iter().map(since).min()
}

/// Asks now and then how many records a stage has not read.
pub(crate) struct Unread {
    stage: Stage,
    next: Instant,
}

impl Unread {
    pub(crate) fn new(stage: Stage) -> Self {
        Self {
            stage,
            next: Instant::now(),
        }
    }

    /// To be called with every turn. Where there is no answer, the last one stands.
    pub(crate) async fn look(&mut self, consumer: &mut dyn Consumer, metrics: &Metrics) {
        if Instant::now() < self.next {
            return;
        }
        match timeout(WITHIN, consumer.lag()).await {
            Ok(Ok(lag)) => metrics.unread(self.stage, lag.iter().map(|(_, records)| records).sum()),
            Ok(Err(error)) => debug!(stage = %self.stage, %error, "lag not known"),
            Err(_) => debug!(stage = %self.stage, "lag not known in time"),
        }
        self.next = Instant::now() + EVERY;
    }
}
