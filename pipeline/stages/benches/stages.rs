//! What the decisions cost. `cargo bench -p herald-stages`
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../tests/stages/samples.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod samples;

use std::collections::HashMap;

use divan::{Bencher, black_box, counter::ItemsCount};
use herald_schemas::{
    catalog::{Rule, Template},
    ids::NotificationId,
    records::{Event, Identity, StatusChanged},
    rows::NotificationRow,
    words::Status,
};
use herald_stages::{Context, matching, materialize::fold, snapshot::Snapshot, template};
use samples::{NOW, World, delivery, event, object, payload, rule, some, source};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

/// Matches one event by `rules`, and by one rule of its own that holds.
fn matched(bencher: Bencher, rules: impl Iterator<Item = Rule>) {
    let mut world = World::new();
    world.catalog.rules.extend(rules);
    let (catalog, problems) = Snapshot::compile(&world.catalog);
    assert!(problems.is_empty());
    let context = Context {
        now: NOW,
        seed: 1,
        catalog: &catalog,
        settings: &world.settings,
    };
    let source = source("herald.events");
    bencher
        .with_inputs(event)
        .bench_local_values(|event: Event| matching::process(event, &source, &context));
}

#[divan::bench(args = [0, 99, 9_999])]
fn match_rules_whose_condition_fails(bencher: Bencher, rules: u32) {
    matched(
        bencher,
        (0..rules).map(|number| Rule {
            conditions: object(json!({"customer.vip": true, "order.id": number + 100})),
            ..rule(&number.to_string())
        }),
    );
}

#[divan::bench(args = [1, 100, 10_000])]
fn match_rules_whose_when_fails(bencher: Bencher, rules: u32) {
    matched(
        bencher,
        (0..rules).map(|number| Rule {
            conditions: object(json!({"customer.vip": true})),
            when: Some(format!("payload.order.total > {}.0", number + 100)),
            ..rule(&number.to_string())
        }),
    );
}

#[divan::bench(args = [0, 99, 9_999])]
fn match_rules_that_hold(bencher: Bencher, rules: u32) {
    matched(bencher, (0..rules).map(|number| rule(&number.to_string())));
}

#[divan::bench(args = [0, 1, 10_000])]
fn match_beside_rules_of_other_events(bencher: Bencher, rules: u32) {
    matched(
        bencher,
        (0..rules).map(|number| Rule {
            event: format!("event_{number}"),
            when: some("payload.order.total > 100.0"),
            ..rule(&number.to_string())
        }),
    );
}

/// About 300 bytes, with a loop and a condition.
fn letter() -> Template {
    let content = "Hello {{ name }},\n\nthank you for your order {{ order.id }} of {{ order.total }} \
                   euros at {{ shop }}. It contains:\n\n{{ for line in order.lines }}* {{ line.sku }}\n\
                   {{ endfor }}\n{{ if customer.vip }}As one of our best customers you pay nothing for \
                   the delivery.{{ endif }}\n\nWe will write again when it is on its way.\n";
    Template {
        content: content.to_owned(),
        subject: None,
        html: None,
        ..samples::template()
    }
}

#[divan::bench]
fn render_a_letter(bencher: Bencher) {
    let (letter, variables) = (letter(), object(payload()));
    assert!((300..400).contains(&letter.content.len()));
    bencher.bench_local(|| template::render_message(black_box(&letter), &variables).unwrap());
}

/// The same out of a payload of 100 KB, of which it needs little.
#[divan::bench]
fn render_a_letter_of_a_large_payload(bencher: Bencher) {
    let mut payload = payload();
    payload["others"] = Value::from(vec![payload.clone(); 600]);
    let (letter, variables) = (letter(), object(payload));
    bencher.bench_local(|| template::render_message(black_box(&letter), &variables).unwrap());
}

fn changes() -> Vec<StatusChanged> {
    (0..1_000_u32)
        .map(|number| StatusChanged {
            identity: Identity {
                id: NotificationId::derived(NOW, &[&number.to_be_bytes()]),
                ..samples::identity()
            },
            status: Status::Pending,
            attempts: 0,
            at: NOW,
            message: Some(delivery().message),
            calls: Vec::new(),
            provider_message_id: None,
            error: None,
        })
        .collect()
}

#[divan::bench]
fn fold_a_thousand_that_are_new(bencher: Bencher) {
    let changes = changes();
    bencher
        .counter(ItemsCount::new(changes.len()))
        .with_inputs(HashMap::new)
        .bench_local_values(|mut rows| fold(&mut rows, &changes));
}

#[divan::bench]
fn fold_a_thousand_that_are_sent(bencher: Bencher) {
    let pending = changes();
    let mut rows: HashMap<NotificationId, NotificationRow> = HashMap::new();
    fold(&mut rows, &pending);
    let sent: Vec<StatusChanged> = pending
        .into_iter()
        .map(|change| StatusChanged {
            status: Status::Sent,
            attempts: 1,
            message: None,
            ..change
        })
        .collect();
    bencher
        .counter(ItemsCount::new(sent.len()))
        .with_inputs(|| rows.clone())
        .bench_local_values(|mut rows| fold(&mut rows, &sent));
}
