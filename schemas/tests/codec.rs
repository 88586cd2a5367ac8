//! Every record in every framing, and what is not a record.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod samples;

use herald_schemas::{
    codec::{AvroRecord, Codec, DecodeError, Framing, RECORDS, WriterIds},
    records::{
        BatchAccepted, Control, DeadLetter, DeliveryReady, Event, EventMatched,
        NotificationRequested, StatusChanged,
    },
};
use proptest::prelude::*;
use samples::{Sample, delivery, event};

fn framings() -> [Framing; 2] {
    let ids = (0..RECORDS.len() as u32).map(|index| 100 + index).collect();
    [Framing::SingleObject, Framing::Confluent(WriterIds(ids))]
}

fn reads_back<R: AvroRecord + Sample + PartialEq + std::fmt::Debug>() {
    for framing in framings() {
        let codec = Codec::new(&framing).unwrap();
        for record in [R::full(), R::minimal()] {
            let bytes = codec.encode(&record).unwrap();
            assert_eq!(codec.decode::<R>(&bytes).unwrap(), record, "{framing:?}");
        }
    }
}

#[test]
fn every_record_reads_back_as_it_was_written() {
    reads_back::<Event>();
    reads_back::<NotificationRequested>();
    reads_back::<DeliveryReady>();
    reads_back::<StatusChanged>();
    reads_back::<EventMatched>();
    reads_back::<DeadLetter>();
    reads_back::<Control>();
    reads_back::<BatchAccepted>();
}

#[test]
fn a_reader_takes_either_framing() {
    let [single, confluent] = framings().map(|framing| Codec::new(&framing).unwrap());
    let record = event();
    assert_eq!(
        confluent
            .decode::<Event>(&single.encode(&record).unwrap())
            .unwrap(),
        record
    );
    // A schema id can be read once the registry has been asked about it.
    let bytes = confluent.encode(&record).unwrap();
    assert_eq!(
        single.decode::<Event>(&bytes),
        Err(DecodeError::UnknownSchemaId(100))
    );
    single.learn(100, Event::SCHEMA).unwrap();
    assert_eq!(single.decode::<Event>(&bytes).unwrap(), record);
}

#[test]
fn the_framings_are_the_standard_ones() {
    let [single, confluent] =
        framings().map(|framing| Codec::new(&framing).unwrap().encode(&event()).unwrap());
    assert_eq!(&confluent[..5], [0, 0, 0, 0, 100]);
    assert_eq!(&single[..2], [0xC3, 0x01]);
    assert_eq!(
        single[2..10],
        crc_64_avro(EVENT_CANONICAL.as_bytes()).to_le_bytes()
    );
    assert_eq!(single[10..], confluent[5..]);
}

/// The event's schema in the Parsing Canonical Form of the Avro specification.
const EVENT_CANONICAL: &str = concat!(
    r#"{"name":"herald.v1.Event","type":"record","fields":["#,
    r#"{"name":"id","type":["null","string"]},{"name":"event","type":"string"},"#,
    r#"{"name":"payload","type":"string"},{"name":"occurred_at","type":"long"},"#,
    r#"{"name":"catalog_version","type":"long"},"#,
    r#"{"name":"correlation_id","type":["null","string"]},"#,
    r#"{"name":"traceparent","type":["null","string"]}]}"#,
);

/// The fingerprint that the Avro specification gives, bit by bit.
fn crc_64_avro(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    bytes.iter().fold(EMPTY, |crc, byte| {
        let low = (0..8).fold((crc ^ u64::from(*byte)) & 0xff, |bits, _| {
            (bits >> 1) ^ (EMPTY & (bits & 1).wrapping_neg())
        });
        (crc >> 8) ^ low
    })
}

#[test]
fn bytes_that_are_no_record_say_what_they_are_instead() {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let good = codec.encode(&event()).unwrap();
    let mut long = good.to_vec();
    long.push(0);
    let cases: [(&[u8], DecodeError); 6] = [
        (b"", DecodeError::Empty),
        (b"{\"event\":1}", DecodeError::NoFraming(b'{')),
        (b"\x00\x00\x01", DecodeError::TooShort(3)),
        (b"\xC3\x02abcdefgh", DecodeError::NoFraming(0xC3)),
        (
            b"\xC3\x01\x01\0\0\0\0\0\0\0",
            DecodeError::UnknownFingerprint(1),
        ),
        (
            &long,
            DecodeError::Malformed("1 bytes too many after the record".to_owned()),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(codec.decode::<Event>(bytes), Err(expected));
    }
    let found = "herald.v1.Event".to_owned();
    let expected = DecodeError::OtherRecord {
        expected: "StatusChanged",
        found,
    };
    assert_eq!(codec.decode::<StatusChanged>(&good), Err(expected));
}

#[test]
fn a_word_outside_its_set_is_named() {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let mut bytes = codec.encode(&delivery()).unwrap().to_vec();
    let at = bytes
        .windows(5)
        .position(|window| window == b"email")
        .unwrap();
    bytes[at..at + 5].copy_from_slice(b"faxes");
    let error = codec.decode::<DeliveryReady>(&bytes).unwrap_err();
    assert!(
        error.to_string().contains("unknown channel \"faxes\""),
        "{error}"
    );
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let header = codec.encode(&event()).unwrap()[..10].to_vec();
    // The optional id: branch 1, a string of 2^60 bytes.
    let mut bytes = header;
    bytes.extend([0x02, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
    assert!(matches!(
        codec.decode::<Event>(&bytes),
        Err(DecodeError::Malformed(_))
    ));
}

proptest! {
    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(
        cut in 0_usize..400,
        flips in prop::collection::vec((0_usize..400, any::<u8>()), 0..6),
    ) {
        let codec = Codec::new(&Framing::SingleObject).unwrap();
        let mut bytes = codec.encode(&StatusChanged::full()).unwrap().to_vec();
        let len = bytes.len();
        for (at, value) in flips {
            bytes[at % len] = value;
        }
        bytes.truncate(len.saturating_sub(cut));
        let _ = codec.decode::<StatusChanged>(&bytes);
    }
}
