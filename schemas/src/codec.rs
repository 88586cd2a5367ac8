//! Records to bytes and back, in two framings.
//!
//! With a schema registry: the Confluent wire format, a zero byte and the schema's id there.
//! Without one: Avro's single-object encoding, `C3 01` and the schema's CRC-64-AVRO fingerprint.
//! Readers take both, by the first byte, and any writer schema that is known: every one ever
//! released (by fingerprint) and every one that was learned (by id).
//!
//! A schema is parsed once, never per record: `serde_avro_fast` reads straight from the writer's
//! schema into the Rust type, where a field that the writer did not have takes its serde default.

use std::{collections::HashMap, io::BufRead, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_avro_fast::{
    Schema,
    de::{DeserializerConfig, DeserializerState, read::SliceRead},
    ser::SerializerConfig,
};

use crate::records::{
    BatchAccepted, Control, DeadLetter, DeliveryReady, Event, EventMatched, NotificationRequested,
    StatusChanged,
};

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const CONFLUENT: u8 = 0x00;
/// The longest array or map a record may hold: more than any of ours, less than an attack.
const MAX_ITEMS: usize = 100_000;
/// The deepest nesting a record may have.
const MAX_DEPTH: usize = 16;

/// A record with a schema of ours.
pub trait AvroRecord: Serialize + DeserializeOwned + Send + 'static {
    /// The schema's name within `herald.v1`.
    const NAME: &'static str;
    /// The schema, as JSON.
    const SCHEMA: &'static str;
    /// Its place in [`RECORDS`].
    const INDEX: usize;
}

/// A record's schema, for whoever registers or checks them all.
#[derive(Debug, Clone, Copy)]
pub struct RecordSchema {
    /// [`AvroRecord::NAME`]
    pub name: &'static str,
    /// [`AvroRecord::SCHEMA`]
    pub schema: &'static str,
    /// Every released version of it, oldest first.
    pub history: &'static [&'static str],
}

macro_rules! records {
    ($($index:literal $record:ident $file:literal),+ $(,)?) => {
        $(
            impl AvroRecord for $record {
                const NAME: &'static str = stringify!($record);
                const SCHEMA: &'static str = include_str!(concat!("../", $file, ".avsc"));
                const INDEX: usize = $index;
            }
        )+

        /// Every record there is.
        pub const RECORDS: &[RecordSchema] = &[$(RecordSchema {
            name: $record::NAME,
            schema: $record::SCHEMA,
            history: &[include_str!(concat!("../history/v1/", $file, ".avsc"))],
        }),+];
    };
}

records! {
    0 Event "event",
    1 NotificationRequested "notification_requested",
    2 DeliveryReady "delivery_ready",
    3 StatusChanged "status_changed",
    4 EventMatched "event_matched",
    5 DeadLetter "dead_letter",
    6 Control "control",
    7 BatchAccepted "batch_accepted",
}

/// A schema of ours that is not one: a defect that the first test shows.
#[derive(Debug, thiserror::Error)]
#[error("schema {name}: {reason}")]
pub struct SchemaError {
    /// The record, or what stands for a learned schema.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// A record that does not fit its schema: a defect.
#[derive(Debug, thiserror::Error)]
#[error("{record}: {reason}")]
pub struct EncodeError {
    record: &'static str,
    reason: String,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("empty value")]
    Empty,
    /// Neither of the two framings.
    #[error(
        "first byte {0:#04x}: neither Confluent-framed Avro (0x00) nor single-object Avro (0xc3 0x01)"
    )]
    NoFraming(u8),
    /// Ends within the framing.
    #[error("{0} bytes are too few for the framing")]
    TooShort(usize),
    /// The registry has to be asked about this schema; then [`Codec::learn`] and decode again.
    #[error("schema id {0} is not known to the schema registry")]
    UnknownSchemaId(u32),
    /// The registry has a schema of this id, but none that a record of ours can be written by.
    #[error("schema id {id} cannot be used: {reason}")]
    UnusableSchema {
        /// Its id.
        id: u32,
        /// What it is instead.
        reason: String,
    },
    /// No released schema has this fingerprint.
    #[error("no released schema has the fingerprint {0:016x}")]
    UnknownFingerprint(u64),
    /// The writer's schema is of something else.
    #[error("expected a record herald.v1.{expected}, found {found}")]
    OtherRecord {
        /// The record that was asked for.
        expected: &'static str,
        /// The full name in the writer's schema.
        found: String,
    },
    /// The bytes do not follow the writer's schema, or the values are not ours.
    #[error("{0}")]
    Malformed(String),
}

/// The ids that the registry has for our schemas, in the order of [`RECORDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterIds(pub Vec<u32>);

/// How records are framed when they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// Avro's single-object encoding.
    SingleObject,
    /// The Confluent wire format.
    Confluent(WriterIds),
}

/// Encodes and decodes. Cheap to clone; the clones learn together.
#[derive(Clone)]
pub struct Codec(Arc<Inner>);

struct Inner {
    /// In the order of [`RECORDS`].
    writers: Vec<Writer>,
    by_fingerprint: HashMap<[u8; 8], Known>,
    by_id: ArcSwap<HashMap<u32, Known>>,
}

struct Writer {
    header: Vec<u8>,
    schema: Arc<Schema>,
}

#[derive(Clone)]
struct Known {
    full_name: Arc<str>,
    schema: Arc<Schema>,
}

