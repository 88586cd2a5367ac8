//! Where rows lie: the numbers that setup fixes once, since rows already lie by them.

use herald_schemas::ids::{NotificationId, UnixMs, partition_of};

use crate::StoreError;

/// The numbers that decide where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Shards of the notifications, events and dead letters of a bucket: the number of partitions
    /// of the topic `status`.
    pub status_shards: u32,
    /// Shards of the claims of a bucket: the number of partitions of the `deliveries` topics.
    pub claim_shards: u32,
    /// How wide a bucket is, in minutes. A partition of the store holds one shard of one bucket.
    pub bucket_minutes: u32,
    /// After how many days a row is dropped.
    pub retention_days: u32,
}

impl Layout {
    /// The bucket of a time.
    pub fn bucket(&self, at_ms: UnixMs) -> i64 {
        at_ms.div_euclid(i64::from(self.bucket_minutes.max(1)) * 60_000)
    }

    /// The shard of a notification: the partition that `status` has for it.
    pub fn status_shard(&self, id: NotificationId) -> u32 {
        partition_of(id.to_string().as_bytes(), self.status_shards)
    }

    /// The shard of a claim: the partition that `deliveries` has for its recipient.
    pub fn claim_shard(&self, recipient: &str) -> u32 {
        partition_of(recipient.as_bytes(), self.claim_shards)
    }

    /// How long a row is kept.
    pub fn retention_ms(&self) -> i64 {
        i64::from(self.retention_days) * 86_400_000
    }

    /// Whether this, the first setup's layout, is what a later setup asks for.
    pub fn must_be(&self, asked: Self) -> Result<(), StoreError> {
        let changed = [
            (
                "partitions of status",
                self.status_shards,
                asked.status_shards,
            ),
            (
                "partitions of deliveries",
                self.claim_shards,
                asked.claim_shards,
            ),
            ("bucket_minutes", self.bucket_minutes, asked.bucket_minutes),
            ("retention_days", self.retention_days, asked.retention_days),
        ]
        .into_iter()
        .find(|(_, fixed, asked)| fixed != asked);
        changed.map_or(Ok(()), |(name, fixed, asked)| {
            Err(StoreError::LayoutChanged(format!(
                "{name}: the first setup fixed {fixed}, this one asks for {asked}: rows lie by it, \
                 so set it back to {fixed}"
            )))
        })
    }
}
