//! Servers that are not there yet: waited for, and said.

use std::{fmt::Display, time::Duration};

use anyhow::{Result, anyhow};
use herald_broker::BrokerError;
use herald_registry::RegistryError;
use herald_store::StoreError;
use tokio::time::sleep;
use tracing::{info, warn};

/// An error that may pass by itself.
pub(crate) trait MayPass: Display {
    fn may_pass(&self) -> bool;
}

impl MayPass for BrokerError {
    fn may_pass(&self) -> bool {
        // Somebody else may just be running `herald setup`.
        matches!(self, Self::Unavailable(_) | Self::UnknownTopic(_))
    }
}

impl MayPass for StoreError {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NotSetUp(_))
    }
}

impl MayPass for RegistryError {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Tries until it works or cannot work, pausing longer and longer. To be dropped by whoever does
/// not want to wait any more.
pub(crate) async fn patiently<T, E: MayPass>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let mut pause = Duration::from_millis(200);
    let mut waited = false;
    loop {
        match attempt().await {
            Ok(value) => {
                if waited {
                    info!(what, "done, after a wait");
                }
                return Ok(value);
            }
            Err(error) if error.may_pass() => {
                warn!(what, %error, "not yet; trying again in {pause:?}");
                waited = true;
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => return Err(anyhow!("{what}: {error}")),
        }
    }
}
