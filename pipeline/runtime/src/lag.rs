//! How far a stage is behind, as far as that is not the stage's own business.

use std::{sync::Arc, time::Duration};

use herald_broker::{Consumer, Record};
use herald_schemas::ids::UnixMs;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::{metrics::Metrics, stage::Stage, worker::now};

/// How often it is asked how much is not read yet, and how long the answer may take.
const EVERY: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(4);

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

    /// To be called with every turn; holds nothing up. Where there is no answer, the last one stands.
    pub(crate) fn look(&mut self, consumer: &dyn Consumer, metrics: &Arc<Metrics>) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + EVERY;
        let (stage, lag, metrics) = (self.stage, consumer.lag(), Arc::clone(metrics));
        tokio::spawn(async move {
            match timeout(WITHIN, lag).await {
                Ok(Ok(lag)) => metrics.unread(stage, lag.iter().map(|(_, records)| records).sum()),
                Ok(Err(error)) => debug!(%stage, %error, "lag not known"),
                Err(_) => debug!(%stage, "lag not known in time"),
            }
        });
    }
}
