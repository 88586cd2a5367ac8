//! What a record costs to encode and to decode. `cargo bench -p herald-schemas`
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/samples/mod.rs"]
mod samples;

use divan::{Bencher, black_box};
use herald_schemas::{
    codec::{AvroRecord, Codec, Framing, RECORDS, WriterIds},
    records::{DeliveryReady, Event, StatusChanged},
};
use samples::Sample;

const FRAMINGS: [&str; 2] = ["single-object", "confluent"];

fn main() {
    divan::main();
}

fn codec(framing: &str) -> Codec {
    let framing = match framing {
        "confluent" => Framing::Confluent(WriterIds((100..100 + RECORDS.len() as u32).collect())),
        _ => Framing::SingleObject,
    };
    Codec::new(&framing).unwrap()
}

#[divan::bench(types = [Event, DeliveryReady, StatusChanged], args = FRAMINGS)]
fn encode<R: AvroRecord + Sample + Sync>(bencher: Bencher, framing: &str) {
    let (codec, record) = (codec(framing), R::full());
    let mut bytes = Vec::new();
    bencher.bench_local(|| {
        bytes.clear();
        codec.encode_into(black_box(&record), &mut bytes).unwrap();
    });
}

#[divan::bench(types = [Event, DeliveryReady, StatusChanged], args = FRAMINGS)]
fn decode<R: AvroRecord + Sample>(bencher: Bencher, framing: &str) {
    let codec = codec(framing);
    let bytes = codec.encode(&R::full()).unwrap();
    bencher.bench_local(|| codec.decode::<R>(black_box(&bytes)).unwrap());
}
