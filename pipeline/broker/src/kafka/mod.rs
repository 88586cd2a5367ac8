//! Kafka, through librdkafka.
//!
//! What is sent is acked by all replicas and written once ([`producer`]). A consumer has two
//! halves: a thread that speaks for the member of the group ([`member`]), with another that
//! commits ([`committer`]), and the one that the program holds, which reads each partition's queue
//! itself ([`consumer`]). What librdkafka calls back about stays within these files.

mod admin;
mod cluster;
mod committer;
mod consumer;
mod errors;
mod member;
mod notes;
mod producer;
mod settings;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use prometheus::core::Collector;
use rdkafka::Offset;
use tokio::time::timeout;

pub use self::settings::{KafkaSettings, Sasl, Tls};
use self::{cluster::Cluster, consumer::KafkaConsumer, producer::KafkaProducer};
use crate::{Broker, BrokerError, Consumer, Offsets, Partition, Producer, Subscription, TopicSpec};

const PING_WITHIN: Duration = Duration::from_millis(1_900);

/// A Kafka cluster.
pub struct KafkaBroker {
    cluster: Arc<Cluster>,
}

impl KafkaBroker {
    /// Makes the clients. Whether the brokers are there shows with the first call.
    pub fn connect(settings: KafkaSettings) -> Result<Self, BrokerError> {
        let cluster = Arc::new(Cluster::new(settings)?);
        Ok(Self { cluster })
    }

    /// How long the brokers take to answer, for the registry that shows it.
    pub fn round_trips(&self) -> Box<dyn Collector> {
        self.cluster.trips.all.collector()
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn setup(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        self.cluster.setup(topics).await
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>, BrokerError> {
        Ok(Arc::new(KafkaProducer::new(Arc::clone(&self.cluster))?))
    }

    async fn subscribe(&self, what: Subscription) -> Result<Box<dyn Consumer>, BrokerError> {
        let consumer = KafkaConsumer::new(Arc::clone(&self.cluster), what).await?;
        Ok(Box::new(consumer))
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        self.cluster.partitions(topic).await
    }

    async fn end_offsets(&self, partitions: &[Partition]) -> Result<Offsets, BrokerError> {
        self.cluster.offsets(partitions, Offset::End).await
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Offsets, BrokerError> {
        self.cluster.committed(group, partitions).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        match timeout(PING_WITHIN, self.cluster.ping(PING_WITHIN)).await {
            Ok(answer) => answer,
            Err(_) => Err(BrokerError::Unavailable("no broker answers".to_owned())),
        }
    }
}

/// What is behind a lock here is whole after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
