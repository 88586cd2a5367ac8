//! The compiled catalog that a process works with, and how it gets to know of a newer one.
//!
//! The store is the catalog's truth. A snapshot is compiled once per version and shared; whoever
//! handles a record takes one snapshot and keeps it for that record.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use herald_stages::snapshot::Snapshot;
use herald_store::{Store, StoreError};
use tokio::sync::Mutex;
use tracing::{info, warn};

/// The newest snapshot this process knows, and the way to a newer one.
pub struct Catalogs {
    store: Arc<dyn Store>,
    current: ArcSwap<Known>,
    /// Held while the store is asked, so that many waiters cost one read.
    refresh: Mutex<()>,
}

struct Known {
    snapshot: Arc<Snapshot>,
    /// When the version row was last read; what it said is not newer than the snapshot.
    checked: Instant,
}

impl Catalogs {
    /// Reads and compiles the catalog.
    pub async fn load(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let checked = Instant::now();
        let snapshot = compile(store.as_ref()).await?;
        let current = ArcSwap::from_pointee(Known { snapshot, checked });
        Ok(Arc::new(Self {
            store,
            current,
            refresh: Mutex::new(()),
        }))
    }

    /// The newest snapshot at hand.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.load().snapshot)
    }

    /// A snapshot that was the newest at some time within the last `max_age`.
    pub async fn fresh(&self, max_age: Duration) -> Result<Arc<Snapshot>, StoreError> {
        self.when(|known| known.checked.elapsed() <= max_age).await
    }

    /// A snapshot of at least this version; the newest there is when the store's own is older,
    /// which a wrong stamp from outside can ask for.
    pub async fn at_least(&self, version: i64) -> Result<Arc<Snapshot>, StoreError> {
        let asked = Instant::now();
        self.when(|known| known.snapshot.version() >= version || known.checked >= asked)
            .await
    }

    async fn when(&self, good: impl Fn(&Known) -> bool) -> Result<Arc<Snapshot>, StoreError> {
        let known = self.current.load_full();
        if good(&known) {
            return Ok(Arc::clone(&known.snapshot));
        }
        let _alone = self.refresh.lock().await;
        let known = self.current.load_full();
        if good(&known) {
            return Ok(Arc::clone(&known.snapshot));
        }
        let checked = Instant::now();
        let version = self.store.catalog_version().await?;
        let snapshot = if version == known.snapshot.version() {
            Arc::clone(&known.snapshot)
        } else {
            let snapshot = compile(self.store.as_ref()).await?;
            info!(version = snapshot.version(), "catalog changed");
            snapshot
        };
        self.current.store(Arc::new(Known {
            snapshot: Arc::clone(&snapshot),
            checked,
        }));
        Ok(snapshot)
    }

    /// Looks for a newer version every `interval`, for ever: what heals a lost announcement.
    pub async fn keep_fresh(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.fresh(interval / 2).await {
                warn!(%error, "catalog not refreshed; working with the one at hand");
            }
        }
    }
}

async fn compile(store: &dyn Store) -> Result<Arc<Snapshot>, StoreError> {
    let catalog = store.catalog().await?;
    let (snapshot, problems) = Snapshot::compile(&catalog);
    for problem in problems {
        warn!(%problem, "catalog object left out");
    }
    Ok(Arc::new(snapshot))
}
