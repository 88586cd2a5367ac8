//! What is measured by the clock: one test at a time, and apart from all others, which would take the
//! time that is measured.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod limits;
mod scaling;

use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other of these tests runs.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}
