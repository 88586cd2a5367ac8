//! One record of each kind with every field set, and one with only what is required.
#![allow(dead_code, reason = "each test file uses some of them")]

use herald_schemas::{
    ids::{BatchId, DeadLetterId, EventId, NotificationId, RuleId, TemplateId},
    records::{
        Attempt, BatchAccepted, Control, DeadLetter, DeliveryReady, Event, EventMatched, Failure,
        Identity, Message, NotificationRequested, RecordHeader, RuleOutcome, StatusChanged,
    },
    words::{Channel, Priority, Status},
};

const AT: i64 = 1_700_000_000_000;
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) trait Sample: Sized {
    fn full() -> Self;
    fn minimal() -> Self;
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// An event with about 1 KB of JSON.
pub(crate) fn event() -> Event {
    Event::full()
}

pub(crate) fn delivery() -> DeliveryReady {
    DeliveryReady::full()
}

impl Sample for Event {
    fn full() -> Self {
        let items: Vec<String> = (0..18)
            .map(|i| format!(r#"{{"sku":"SKU-{i:05}","quantity":{i},"price":{i}9.99}}"#))
            .collect();
        Self {
            id: some("order-17"),
            event: "order_created".to_owned(),
            payload: format!(r#"{{"order_id":444,"items":[{}]}}"#, items.join(",")),
            occurred_at: AT,
            catalog_version: 7,
            correlation_id: some("demo-123"),
            traceparent: some(TRACE),
        }
    }

    fn minimal() -> Self {
        Self {
            id: None,
            event: "ping".to_owned(),
            payload: "{}".to_owned(),
            occurred_at: 0,
            catalog_version: 0,
            correlation_id: None,
            traceparent: None,
        }
    }
}

impl Sample for NotificationRequested {
    fn full() -> Self {
        Self {
            id: some("n-1"),
            recipient: "ada@example.com".to_owned(),
            channel: "email".to_owned(),
            priority: "high".to_owned(),
            content: some("Hello"),
            subject: some("Hi"),
            html: some("<p>Hello</p>"),
            template_id: Some(TemplateId::derived(AT, &[b"t"])),
            template_version: Some(2),
            variables: some("{}"),
            metadata: some("{}"),
            idempotency_key: some("k"),
            correlation_id: some("c"),
            traceparent: some(TRACE),
            batch_id: Some(BatchId::derived(AT, &[b"b"])),
            event_id: Some(EventId::derived(AT, &[b"e"])),
            rule_id: Some(RuleId::derived(AT, &[b"r"])),
            requeued_from: Some(NotificationId::derived(AT, &[b"n"])),
            created_at: AT,
            send_at: Some(AT + 1),
            expires_at: Some(AT + 2),
            catalog_version: 3,
            accepted_by: some("match"),
        }
    }

    fn minimal() -> Self {
        Self {
            id: None,
            recipient: "x".to_owned(),
            channel: "log".to_owned(),
            priority: "normal".to_owned(),
            content: None,
            subject: None,
            html: None,
            template_id: None,
            template_version: None,
            variables: None,
            metadata: None,
            idempotency_key: None,
            correlation_id: None,
            traceparent: None,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            created_at: 0,
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            accepted_by: None,
        }
    }
}

impl Sample for Identity {
    fn full() -> Self {
        Self {
            id: NotificationId::derived(AT, &[b"n"]),
            recipient: "ada@example.com".to_owned(),
            channel: Channel::Email,
            priority: Priority::High,
            batch_id: Some(BatchId::derived(AT, &[b"b"])),
            event_id: Some(EventId::derived(AT, &[b"e"])),
            rule_id: Some(RuleId::derived(AT, &[b"r"])),
            requeued_from: Some(NotificationId::derived(AT, &[b"o"])),
            template_id: Some(TemplateId::derived(AT, &[b"t"])),
            template_version: Some(4),
            idempotency_key: some("k"),
            correlation_id: some("c"),
            traceparent: some(TRACE),
            created_at: AT,
            send_at: Some(AT + 1),
            expires_at: Some(AT + 2),
            catalog_version: 3,
            source: some("herald.events/0/17"),
        }
    }

    fn minimal() -> Self {
        Self {
            id: NotificationId::derived(AT, &[b"n"]),
            recipient: "x".to_owned(),
            channel: Channel::Log,
            priority: Priority::Low,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: None,
            correlation_id: None,
            traceparent: None,
            created_at: 0,
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            source: None,
        }
    }
}

impl Sample for Message {
    fn full() -> Self {
        Self {
            content: "Hello".to_owned(),
            subject: some("Hi"),
            html: some("<p>Hello</p>"),
            metadata: some("{}"),
        }
    }

    fn minimal() -> Self {
        Self {
            content: String::new(),
            subject: None,
            html: None,
            metadata: None,
        }
    }
}

fn failure() -> Failure {
    Failure {
        kind: "transient".to_owned(),
        code: "http_503".to_owned(),
        message: "busy".to_owned(),
    }
}

impl Sample for DeliveryReady {
    fn full() -> Self {
        Self {
            identity: Identity::full(),
            message: Message::full(),
            message_known: true,
            attempts: 2,
            due_at: Some(AT),
            last_error: Some(failure()),
        }
    }

    fn minimal() -> Self {
        Self {
            identity: Identity::minimal(),
            message: Message::minimal(),
            message_known: false,
            attempts: 0,
            due_at: None,
            last_error: None,
        }
    }
}

impl Sample for StatusChanged {
    fn full() -> Self {
        let call = |step, error| Attempt {
            number: 1,
            step,
            provider: "primary".to_owned(),
            started_at: AT,
            latency_ms: 12,
            error,
            response: some("{}"),
        };
        Self {
            identity: Identity::full(),
            status: Status::Sent,
            attempts: 1,
            at: AT,
            message: Some(Message::full()),
            calls: vec![call(0, Some(failure())), call(1, None)],
            provider_message_id: some("m-1"),
            error: Some(failure()),
        }
    }

    fn minimal() -> Self {
        Self {
            identity: Identity::minimal(),
            status: Status::Pending,
            attempts: 0,
            at: 0,
            message: None,
            calls: Vec::new(),
            provider_message_id: None,
            error: None,
        }
    }
}

impl Sample for BatchAccepted {
    fn full() -> Self {
        Self {
            id: BatchId::derived(AT, &[b"b"]),
            at: AT,
            total: 2,
            metadata: some(r#"{"campaign":"spring"}"#),
            idempotency_key: some("batch-1"),
            correlation_id: some("demo-123"),
            traceparent: some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        }
    }

    fn minimal() -> Self {
        Self {
            id: BatchId::derived(AT, &[b"b"]),
            at: 0,
            total: 0,
            metadata: None,
            idempotency_key: None,
            correlation_id: None,
            traceparent: None,
        }
    }
}

impl Sample for EventMatched {
    fn full() -> Self {
        let rule = |notification_id, reason| RuleOutcome {
            rule_id: RuleId::derived(AT, &[b"r"]),
            rule: "big orders".to_owned(),
            notification_id,
            reason,
        };
        Self {
            event_id: EventId::derived(AT, &[b"e"]),
            catalog_version: 3,
            at: AT,
            rules: vec![
                rule(Some(NotificationId::derived(AT, &[b"n"])), None),
                rule(None, some("total is 5, not 10")),
            ],
            omitted: 4,
            error: Some(failure()),
        }
    }

    fn minimal() -> Self {
        Self {
            event_id: EventId::derived(AT, &[b"e"]),
            catalog_version: 0,
            at: 0,
            rules: Vec::new(),
            omitted: 0,
            error: None,
        }
    }
}

impl Sample for DeadLetter {
    fn full() -> Self {
        Self {
            id: DeadLetterId::derived(AT, &[b"d"]),
            stage: "render".to_owned(),
            error: failure(),
            at: AT,
            identity: Some(Identity::full()),
            event_id: Some(EventId::derived(AT, &[b"e"])),
            attempts: 3,
            source_topic: "herald.events".to_owned(),
            source_partition: 1,
            source_offset: 17,
            key: Some(vec![0, 159, 146, 150]),
            value: vec![0xFF, 0x00, 0xC3],
            headers: vec![RecordHeader {
                name: "traceparent".to_owned(),
                value: vec![1, 2],
            }],
        }
    }

    fn minimal() -> Self {
        Self {
            id: DeadLetterId::derived(AT, &[b"d"]),
            stage: "match".to_owned(),
            error: failure(),
            at: 0,
            identity: None,
            event_id: None,
            attempts: 0,
            source_topic: "t".to_owned(),
            source_partition: 0,
            source_offset: 0,
            key: None,
            value: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl Sample for Control {
    fn full() -> Self {
        Self {
            kind: "catalog".to_owned(),
            name: "catalog".to_owned(),
            body: r#"{"version":3}"#.to_owned(),
            at: AT,
        }
    }

    fn minimal() -> Self {
        Self {
            kind: String::new(),
            name: String::new(),
            body: String::new(),
            at: 0,
        }
    }
}
