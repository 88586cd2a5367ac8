//! materialize on the embedded engines: what is counted, once, whatever came before a crash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use herald_runtime::{stage::Stage, worker::now};
use herald_schemas::{
    ids::DeadLetterId,
    records::{DeadLetter, Failure},
    rows::Tally,
};
use herald_stages::{Output, Settings};
use herald_store::Counted;

use self::support::{Carrier, World, eventually};

const LETTERS: Counted = Counted::DeadLetters(0);

struct Bench {
    world: World,
}

impl Bench {
    async fn new() -> Self {
        let world = World::of(1, Settings::default(), Carrier::willing()).await;
        Self { world }
    }

    async fn send(&self, letters: &[DeadLetter]) {
        let letters: Vec<Output> = letters.iter().cloned().map(Output::DeadLetter).collect();
        self.world.worker.outbox.send(&letters).await.unwrap();
    }

    /// Runs materialize until it has passed everything that was sent.
    async fn materialize(&self) {
        let running = self.world.start(&[Stage::Materialize]);
        let letters = [self.world.worker.topics.dead_letters()];
        eventually("all are passed", async || {
            self.world.is_done(Stage::Materialize, &letters).await
        })
        .await;
        running.stop().await;
    }

    /// How many letters are counted, and up to which offset.
    async fn counted(&self) -> (i64, i64) {
        let totals = self.world.worker.store.totals(LETTERS).await.unwrap();
        let letters = totals.tallies.iter().map(|(_, number)| number);
        (letters.sum(), totals.offset)
    }
}

fn letters(numbers: std::ops::Range<i64>) -> Vec<DeadLetter> {
    let letter = |n| DeadLetter {
        // The second half of them of the day before.
        id: DeadLetterId::of_record("t", 0, n, now() - n % 2 * 86_400_000),
        stage: "render".to_owned(),
        error: Failure {
            kind: "poison".to_owned(),
            code: "c".to_owned(),
            message: "m".to_owned(),
        },
        at: now(),
        identity: None,
        event_id: None,
        attempts: 0,
        source_topic: "t".to_owned(),
        source_partition: 0,
        source_offset: n,
        key: None,
        value: vec![1],
        headers: Vec::new(),
    };
    numbers.map(letter).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_was_written_twice_is_counted_once() {
    let bench = Bench::new().await;
    let all = letters(0..10);
    // Twice in one batch, and again in one that comes later.
    bench.send(&all[..4]).await;
    bench.send(&all[..6]).await;
    bench.materialize().await;
    assert_eq!(bench.counted().await, (6, 10));
    bench.send(&all).await;
    bench.materialize().await;
    assert_eq!(bench.counted().await, (10, 20));
    let days = bench
        .world
        .worker
        .store
        .totals(LETTERS)
        .await
        .unwrap()
        .tallies;
    assert_eq!(days.len(), 2, "{days:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_counted_before_a_crash_is_written_after_it_and_not_counted_again() {
    let bench = Bench::new().await;
    let all = letters(0..8);
    bench.send(&all[..5]).await;
    // What a crash leaves between the counts and the rows.
    let tally = Tally::of_letter(all[0].id);
    let store = &bench.world.worker.store;
    let advanced = store
        .advance_totals(LETTERS, 0, 5, &[], &[(tally, 5)])
        .await;
    assert!(advanced.unwrap());
    // One of those again, and new ones.
    bench.send(&all[4..]).await;
    bench.materialize().await;
    assert_eq!(bench.counted().await, (8, 9));
    let ids: Vec<DeadLetterId> = all.iter().map(|letter| letter.id).collect();
    let there = store.has_dead_letters(&ids).await.unwrap();
    assert_eq!(there, [true; 8]);
}
