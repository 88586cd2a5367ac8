//! What every store does, as functions over the seam. `contract!` makes a test of each for a store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod events;
mod letters;
mod races;

pub use events::*;
pub use letters::*;
pub use races::*;

use std::sync::Arc;

use futures_util::future::join_all;
use herald_schemas::{
    catalog::Kind,
    ids::{BatchId, DeadLetterId, EventId, NotificationId, RuleId},
    records::{Attempt, DeadLetter, Event, EventMatched, Failure, Identity, Message, RuleOutcome},
    rows::{CountKey, Filter, Index, NotificationRow, RowWrite, Tally},
    words::{Channel, Priority, Status},
};
use herald_store::{
    CatalogChange, CatalogOutcome, Claim, Counted, Layout, Outcome, Store, StoreError,
};
use uuid::Uuid;

pub const LAYOUT: Layout = Layout {
    status_shards: 3,
    claim_shards: 3,
    bucket_minutes: 60,
    retention_days: 90,
};

/// After every row of these tests, and within their retention.
pub fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

pub fn row(id: NotificationId, status: Status) -> NotificationRow {
    NotificationRow {
        identity: Identity {
            id,
            recipient: format!("r{}@example.com", id.as_bytes()[15]),
            channel: Channel::Email,
            priority: Priority::Normal,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: None,
            correlation_id: None,
            traceparent: None,
            created_at: id.unix_ms(),
            send_at: None,
            expires_at: None,
            catalog_version: 0,
            source: None,
        },
        message: Some(Message {
            content: "Hello".to_owned(),
            subject: None,
            html: None,
            metadata: None,
        }),
        status,
        attempts: 0,
        updated_at: id.unix_ms(),
        sent_at: None,
        cancelled_at: None,
        provider_message_id: None,
        last_error: None,
        delivery_status: None,
    }
}

pub fn fresh(row: NotificationRow) -> RowWrite {
    RowWrite {
        row,
        is_new: true,
        writes_message: true,
        calls: Vec::new(),
    }
}

fn changed(row: NotificationRow) -> RowWrite {
    RowWrite {
        row,
        is_new: false,
        writes_message: false,
        calls: Vec::new(),
    }
}

/// Ids of one millisecond each, oldest first.
fn ids(count: i64) -> Vec<NotificationId> {
    let start = now() - count;
    (0..count)
        .map(|n| NotificationId::derived(start + n, &[Uuid::now_v7().as_bytes()]))
        .collect()
}

async fn list(store: &dyn Store, filter: &Filter, per_page: usize) -> Vec<NotificationId> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store
            .list_notifications(filter, before, per_page)
            .await
            .unwrap();
        assert!(page.items.len() <= per_page);
        all.extend(page.items.iter().map(NotificationRow::id));
        before = page.next;
        if before.is_none() {
            return all;
        }
    }
}

pub async fn setup_can_be_repeated_and_keeps_its_layout(store: Arc<dyn Store>) {
    store.setup(LAYOUT).await.unwrap();
    assert_eq!(store.layout().await.unwrap(), LAYOUT);
    let error = store
        .setup(Layout {
            status_shards: 4,
            ..LAYOUT
        })
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::LayoutChanged(_)), "{error}");
    assert_eq!(store.layout().await.unwrap(), LAYOUT);
    store.ping().await.unwrap();
}

pub async fn rows_are_read_as_they_were_written_in_the_order_asked(store: Arc<dyn Store>) {
    let ids = ids(300);
    let rows: Vec<NotificationRow> = ids.iter().map(|id| row(*id, Status::Pending)).collect();
    let writes: Vec<RowWrite> = rows.iter().cloned().map(fresh).collect();
    store.write_notifications(&writes, 1).await.unwrap();
    let unknown = NotificationId::random();
    let asked: Vec<NotificationId> = ids.iter().rev().copied().chain([unknown]).collect();
    let read = store.notifications(&asked).await.unwrap();
    let expected: Vec<Option<NotificationRow>> =
        rows.into_iter().rev().map(Some).chain([None]).collect();
    assert_eq!(read, expected);
}

