//! What a record costs to encode and to decode. `cargo bench -p herald-schemas`
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/samples/mod.rs"]
mod samples;

use divan::{Bencher, black_box};
use herald_schemas::{
    codec::{AvroRecord, Codec, Framing},
    records::{DeliveryReady, Event, StatusChanged},
};
use samples::Sample;

fn main() {
    divan::main();
}

fn codec() -> Codec {
    Codec::new(&Framing::SingleObject).unwrap()
}

#[divan::bench(types = [Event, DeliveryReady, StatusChanged])]
fn encode<R: AvroRecord + Sample + Sync>(bencher: Bencher) {
    let (codec, record) = (codec(), R::full());
    let mut bytes = Vec::new();
    bencher.bench_local(|| {
        bytes.clear();
        codec.encode_into(black_box(&record), &mut bytes).unwrap();
    });
}

#[divan::bench(types = [Event, DeliveryReady, StatusChanged])]
fn decode<R: AvroRecord + Sample>(bencher: Bencher) {
    let codec = codec();
    let bytes = codec.encode(&R::full()).unwrap();
    bencher.bench_local(|| codec.decode::<R>(black_box(&bytes)).unwrap());
}
