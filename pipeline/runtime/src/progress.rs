//! Read your writes: waiting until materialize has passed what was written before the question.

use std::{sync::Arc, time::Duration};

use herald_broker::{Broker, BrokerError, Partition};
use herald_schemas::{
    ids::{NotificationId, partition_of},
    topics::Topics,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::stage::Stage;

/// How often materialize's progress is looked at while someone waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Knows how far materialize has come.
#[derive(Clone)]
pub struct Progress {
    broker: Arc<dyn Broker>,
    status_topic: Arc<str>,
    group: String,
    status_partitions: u32,
}

impl Progress {
    /// `status_partitions` is the number of partitions of the topic `status`.
    pub fn new(broker: Arc<dyn Broker>, topics: &Topics, status_partitions: u32) -> Self {
        Self {
            broker,
            status_topic: topics.status().into(),
            group: topics.group(Stage::Materialize.as_str()),
            status_partitions,
        }
    }

    /// Waits until every status record of `id` that was written before this call is in the store.
    /// False: it was not within `patience`.
    pub async fn wait_materialized(
        &self,
        id: NotificationId,
        patience: Duration,
    ) -> Result<bool, BrokerError> {
        let index = partition_of(id.to_string().as_bytes(), self.status_partitions) as i32;
        self.wait_passed(
            Partition {
                topic: Arc::clone(&self.status_topic),
                index,
            },
            patience,
        )
        .await
    }

    /// Waits until every record of `topic` with this key that was written before this call is in
    /// the store. False: it was not within `patience`.
    pub async fn wait_for_key(
        &self,
        topic: &str,
        key: &str,
        patience: Duration,
    ) -> Result<bool, BrokerError> {
        let partitions = self.broker.partitions(topic).await?;
        let index = partition_of(key.as_bytes(), partitions.max(1) as u32) as i32;
        let topic = topic.into();
        self.wait_passed(Partition { topic, index }, patience).await
    }

    /// Waits until every status record that was written before this call is in the store. False: it
    /// was not within `patience`.
    pub async fn wait_for_all(&self, patience: Duration) -> Result<bool, BrokerError> {
        let until = Instant::now() + patience;
        for index in 0..self.status_partitions as i32 {
            let topic = Arc::clone(&self.status_topic);
            let left = until.saturating_duration_since(Instant::now());
            if !self.wait_passed(Partition { topic, index }, left).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until materialize has passed what `partition` holds now.
    pub async fn wait_passed(
        &self,
        partition: Partition,
        patience: Duration,
    ) -> Result<bool, BrokerError> {
        let until = Instant::now() + patience;
        let wait = async {
            let asked = [partition];
            let end = self
                .broker
                .end_offsets(&asked)
                .await?
                .remove(&asked[0])
                .unwrap_or(0);
            loop {
                let done = self
                    .broker
                    .committed(&self.group, &asked)
                    .await?
                    .remove(&asked[0]);
                if end == 0 || done.is_some_and(|done| done >= end) {
                    return Ok(true);
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout_at(until, wait).await.unwrap_or(Ok(false))
    }
}