pub async fn of_two_writes_the_one_with_the_higher_stamp_stands(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let pending = row(id, Status::Pending);
    let sent = NotificationRow {
        attempts: 1,
        sent_at: Some(7),
        provider_message_id: Some("m".to_owned()),
        ..row(id, Status::Sent)
    };
    store
        .write_notifications(&[fresh(pending.clone())], 5)
        .await
        .unwrap();
    store
        .write_notifications(&[changed(sent.clone())], 9)
        .await
        .unwrap();
    store
        .write_notifications(&[changed(pending)], 6)
        .await
        .unwrap();
    assert_eq!(store.notifications(&[id]).await.unwrap(), [Some(sent)]);
}

pub async fn a_message_may_come_after_the_row(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let silent = NotificationRow {
        message: None,
        ..row(id, Status::Pending)
    };
    let first = RowWrite {
        writes_message: false,
        ..fresh(silent)
    };
    store.write_notifications(&[first], 1).await.unwrap();
    let spoken = row(id, Status::Sent);
    let second = RowWrite {
        writes_message: true,
        ..changed(spoken.clone())
    };
    store.write_notifications(&[second], 2).await.unwrap();
    assert_eq!(store.notifications(&[id]).await.unwrap(), [Some(spoken)]);
}

pub async fn a_row_is_whose_the_newest_whole_write_says(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let first = row(id, Status::Sent);
    store
        .write_notifications(&[fresh(first.clone())], 1)
        .await
        .unwrap();
    let mut other = first;
    other.identity.recipient = format!("{id}@example.com");
    other.identity.channel = Channel::Log;
    other.identity.priority = Priority::Low;
    other.identity.source = Some("herald.events/0/1".to_owned());
    store
        .write_notifications(&[fresh(other.clone())], 2)
        .await
        .unwrap();
    let read = store.notifications(&[id]).await.unwrap();
    assert_eq!(read, [Some(other.clone())]);
    let filter = Filter {
        channel: Some(Channel::Log),
        priority: Some(Priority::Low),
        index: Some(Index::Recipient(other.identity.recipient)),
        ..Filter::default()
    };
    assert_eq!(list(&*store, &filter, 10).await, [id]);
}

pub async fn calls_are_kept_in_order_and_once(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let call = |number, step| Attempt {
        number,
        step,
        provider: "primary".to_owned(),
        started_at: 1,
        latency_ms: 2,
        error: None,
        response: Some("ok".to_owned()),
    };
    let calls = vec![call(2, 0), call(1, 1), call(1, 0)];
    let write = RowWrite {
        calls,
        ..fresh(row(id, Status::Sent))
    };
    store
        .write_notifications(std::slice::from_ref(&write), 1)
        .await
        .unwrap();
    store.write_notifications(&[write], 2).await.unwrap();
    assert_eq!(
        store.calls(id).await.unwrap(),
        [call(1, 0), call(1, 1), call(2, 0)]
    );
}

