//! Reads records back: decoding, and asking the registry about a schema seen for the first time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use herald_broker::Record;
use herald_registry::{Registry, RegistryError};
use herald_schemas::codec::{AvroRecord, Codec, DecodeError};
use herald_stages::Source;
use tokio::time::sleep;
use tracing::warn;

use crate::setup::largest;

/// How long the registry is waited for before the stage starts anew, which shows in its logs and
/// keeps its group alive.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(60);

/// How long it is remembered that the registry does not know an id, or that its schema is of no use:
/// a flood of such records is not to be one of requests.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How many such ids are remembered.
const MOST_UNKNOWN: usize = 1_000;

/// Decodes what is read.
#[derive(Clone)]
pub struct Inbox {
    codec: Codec,
    registry: Option<Arc<Registry>>,
    unknown: Arc<Mutex<HashMap<u32, (Instant, DecodeError)>>>,
}

impl Inbox {
    /// Without a registry, a record that names a schema id cannot be read.
    pub fn new(codec: Codec, registry: Option<Arc<Registry>>) -> Self {
        Self {
            codec,
            registry,
            unknown: Arc::default(),
        }
    }

    /// Whether the registry answers; none where there is none.
    pub async fn has_registry(&self) -> Option<bool> {
        let registry = self.registry.as_ref()?;
        Some(registry.ping().await.is_ok())
    }

    /// The record in these bytes. The outer error is the registry's: it could not be reached; the
    /// inner one is a verdict about the bytes.
    pub async fn decode<R: AvroRecord>(
        &self,
        bytes: &[u8],
    ) -> Result<Result<R, DecodeError>, RegistryError> {
        loop {
            match self.codec.decode(bytes) {
                Err(DecodeError::UnknownSchemaId(id)) => {
                    if let Some(verdict) = self.remembered(id) {
                        return Ok(Err(verdict));
                    }
                    if let Err(verdict) = self.learn(id).await? {
                        self.remember(id, &verdict);
                        return Ok(Err(verdict));
                    }
                }
                decoded => return Ok(decoded),
            }
        }
    }

    fn remembered(&self, id: u32) -> Option<DecodeError> {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, verdict) = unknown.get(&id)?;
        (since.elapsed() < UNKNOWN_FOR).then(|| verdict.clone())
    }

    fn remember(&self, id: u32, verdict: &DecodeError) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= MOST_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(id, (Instant::now(), verdict.clone()));
    }

    /// Asks the registry for a schema. The inner error is about the record that names it.
    async fn learn(&self, id: u32) -> Result<Result<(), DecodeError>, RegistryError> {
        let unusable = |reason| Ok(Err(DecodeError::UnusableSchema { id, reason }));
        let Some(registry) = &self.registry else {
            return Ok(Err(DecodeError::UnknownSchemaId(id)));
        };
        let mut waited = Duration::ZERO;
        let mut pause = Duration::from_millis(200);
        loop {
            match registry.schema(id).await {
                Ok(Some(schema)) => {
                    return match self.codec.learn(id, &schema) {
                        Ok(()) => Ok(Ok(())),
                        Err(error) => unusable(error.to_string()),
                    };
                }
                Ok(None) => return Ok(Err(DecodeError::UnknownSchemaId(id))),
                Err(RegistryError::Unusable(reason)) => return unusable(reason),
                Err(error) if waited >= REGISTRY_PATIENCE => return Err(error),
                Err(error) => {
                    warn!(id, %error, "waiting for the schema registry");
                    sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }
}

/// Whether a record is larger than its topic is meant to take. A topic's limit is on what is sent:
/// a producer that compresses can get much more past it, of which nothing that follows fits.
pub(crate) fn is_too_large<R: AvroRecord>(record: &Record) -> bool {
    let headers = record.headers.iter().map(|header| header.value.len());
    let key = record.key.as_ref().map_or(0, bytes::Bytes::len);
    record.value.len() + key + headers.sum::<usize>() > largest(R::NAME)
}

/// The provenance of a record.
pub fn source(record: &Record) -> Source<'_> {
    Source {
        topic: &record.partition.topic,
        partition: record.partition.index,
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: &record.value,
        headers: record
            .headers
            .iter()
            .map(|header| (header.name.as_ref(), header.value.as_ref()))
            .collect(),
    }
}
