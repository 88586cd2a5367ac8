//! What must be there before anything runs: the topics, as they must be.

use std::time::Duration;

use herald_broker::TopicSpec;
use herald_schemas::{
    codec::AvroRecord,
    records::{
        BatchAccepted, Control, DeadLetter, DeliveryReady, Event, EventMatched,
        NotificationRequested, StatusChanged,
    },
    topics::Topics,
    words::{Channel, Priority},
};
use herald_stages::retry::Ladder;

/// How much longer than its delay a retry tier keeps its records, so that a stage that is down for
/// days loses nothing.
const TIER_MARGIN: u32 = 2;

/// The largest event: what the API takes fits, and so does a webhook's body of GitHub's.
pub const EVENT_BYTES: usize = 1 << 20;
/// The largest request: a content with its HTML part, and what variables grow to.
pub const REQUEST_BYTES: usize = 2 << 20;
/// The largest of everything that is made of those: a dead letter holds a record whole.
const OTHER_BYTES: usize = 4 << 20;

/// A topic, and the name of the record on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The topic as it must be.
    pub spec: TopicSpec,
    /// The name of its records' schema.
    pub record: &'static str,
}

/// Every topic of a Herald.
pub fn topics(names: &Topics, ladder: &Ladder, partitions: i32, retention: Duration) -> Vec<Topic> {
    let topic = |name: String, record: &'static str, fixed_partitions: bool| Topic {
        spec: TopicSpec {
            name,
            partitions,
            fixed_partitions,
            retention: Some(retention),
            max_record_bytes: largest(record),
        },
        record,
    };
    let request = NotificationRequested::NAME;
    let mut topics = vec![
        topic(names.events(), Event::NAME, false),
        topic(names.matches(), EventMatched::NAME, false),
        topic(names.batches(), BatchAccepted::NAME, false),
        topic(names.scheduled(), request, false),
        // Rows lie by the partitions of these: they never change.
        topic(names.status(), StatusChanged::NAME, true),
        topic(names.dead_letters(), DeadLetter::NAME, false),
    ];
    for lane in Priority::ALL {
        topics.push(topic(names.notifications(*lane), request, false));
        for channel in Channel::ALL {
            topics.push(topic(
                names.deliveries(*channel, *lane),
                DeliveryReady::NAME,
                true,
            ));
        }
    }
    for tier in ladder.tiers() {
        let mut tier_topic = topic(names.retries(&tier.name), DeliveryReady::NAME, false);
        tier_topic.spec.retention = Some(retention.max(tier.delay * TIER_MARGIN) + tier.delay);
        topics.push(tier_topic);
    }
    topics.push(Topic {
        spec: TopicSpec {
            name: names.control(),
            partitions: 1,
            fixed_partitions: true,
            retention: None,
            max_record_bytes: largest(Control::NAME),
        },
        record: Control::NAME,
    });
    topics
}

/// The largest record of a topic, by the name of its schema, in bytes.
pub(crate) fn largest(record: &str) -> usize {
    match record {
        Event::NAME => EVENT_BYTES,
        NotificationRequested::NAME => REQUEST_BYTES,
        _ => OTHER_BYTES,
    }
}