pub async fn lists_are_newest_first_paged_and_filtered(store: Arc<dyn Store>) {
    let ids = ids(50);
    let batch = BatchId::random();
    let rows = ids.iter().enumerate().map(|(n, id)| {
        let mut row = row(
            *id,
            if n % 5 == 0 {
                Status::Failed
            } else {
                Status::Sent
            },
        );
        row.identity.recipient = format!("r{}@example.com", n % 2);
        row.identity.batch_id = (n < 20).then_some(batch);
        row
    });
    let writes: Vec<RowWrite> = rows.map(fresh).collect();
    store.write_notifications(&writes, 1).await.unwrap();
    let expected = |keep: &dyn Fn(usize) -> bool| -> Vec<NotificationId> {
        (0..50).rev().filter(|n| keep(*n)).map(|n| ids[n]).collect()
    };
    let cases: [(Filter, &dyn Fn(usize) -> bool); 5] = [
        (Filter::default(), &|_| true),
        (
            Filter {
                status: Some(Status::Failed),
                ..Filter::default()
            },
            &|n| n % 5 == 0,
        ),
        (
            Filter {
                channel: Some(Channel::Sms),
                ..Filter::default()
            },
            &|_| false,
        ),
        (
            Filter {
                index: Some(Index::Batch(batch.to_string())),
                ..Filter::default()
            },
            &|n| n < 20,
        ),
        (
            Filter {
                index: Some(Index::Recipient("r1@example.com".to_owned())),
                from: Some(ids[10].unix_ms()),
                until: Some(ids[30].unix_ms()),
                ..Filter::default()
            },
            &|n| n % 2 == 1 && (10..30).contains(&n),
        ),
    ];
    for (filter, keep) in cases {
        for per_page in [7, 50, 100] {
            assert_eq!(
                list(&*store, &filter, per_page).await,
                expected(keep),
                "{filter:?}"
            );
        }
    }
}

pub async fn lists_go_through_all_times_and_find_by_everything(store: Arc<dyn Store>) {
    // Over two years and more than one write's worth, some of them of the same moment.
    let (hour, start) = (3_600_000, now() - 80 * 86_400_000);
    let batch = BatchId::derived(start, &[b"batch"]);
    let rows: Vec<NotificationRow> = (0..400_i64)
        .map(|n| {
            let at = start + (n / 4) * 19 * hour;
            let id = NotificationId::derived(at, &[&n.to_be_bytes()]);
            let mut row = row(id, Status::ALL[n as usize % Status::ALL.len()]);
            row.identity.channel = Channel::ALL[n as usize % Channel::ALL.len()];
            row.identity.priority = Priority::ALL[n as usize % 3];
            row.identity.recipient = format!("r{}", n % 5);
            row.identity.correlation_id = (n % 2 == 0).then(|| format!("c{}", n % 3));
            row.identity.event_id = (n % 10 == 0).then(|| EventId::derived(at, &[b"event"]));
            row.identity.batch_id = (n % 7 == 0).then_some(batch);
            row
        })
        .collect();
    let writes: Vec<RowWrite> = rows.iter().cloned().map(fresh).collect();
    store.write_notifications(&writes, 1).await.unwrap();
    let some_event = rows[40].identity.event_id.unwrap().to_string();
    let indexes = [
        None,
        Some(Index::Recipient("r3".to_owned())),
        Some(Index::Recipient("nobody".to_owned())),
        Some(Index::Correlation("c1".to_owned())),
        Some(Index::Batch(batch.to_string())),
        Some(Index::Event(some_event)),
    ];
    let filters = indexes.into_iter().flat_map(|index| {
        let plain = Filter {
            index,
            ..Filter::default()
        };
        let by_words = Filter {
            status: Some(Status::Sent),
            ..plain.clone()
        };
        let narrow = Filter {
            channel: Some(Channel::Push),
            priority: Some(Priority::Low),
            from: Some(rows[100].id().unix_ms()),
            until: Some(rows[300].id().unix_ms()),
            ..plain.clone()
        };
        [plain, by_words, narrow]
    });
    for filter in filters {
        let mut expected: Vec<NotificationId> = rows
            .iter()
            .filter(|row| shows(&filter, row))
            .map(NotificationRow::id)
            .collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(list(&*store, &filter, 30).await, expected, "{filter:?}");
    }
}

