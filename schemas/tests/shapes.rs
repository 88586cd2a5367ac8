//! What each record looks like, in JSON and in Avro: a change of either is a change for whoever
//! reads the topics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod samples;

use std::fmt::Write;

use herald_schemas::{
    codec::{AvroRecord, Codec, Framing},
    records::{
        BatchAccepted, Control, DeadLetter, DeliveryReady, Event, EventMatched,
        NotificationRequested, StatusChanged,
    },
};
use samples::Sample;

fn shape<R: AvroRecord + Sample>() -> String {
    let codec = Codec::new(&Framing::SingleObject).unwrap();
    let mut text = String::new();
    for (name, record) in [("full", R::full()), ("minimal", R::minimal())] {
        let json = serde_json::to_string_pretty(&record).unwrap();
        writeln!(text, "{name}, as JSON\n{json}\n\n{name}, as Avro").unwrap();
        let bytes = codec.encode(&record).unwrap();
        for (index, line) in bytes.chunks(32).enumerate() {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{:04x} {hex}", index * 32).unwrap();
        }
        text.push('\n');
    }
    text
}

macro_rules! shapes {
    ($($test:ident $record:ident),+ $(,)?) => {$(
        #[test]
        fn $test() {
            insta::assert_snapshot!(shape::<$record>());
        }
    )+};
}

shapes!(
    event Event,
    notification_requested NotificationRequested,
    delivery_ready DeliveryReady,
    status_changed StatusChanged,
    event_matched EventMatched,
    dead_letter DeadLetter,
    control Control,
    batch_accepted BatchAccepted,
);
