//! Time-ordered identifiers.
//!
//! Every id is shaped like a UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix time in
//! milliseconds, then 74 bits that are random, or, where a replay must arrive at the same id, a
//! hash of what the id is derived from. The store lays its rows out by the time inside.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Unix time in milliseconds.
pub type UnixMs = i64;

/// The largest time that fits an id: 48 bits of milliseconds, the year 10889.
const MAX_ID_MS: i64 = (1 << 48) - 1;

/// A text that is no id of Herald's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id: the current time, the rest random.
            pub fn random() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id of the same `at_ms` and `parts`, today and on every replay. The parts are
            /// length-prefixed before they are hashed, so `["ab", "c"]` is not `["a", "bc"]`.
            pub fn derived(at_ms: UnixMs, parts: &[&[u8]]) -> Self {
                Self(derived(stringify!($name), at_ms, parts))
            }

            /// The time inside.
            pub fn unix_ms(self) -> UnixMs {
                (self.0.as_u128() >> 80) as UnixMs
            }

            /// The smallest id of a time: where a range scan by time starts.
            pub fn first_at(at_ms: UnixMs) -> Self {
                let ms = at_ms.clamp(0, MAX_ID_MS) as u128;
                Self(Uuid::from_u128(ms << 80))
            }

            /// The UUID itself.
            pub fn uuid(self) -> Uuid {
                self.0
            }

            /// Takes any UUID, of whatever version, as an id.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The sixteen bytes, most significant first: they sort as time does.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // The hyphenated form only: an id is compared as text by clients and as a key.
                if text.len() != 36 {
                    return Err(InvalidId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = Uuid::encode_buffer();
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a UUID")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

id!(
    /// A notification.
    NotificationId
);
id!(
    /// The notifications that one request made together.
    BatchId
);
id!(
    /// Something that happened in a producer's system.
    EventId
);
id!(
    /// An event source.
    SourceId
);
id!(
    /// A rule.
    RuleId
);
id!(
    /// A template, whatever its version.
    TemplateId
);
id!(
    /// An API key.
    ApiKeyId
);
id!(
    /// A record that could not be processed.
    DeadLetterId
);

impl NotificationId {
    /// The id of a notification whose producer chose `own`: a UUIDv7 is taken as it is, any other
    /// text is hashed with the time the producer wrote down.
    pub fn from_producer(own: &str, created_at: UnixMs) -> Self {
        match parse_v7(own) {
            Some(uuid) => Self(uuid),
            None => Self::derived(created_at, &[own.as_bytes()]),
        }
    }

    /// The notification that `rule` makes of `event`, the same on every replay.
    pub fn of_rule(event: EventId, rule: RuleId) -> Self {
        Self::derived(event.unix_ms(), &[event.as_bytes(), rule.as_bytes()])
    }

    /// The notification at this place of a batch, the same whenever the batch is made. They sort as
    /// their places do.
    pub fn of_batch(batch: BatchId, place: u16) -> Self {
        let place = place.to_be_bytes();
        let id = Self::derived(batch.unix_ms(), &[batch.as_bytes(), &place]);
        let mut bytes = *id.as_bytes();
        bytes[6] = (bytes[6] & 0xf0) | (place[0] & 0x0f);
        bytes[7] = place[1];
        Self(Uuid::from_bytes(bytes))
    }

    /// The notification of a record that carries no id.
    pub fn of_record(topic: &str, partition: i32, offset: i64, timestamp: UnixMs) -> Self {
        Self::derived(
            timestamp,
            &[
                topic.as_bytes(),
                &partition.to_be_bytes(),
                &offset.to_be_bytes(),
            ],
        )
    }
}

impl EventId {
    /// As [`NotificationId::from_producer`].
    pub fn from_producer(own: &str, occurred_at: UnixMs) -> Self {
        match parse_v7(own) {
            Some(uuid) => Self(uuid),
            None => Self::derived(occurred_at, &[own.as_bytes()]),
        }
    }

    /// As [`NotificationId::of_record`].
    pub fn of_record(topic: &str, partition: i32, offset: i64, timestamp: UnixMs) -> Self {
        Self::derived(
            timestamp,
            &[
                topic.as_bytes(),
                &partition.to_be_bytes(),
                &offset.to_be_bytes(),
            ],
        )
    }
}

impl DeadLetterId {
    /// The dead letter of a record: one, however often it is replayed.
    pub fn of_record(topic: &str, partition: i32, offset: i64, timestamp: UnixMs) -> Self {
        Self::derived(
            timestamp,
            &[
                topic.as_bytes(),
                &partition.to_be_bytes(),
                &offset.to_be_bytes(),
            ],
        )
    }
}

fn parse_v7(text: &str) -> Option<Uuid> {
    let uuid = if text.len() == 36 {
        Uuid::try_parse(text).ok()?
    } else {
        return None;
    };
    (uuid.get_version_num() == 7).then_some(uuid)
}

fn derived(kind: &str, at_ms: UnixMs, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(kind.as_bytes());
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    let ms = at_ms.clamp(0, MAX_ID_MS) as u64;
    bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    bytes[6] = (bytes[6] & 0x0f) | 0x70; // version 7
    bytes[8] = (bytes[8] & 0x3f) | 0x80; // RFC 9562 variant
    Uuid::from_bytes(bytes)
}

/// Kafka's murmur2 with its seed, as the Java client's default partitioner uses it: what decides
/// the partition of a key, so that a shard computed here is the partition a record really went to.
pub fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in tail.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !tail.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition, of `partitions`, that Kafka's default partitioner gives a key.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the unit tests of Apache Kafka's own Utils.murmur2.
    #[test]
    fn murmur2_is_the_one_of_the_java_client() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58897971,
            ),
            (b"abc", 479470107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key) as i32, expected, "{key:?}");
        }
    }

    #[test]
    fn the_ids_of_a_batch_are_stable_and_in_its_order() {
        let batch = BatchId::derived(1_700_000_000_123, &[b"a"]);
        let ids: Vec<_> = (0..1_000)
            .map(|place| NotificationId::of_batch(batch, place))
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[7], NotificationId::of_batch(batch, 7));
        let other = BatchId::derived(1_700_000_000_123, &[b"b"]);
        assert_ne!(ids[7], NotificationId::of_batch(other, 7));
        assert_eq!(ids[999].unix_ms(), 1_700_000_000_123);
        assert_eq!(parse_v7(&ids[999].to_string()), Some(ids[999].uuid()));
    }

    #[test]
    fn a_derived_id_is_stable_and_carries_its_time() {
        let id = NotificationId::derived(1_700_000_000_123, &[b"a", b"b"]);
        assert_eq!(
            id,
            NotificationId::derived(1_700_000_000_123, &[b"a", b"b"])
        );
        assert_ne!(
            id,
            NotificationId::derived(1_700_000_000_123, &[b"ab", b""])
        );
        assert_eq!(id.unix_ms(), 1_700_000_000_123);
        assert_eq!(id.uuid().get_version_num(), 7);
        assert!(id >= NotificationId::first_at(1_700_000_000_123));
        assert!(id < NotificationId::first_at(1_700_000_000_124));
    }

    #[test]
    fn ids_of_different_kinds_differ() {
        let event = EventId::of_record("t", 0, 1, 5);
        let letter = DeadLetterId::of_record("t", 0, 1, 5);
        assert_ne!(event.uuid(), letter.uuid());
    }

    #[test]
    fn a_producers_uuid_v7_is_kept_and_any_other_text_is_hashed() {
        let own = NotificationId::random();
        assert_eq!(NotificationId::from_producer(&own.to_string(), 7), own);
        let hashed = NotificationId::from_producer("order-17", 7);
        assert_eq!(hashed.unix_ms(), 7);
        assert_eq!(hashed, NotificationId::from_producer("order-17", 7));
    }

    #[test]
    fn an_id_is_read_only_in_its_hyphenated_form() {
        let id = BatchId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(
            id.uuid().simple().to_string().parse::<BatchId>(),
            Err(InvalidId)
        );
        assert_eq!("".parse::<BatchId>(), Err(InvalidId));
    }
}