pub async fn a_time_far_in_the_future_is_kept_like_any_other(store: Arc<dyn Store>) {
    let year_9999 = 253_370_764_800_000;
    let mut scheduled = row(NotificationId::random(), Status::Scheduled);
    scheduled.identity.send_at = Some(year_9999);
    let mut endless = row(NotificationId::random(), Status::Scheduled);
    endless.identity.send_at = Some(i64::MAX);
    // An id of somebody's own, without a time in it that means anything.
    let foreign = NotificationId::from_uuid(Uuid::from_u128(u128::MAX - 7));
    let mut rows = vec![scheduled, endless, row(foreign, Status::Pending)];
    rows.sort_by_key(NotificationRow::id);
    let writes: Vec<RowWrite> = rows.iter().cloned().map(fresh).collect();
    store.write_notifications(&writes, 1).await.unwrap();
    let ids: Vec<NotificationId> = rows.iter().rev().map(NotificationRow::id).collect();
    assert_eq!(list(&*store, &Filter::default(), 2).await, ids);
    let rows: Vec<Option<NotificationRow>> = rows.into_iter().rev().map(Some).collect();
    assert_eq!(store.notifications(&ids).await.unwrap(), rows);
}

pub async fn a_span_without_time_has_nothing(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let mut row = row(id, Status::Sent);
    row.identity.batch_id = Some(BatchId::random());
    let batch = Index::Batch(row.identity.batch_id.unwrap().to_string());
    store.write_notifications(&[fresh(row)], 1).await.unwrap();
    let at = id.unix_ms();
    for (from, until) in [(at, at), (at + 1, at), (-5, 0), (i64::MAX, i64::MIN)] {
        for index in [None, Some(batch.clone())] {
            let filter = Filter {
                from: Some(from),
                until: Some(until),
                index,
                ..Filter::default()
            };
            assert_eq!(list(&*store, &filter, 5).await, [], "{filter:?}");
        }
    }
}

/// What a filter means.
fn shows(filter: &Filter, row: &NotificationRow) -> bool {
    let at = row.id().unix_ms();
    filter.status.is_none_or(|status| row.status == status)
        && filter
            .channel
            .is_none_or(|channel| row.identity.channel == channel)
        && filter
            .priority
            .is_none_or(|lane| row.identity.priority == lane)
        && filter.from.is_none_or(|from| at >= from)
        && filter.until.is_none_or(|until| at < until)
        && filter
            .index
            .as_ref()
            .is_none_or(|index| Index::of(&row.identity).contains(index))
}

fn key(status: Status) -> CountKey {
    CountKey {
        day: 1,
        status,
        channel: Channel::Sms,
        priority: Priority::High,
    }
}

pub async fn counts_advance_only_from_the_offset_they_are_true_for(store: Arc<dyn Store>) {
    let (pending, sent) = (key(Status::Pending), key(Status::Sent));
    let advance = async |of, from, to, counts: &[(CountKey, i64)], tallies: &[(Tally, i64)]| {
        let advanced = store.advance_totals(of, from, to, counts, tallies);
        advanced.await.unwrap()
    };
    let of = Counted::Status(0);
    let hour = Tally::hour(now());
    let (tally, sum) = (Tally::Sent(hour), Tally::SentMs(hour));
    assert!(advance(of, 0, 10, &[(pending, 3)], &[(tally, 1), (sum, 7)]).await);
    assert!(!advance(of, 0, 10, &[(pending, 3)], &[(tally, 1)]).await);
    let later = [(pending, -3), (sent, 3)];
    assert!(advance(of, 10, 20, &later, &[(tally, 2), (sum, -2)]).await);
    assert!(advance(Counted::Status(1), 0, 5, &[(sent, 1)], &[]).await);
    let totals = store.totals(of).await.unwrap();
    assert_eq!(totals.offset, 20);
    let counts: Vec<_> = totals
        .counts
        .into_iter()
        .filter(|(_, number)| *number != 0)
        .collect();
    assert_eq!(counts, [(sent, 3)]);
    let mut tallies = totals.tallies;
    tallies.sort_unstable();
    assert_eq!(tallies, [(tally, 3), (sum, 5)]);
    assert_eq!(store.totals(Counted::Status(2)).await.unwrap().offset, 0);
}