impl Known {
    fn parse(name: &str, json: &str) -> Result<Self, SchemaError> {
        let wrong = |reason: String| SchemaError {
            name: name.to_owned(),
            reason,
        };
        let schema: Schema = json.parse().map_err(|error| wrong(format!("{error}")))?;
        // The library parses into a form that does not give the name away.
        let parsed: serde_json::Value =
            serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        let text = |key: &str| parsed.get(key).and_then(serde_json::Value::as_str);
        let full_name = match (text("namespace"), text("name")) {
            (_, Some(name)) if name.contains('.') => name.to_owned(),
            (Some(namespace), Some(name)) => format!("{namespace}.{name}"),
            (None, Some(name)) => name.to_owned(),
            (_, None) => return Err(wrong("no record".to_owned())),
        };
        Ok(Self {
            full_name: full_name.into(),
            schema: Arc::new(schema),
        })
    }
}

impl Codec {
    /// A codec that writes in `framing` and reads both.
    pub fn new(framing: &Framing) -> Result<Self, SchemaError> {
        let mut writers = Vec::with_capacity(RECORDS.len());
        let mut by_fingerprint = HashMap::new();
        let mut by_id = HashMap::new();
        for (index, record) in RECORDS.iter().enumerate() {
            for released in record.history.iter().chain([&record.schema]) {
                let known = Known::parse(record.name, released)?;
                by_fingerprint.insert(*known.schema.rabin_fingerprint(), known);
            }
            let known = Known::parse(record.name, record.schema)?;
            let header = match framing {
                Framing::SingleObject => {
                    [&SINGLE_OBJECT[..], &known.schema.rabin_fingerprint()[..]].concat()
                }
                Framing::Confluent(WriterIds(ids)) => {
                    let id = *ids.get(index).ok_or_else(|| SchemaError {
                        name: record.name.to_owned(),
                        reason: "has no id in the schema registry".to_owned(),
                    })?;
                    by_id.insert(id, known.clone());
                    [&[CONFLUENT][..], &id.to_be_bytes()[..]].concat()
                }
            };
            writers.push(Writer {
                header,
                schema: known.schema,
            });
        }
        Ok(Self(Arc::new(Inner {
            writers,
            by_fingerprint,
            by_id: ArcSwap::from_pointee(by_id),
        })))
    }

    /// The record as framed bytes.
    pub fn encode<R: AvroRecord>(&self, record: &R) -> Result<Bytes, EncodeError> {
        let mut bytes = Vec::with_capacity(512);
        self.encode_into(record, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    /// Appends the record as framed bytes.
    pub fn encode_into<R: AvroRecord>(
        &self,
        record: &R,
        bytes: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let writer = &self.0.writers[R::INDEX];
        bytes.extend_from_slice(&writer.header);
        let mut config = SerializerConfig::new(&writer.schema);
        serde_avro_fast::to_datum(record, bytes, &mut config)
            .map(drop)
            .map_err(|error| EncodeError {
                record: R::NAME,
                reason: error.to_string(),
            })
    }

    /// The record in framed bytes.
    pub fn decode<R: AvroRecord>(&self, bytes: &[u8]) -> Result<R, DecodeError> {
        let too_short = || DecodeError::TooShort(bytes.len());
        match bytes {
            [] => Err(DecodeError::Empty),
            [CONFLUENT, rest @ ..] => {
                let (id, datum) = rest.split_first_chunk::<4>().ok_or_else(too_short)?;
                let id = u32::from_be_bytes(*id);
                let known = self.0.by_id.load().get(&id).cloned();
                read(&known.ok_or(DecodeError::UnknownSchemaId(id))?, datum)
            }
            [first, rest @ ..] if *first == SINGLE_OBJECT[0] => {
                let Some((second, rest)) = rest.split_first() else {
                    return Err(too_short());
                };
                if *second != SINGLE_OBJECT[1] {
                    return Err(DecodeError::NoFraming(*first));
                }
                let (fingerprint, datum) = rest.split_first_chunk::<8>().ok_or_else(too_short)?;
                let known = self.0.by_fingerprint.get(fingerprint).ok_or_else(|| {
                    DecodeError::UnknownFingerprint(u64::from_le_bytes(*fingerprint))
                })?;
                read(known, datum)
            }
            [first, ..] => Err(DecodeError::NoFraming(*first)),
        }
    }

    /// Adds the schema that a registry has under `id`.
    pub fn learn(&self, id: u32, json: &str) -> Result<(), SchemaError> {
        let known = Known::parse(&format!("id {id}"), json)?;
        self.0.by_id.rcu(|by_id| {
            let mut by_id = HashMap::clone(by_id);
            by_id.insert(id, known.clone());
            by_id
        });
        Ok(())
    }
}

fn read<R: AvroRecord>(known: &Known, datum: &[u8]) -> Result<R, DecodeError> {
    if known.full_name.strip_prefix("herald.v1.") != Some(R::NAME) {
        let found = known.full_name.to_string();
        return Err(DecodeError::OtherRecord {
            expected: R::NAME,
            found,
        });
    }
    let mut config = DeserializerConfig::new(&known.schema);
    config.max_seq_size = MAX_ITEMS;
    config.allowed_depth = MAX_DEPTH;
    let mut state = DeserializerState::with_config(SliceRead::new(datum), config);
    let record = R::deserialize(state.deserializer())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    let mut rest = state.into_reader();
    let left = rest.fill_buf().map_or(0, <[u8]>::len);
    if left > 0 {
        return Err(DecodeError::Malformed(format!(
            "{left} bytes too many after the record"
        )));
    }
    Ok(record)
}
