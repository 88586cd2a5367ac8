//! Where rows lie: the numbers that setup fixes once, since rows already lie by them.

use herald_schemas::{
    ids::{NotificationId, UnixMs, partition_of},
    records::Identity,
    rows::Index,
};

use crate::StoreError;

/// How many buckets of rows make one of index entries: those are about that much smaller.
const INDEX_BUCKETS: i64 = 24;

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
        at_ms.div_euclid(self.bucket_ms())
    }

    /// Where a bucket starts.
    pub fn bucket_start(&self, bucket: i64) -> UnixMs {
        bucket.saturating_mul(self.bucket_ms())
    }

    fn bucket_ms(&self) -> i64 {
        i64::from(self.bucket_minutes.max(1)) * 60_000
    }

    /// The shard of a notification: the partition that `status` has for it.
    pub fn status_shard(&self, id: NotificationId) -> u32 {
        partition_of(id.to_string().as_bytes(), self.status_shards)
    }

    /// The shard of a claim: the partition that `deliveries` has for its recipient.
    pub fn claim_shard(&self, recipient: &str) -> u32 {
        partition_of(recipient.as_bytes(), self.claim_shards)
    }

    /// The shard of an index entry.
    pub fn index_shard(&self, value: &str) -> u32 {
        partition_of(value.as_bytes(), self.status_shards)
    }

    /// The bucket of an index entry of a notification: that of the batch or the event it is filed
    /// under, so that those are read from one place; else a wider one of the notification's own
    /// time, so that a recipient's are in few.
    pub fn index_bucket(&self, entry: &Index, id: NotificationId) -> i64 {
        self.index_bucket_of(entry)
            .unwrap_or_else(|| Self::widened(self.bucket(id.unix_ms())))
    }

    /// The one bucket of an index entry, where it has one.
    pub fn index_bucket_of(&self, entry: &Index) -> Option<i64> {
        let at = |id: &str| Some(id.parse::<NotificationId>().ok()?.unix_ms());
        match entry {
            Index::Batch(id) | Index::Event(id) => at(id).map(|at| self.bucket(at)),
            Index::Recipient(_) | Index::Correlation(_) => None,
        }
    }

    /// The wider bucket that a bucket is part of.
    pub fn widened(bucket: i64) -> i64 {
        bucket.div_euclid(INDEX_BUCKETS)
    }

    /// Until when a notification is kept: its retention after it was accepted or is to be sent.
    pub fn kept_until(&self, identity: &Identity) -> UnixMs {
        let accepted = identity.created_at.max(identity.id.unix_ms());
        let from = identity.send_at.unwrap_or(accepted).max(accepted);
        from.saturating_add(self.retention_ms())
    }

    /// Until when something is kept that is about a notification and written now.
    pub(crate) fn kept_beside(&self, send_at: Option<UnixMs>, now: UnixMs) -> UnixMs {
        let from = send_at.unwrap_or(now).max(now);
        from.saturating_add(self.retention_ms())
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