pub async fn every_partition_of_every_topic_has_its_own_counts(store: Arc<dyn Store>) {
    let all = [0, 1].map(|n| [Counted::Status(n), Counted::DeadLetters(n)]);
    let letters = Tally::DeadLetters((now() / 86_400_000) as i32);
    for (n, of) in (1..).zip(all.into_iter().flatten()) {
        let advanced = store.advance_totals(of, 0, n, &[], &[(letters, n)]).await;
        assert!(advanced.unwrap(), "{of:?}");
    }
    for (n, of) in (1..).zip(all.into_iter().flatten()) {
        let totals = store.totals(of).await.unwrap();
        assert_eq!((totals.offset, totals.tallies), (n, vec![(letters, n)]));
    }
}

pub async fn of_many_that_count_at_once_one_does(store: Arc<dyn Store>) {
    let of = Counted::Status(0);
    for round in 0..3 {
        let one = || async {
            let changes = [(key(Status::Pending), 1)];
            store
                .advance_totals(of, round * 10, round * 10 + 10, &changes, &[])
                .await
        };
        // Where many contend, one may also be told to come again.
        let won = join_all((0..5).map(|_| one())).await;
        let won = won
            .into_iter()
            .filter(|won| matches!(won, Ok(true)))
            .count();
        assert!(won <= 1, "{won} counted in round {round}");
        if won == 0 {
            let _ = one().await;
        }
        let totals = store.totals(of).await.unwrap();
        assert_eq!(
            (totals.offset, totals.counts[0].1),
            (round * 10 + 10, round + 1)
        );
    }
}

pub async fn claims_of_many_recipients_are_answered_in_their_order(store: Arc<dyn Store>) {
    let claims: Vec<Claim> = ids(250)
        .into_iter()
        .enumerate()
        .map(|(n, id)| Claim {
            id,
            recipient: format!("r{}", n % 7),
            attempt: 1,
            worker: "w".to_owned(),
        })
        .collect();
    let outcomes: Vec<Outcome> = claims
        .iter()
        .step_by(3)
        .map(|claim| Outcome {
            id: claim.id,
            recipient: claim.recipient.clone(),
            attempt: 1,
            body: claim.id.to_string().into_bytes(),
        })
        .collect();
    let claimed = store.claim(&claims, &outcomes).await.unwrap();
    assert_eq!(claimed.len(), claims.len());
    for (n, (claim, claimed)) in claims.iter().zip(claimed).enumerate() {
        let expected = (n % 3 == 0).then(|| (1, claim.id.to_string().into_bytes()));
        assert_eq!(claimed.outcome, expected, "claim {n}");
        assert!(!claimed.cancel_marked);
    }
}

pub async fn a_claim_learns_of_the_newest_outcome(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let claim = |attempt| Claim {
        id,
        recipient: "r".to_owned(),
        attempt,
        worker: "w".to_owned(),
    };
    let outcome = |attempt, body: &[u8]| Outcome {
        id,
        recipient: "r".to_owned(),
        attempt,
        body: body.to_vec(),
    };
    let first = store.claim(&[claim(1)], &[]).await.unwrap();
    assert_eq!(first[0].outcome, None);
    // Claimed twice before it is settled: nothing is known yet.
    assert_eq!(
        store.claim(&[claim(1)], &[]).await.unwrap()[0].outcome,
        None
    );
    store.claim(&[], &[outcome(1, b"one")]).await.unwrap();
    assert_eq!(
        store.claim(&[claim(1)], &[]).await.unwrap()[0].outcome,
        Some((1, b"one".to_vec()))
    );
    // An outcome that comes with the claims is seen by them.
    let both = store
        .claim(&[claim(2)], &[outcome(2, b"two")])
        .await
        .unwrap();
    assert_eq!(both[0].outcome, Some((2, b"two".to_vec())));
}

