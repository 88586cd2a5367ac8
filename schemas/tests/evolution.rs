//! The schemas are the truth, the Rust types agree with them, and no version breaks another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod samples;

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, schema_compatibility::SchemaCompatibility,
    types::Value, writer::datum::GenericDatumWriter,
};
use herald_schemas::{
    codec::{AvroRecord, Codec, Framing, RECORDS},
    records::{
        BatchAccepted, Control, DeadLetter, DeliveryReady, Event, EventMatched,
        NotificationRequested, StatusChanged,
    },
};
use samples::Sample;

#[test]
fn every_schema_reads_and_is_read_by_every_released_version() {
    for record in RECORDS {
        let current = Schema::parse_str(record.schema).unwrap();
        assert!(
            !record.history.is_empty(),
            "{} was never released",
            record.name
        );
        for released in record.history {
            let released = Schema::parse_str(released).unwrap();
            SchemaCompatibility::can_read(&released, &current)
                .unwrap_or_else(|error| panic!("{}: not BACKWARD: {error}", record.name));
            SchemaCompatibility::can_read(&current, &released)
                .unwrap_or_else(|error| panic!("{}: not FORWARD: {error}", record.name));
        }
    }
}

#[test]
fn every_record_and_every_field_says_what_it_is() {
    fn check(schema: &serde_json::Value) {
        match schema {
            serde_json::Value::Array(parts) => parts.iter().for_each(check),
            serde_json::Value::Object(map) if map.contains_key("fields") => {
                assert!(map.contains_key("doc"), "{schema}");
                for field in map["fields"].as_array().unwrap() {
                    assert!(
                        !field["doc"].as_str().unwrap_or_default().is_empty(),
                        "{field}"
                    );
                    check(&field["type"]);
                }
            }
            serde_json::Value::Object(map) => map.get("items").into_iter().for_each(check),
            _ => {}
        }
    }
    for record in RECORDS {
        check(&serde_json::from_str(record.schema).unwrap());
    }
}

/// As the reference implementation reads.
fn read(schema: &Schema, mut datum: &[u8]) -> Value {
    GenericDatumReader::builder(schema)
        .build()
        .unwrap()
        .read_value(&mut datum)
        .unwrap()
}

/// As the reference implementation writes.
fn write(schema: &Schema, value: Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema)
        .build()
        .unwrap()
        .write_value_to_vec(value)
        .unwrap()
}

/// Encodes by the schema alone, with nothing but what it requires: what a producer in another
/// language does that leaves out whatever has a default.
fn required_only<R: AvroRecord + Sample>() -> Vec<u8> {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let framed = codec.encode(&R::minimal()).unwrap();
    // The writer's schema without the fields that have defaults.
    let mut json: serde_json::Value = serde_json::from_str(R::SCHEMA).unwrap();
    json["fields"]
        .as_array_mut()
        .unwrap()
        .retain(|field| field.get("default").is_none());
    let reader = Schema::parse_str(R::SCHEMA).unwrap();
    let writer = Schema::parse_str(&json.to_string()).unwrap();
    let full = read(&reader, &framed[10..]);
    let Value::Record(fields) = full else {
        panic!("no record")
    };
    let kept = fields
        .into_iter()
        .filter(|(name, _)| {
            json["fields"]
                .as_array()
                .unwrap()
                .iter()
                .any(|field| field["name"] == name.as_str())
        })
        .collect();
    let datum = write(&writer, Value::Record(kept));
    // Under an id, as a registry would have it.
    codec.learn(7, &json.to_string()).unwrap();
    let framed = [&[0, 0, 0, 0, 7][..], &datum].concat();
    let read: R = codec.decode(&framed).unwrap();
    codec.encode(&read).unwrap().to_vec()
}

fn defaults_agree<R: AvroRecord + Sample>() {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let expected = codec.encode(&R::minimal()).unwrap().to_vec();
    assert_eq!(
        required_only::<R>(),
        expected,
        "{}: Rust's defaults are not the schema's",
        R::NAME
    );
}

#[test]
fn a_field_that_is_left_out_has_the_schemas_default() {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    // `normal` is the one default that is no empty value.
    assert_eq!(NotificationRequested::minimal().priority, "normal");
    assert!(codec.encode(&Event::minimal()).is_ok());
    defaults_agree::<Event>();
    defaults_agree::<NotificationRequested>();
    defaults_agree::<DeliveryReady>();
    defaults_agree::<StatusChanged>();
    defaults_agree::<EventMatched>();
    defaults_agree::<DeadLetter>();
    defaults_agree::<Control>();
    defaults_agree::<BatchAccepted>();
}

#[test]
fn a_field_of_a_newer_writer_is_passed_over() {
    let mut json: serde_json::Value = serde_json::from_str(Event::SCHEMA).unwrap();
    let newer = serde_json::json!({"name": "tenant", "type": ["null", "string"], "default": null});
    json["fields"].as_array_mut().unwrap().insert(1, newer);
    let writer = Schema::parse_str(&json.to_string()).unwrap();
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    codec.learn(8, &json.to_string()).unwrap();

    let plain = codec.encode(&Event::full()).unwrap();
    let reader = Schema::parse_str(Event::SCHEMA).unwrap();
    let Value::Record(mut fields) = read(&reader, &plain[10..]) else {
        panic!("no record")
    };
    let tenant = Value::Union(1, Box::new(Value::String("acme".to_owned())));
    fields.insert(1, ("tenant".to_owned(), tenant));
    let datum = write(&writer, Value::Record(fields));
    let framed = [&[0, 0, 0, 0, 8][..], &datum].concat();
    assert_eq!(codec.decode::<Event>(&framed).unwrap(), Event::full());
}

#[test]
fn what_we_write_is_what_the_reference_implementation_reads() {
    fn check<R: AvroRecord + Sample>() {
        let codec = Codec::new(&Framing::SingleObject).unwrap();
        let schema = Schema::parse_str(R::SCHEMA).unwrap();
        for record in [R::full(), R::minimal()] {
            let bytes = codec.encode(&record).unwrap();
            let value = read(&schema, &bytes[10..]);
            let again = write(&schema, value);
            assert_eq!(again, bytes[10..], "{}", R::NAME);
        }
    }
    check::<Event>();
    check::<NotificationRequested>();
    check::<DeliveryReady>();
    check::<StatusChanged>();
    check::<EventMatched>();
    check::<DeadLetter>();
    check::<Control>();
    check::<BatchAccepted>();
}