pub async fn catalog_names_are_unique_and_versions_follow_each_other(store: Arc<dyn Store>) {
    let source = |id: Uuid, name: &str| {
        format!(r#"{{"id":"{id}","name":"{name}","is_active":true,"created_at":1,"updated_at":1}}"#)
    };
    let put = |id: Uuid, version, name: &str| CatalogChange::Put {
        kind: Kind::Source,
        id,
        version,
        seen: None,
        name: name.to_owned(),
        body: source(id, name),
    };
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    let before = store.catalog_version().await.unwrap();
    let made = store.change_catalog(put(a, 1, "one")).await.unwrap();
    let CatalogOutcome::Changed(version) = made else {
        panic!("{made:?}")
    };
    assert!(version > before);
    assert_eq!(
        store.change_catalog(put(b, 1, "one")).await.unwrap(),
        CatalogOutcome::NameTaken
    );
    assert_eq!(
        store.change_catalog(put(b, 2, "two")).await.unwrap(),
        CatalogOutcome::Conflict
    );
    // The same again, as after an answer that was lost.
    assert!(matches!(
        store.change_catalog(put(a, 1, "one")).await.unwrap(),
        CatalogOutcome::Changed(_)
    ));
    assert!(matches!(
        store.change_catalog(put(a, 2, "renamed")).await.unwrap(),
        CatalogOutcome::Changed(_)
    ));
    let catalog = store.catalog().await.unwrap();
    assert_eq!(catalog.sources.len(), 1);
    assert_eq!(catalog.sources[0].name, "renamed");
    assert_eq!(catalog.version, store.catalog_version().await.unwrap());
    let delete = CatalogChange::Delete {
        kind: Kind::Source,
        id: a,
    };
    assert!(matches!(
        store.change_catalog(delete.clone()).await.unwrap(),
        CatalogOutcome::Changed(_)
    ));
    assert_eq!(
        store.change_catalog(delete).await.unwrap(),
        CatalogOutcome::Conflict
    );
    assert!(matches!(
        store.change_catalog(put(b, 1, "renamed")).await.unwrap(),
        CatalogOutcome::Changed(_)
    ));
}

pub async fn template_versions_outlive_changes_and_deletion(store: Arc<dyn Store>) {
    let id = Uuid::now_v7();
    let body = |version: i32, name: &str| {
        format!(
            r#"{{"id":"{id}","version":{version},"name":"{name}","channel":"log","content":"v{version}","created_at":1,"updated_at":1}}"#
        )
    };
    let put = |version: i32, name: &str| CatalogChange::Put {
        kind: Kind::Template,
        id,
        version,
        seen: None,
        name: name.to_owned(),
        body: body(version, name),
    };
    for change in [put(1, "first"), put(2, "first"), put(3, "second")] {
        let outcome = store.change_catalog(change).await.unwrap();
        assert!(matches!(outcome, CatalogOutcome::Changed(_)), "{outcome:?}");
    }
    // Somebody else was faster with version 3.
    assert_eq!(
        store.change_catalog(put(3, "third")).await.unwrap(),
        CatalogOutcome::Conflict
    );
    let versions = async || -> Vec<(i32, bool)> {
        let catalog = store.catalog().await.unwrap();
        let templates = catalog.templates.iter();
        templates.map(|t| (t.template.version, t.retired)).collect()
    };
    assert_eq!(versions().await, [(1, true), (2, true), (3, false)]);
    let delete = CatalogChange::Delete {
        kind: Kind::Template,
        id,
    };
    store.change_catalog(delete.clone()).await.unwrap();
    assert_eq!(versions().await, [(1, true), (2, true), (3, true)]);
    assert_eq!(
        store.change_catalog(delete).await.unwrap(),
        CatalogOutcome::Conflict
    );
    assert_eq!(
        store.change_catalog(put(4, "second")).await.unwrap(),
        CatalogOutcome::Conflict,
        "what is deleted does not come back"
    );
}

pub async fn of_many_that_take_a_name_at_once_one_does(store: Arc<dyn Store>) {
    let one = |n: usize| {
        let (store, id) = (Arc::clone(&store), Uuid::now_v7());
        async move {
            let put = CatalogChange::Put {
                kind: Kind::Rule,
                id,
                version: 1,
                seen: None,
                name: "wanted".to_owned(),
                body: format!(
                    r#"{{"id":"{id}","name":"wanted","event":"e{n}","template_id":"{id}","recipient":"me","priority":"high","is_active":true,"created_at":1,"updated_at":1}}"#
                ),
            };
            store.change_catalog(put).await
        }
    };
    let outcomes = join_all((0..8).map(one)).await;
    let changed = |outcome: &&Result<CatalogOutcome, StoreError>| {
        matches!(outcome, Ok(CatalogOutcome::Changed(_)))
    };
    assert!(
        outcomes.iter().all(|outcome| matches!(
            outcome,
            Ok(CatalogOutcome::Changed(_) | CatalogOutcome::NameTaken)
        )),
        "{outcomes:?}"
    );
    assert_eq!(outcomes.iter().filter(changed).count(), 1);
    assert_eq!(store.catalog().await.unwrap().rules.len(), 1);
    assert_eq!(store.catalog_version().await.unwrap(), 1);
}

/// What the contract runs on.
pub trait Engine: Sized {
    /// A store of the test's own that is set up; none where there is nothing to run it on, which is
    /// then said.
    async fn start() -> Option<Self>;
    fn store(&self) -> Arc<dyn Store>;
    /// Takes away what the test left.
    async fn end(self);
}

/// Every test of the contract, for an engine.
#[macro_export]
macro_rules! contract {
    ($engine:ty) => {
        contract!($engine:
            setup_can_be_repeated_and_keeps_its_layout,
            rows_are_read_as_they_were_written_in_the_order_asked,
            of_two_writes_the_one_with_the_higher_stamp_stands,
            a_message_may_come_after_the_row,
            a_row_is_whose_the_newest_whole_write_says,
            calls_are_kept_in_order_and_once,
            lists_are_newest_first_paged_and_filtered,
            lists_go_through_all_times_and_find_by_everything,
            a_time_far_in_the_future_is_kept_like_any_other,
            a_span_without_time_has_nothing,
            counts_advance_only_from_the_offset_they_are_true_for,
            every_partition_of_every_topic_has_its_own_counts,
            of_many_that_count_at_once_one_does,
            a_claim_learns_of_the_newest_outcome,
            claims_of_many_recipients_are_answered_in_their_order,
            an_event_shows_with_its_matches_whichever_came_first,
            events_are_listed_newest_first_and_filtered,
            dead_letters_keep_their_bytes,
            dead_letters_are_listed_both_ways_and_filtered,
            batches_are_read_as_they_were_written,
            catalog_names_are_unique_and_versions_follow_each_other,
            template_versions_outlive_changes_and_deletion,
            of_many_that_take_a_name_at_once_one_does,
            a_claim_and_a_mark_see_each_other,
            a_mark_learns_of_the_newest_outcome,
            a_race_has_one_end_for_all,
            of_many_that_claim_a_key_at_once_one_gets_it,
            keys_are_answered_in_their_order_and_another_scope_is_another_key,
            a_key_is_leased_anew_by_one_and_keeps_its_answer,
            the_latest_use_of_an_api_key_is_kept,
            scheduled_rows_come_when_due_in_order_and_once,
            a_schedule_obeys_its_newest_owner_alone,
        );
    };
    ($engine:ty: $($test:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $test() {
            if let Some(engine) = <$engine as contract::Engine>::start().await {
                contract::$test(contract::Engine::store(&engine)).await;
                contract::Engine::end(engine).await;
            }
        }
    )+};
}
