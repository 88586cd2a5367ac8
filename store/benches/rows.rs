//! Rows a second of both stores, in the batches that the pipeline hands them.
//!
//! `cargo bench -p herald-store`, on SQLite; on Cassandra or ScyllaDB as well where
//! HERALD_TEST_SCYLLA says where it is (`cargo xtask servers` starts one).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    env, fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use divan::{Bencher, counter::ItemsCount};
use herald_schemas::{
    ids::{NotificationId, UnixMs},
    records::{Identity, Message},
    rows::{CountKey, Filter, NotificationRow, RowWrite},
    words::{Channel, Priority, Status},
};
use herald_store::{
    Claim, Counted, Layout, Outcome, Store,
    scylla::{ScyllaSettings, ScyllaStore},
    sqlite::SqliteStore,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

const SCYLLA: &str = "HERALD_TEST_SCYLLA";
/// What one poll of `status` brings.
const POLL: usize = 1_000;
/// What one poll of `deliveries` brings.
const CLAIMS: usize = 100;
const LAYOUT: Layout = Layout {
    status_shards: 12,
    claim_shards: 12,
    bucket_minutes: 60,
    retention_days: 90,
};

fn main() {
    if env::var(SCYLLA).is_err() {
        eprintln!("skipped: scylla: {SCYLLA} is not set");
    }
    divan::main();
}

#[derive(Clone, Copy, Debug)]
enum Engine {
    Sqlite,
    Scylla,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Scylla => "scylla",
        })
    }
}

fn engines() -> impl Iterator<Item = Engine> {
    let scylla = env::var(SCYLLA).is_ok().then_some(Engine::Scylla);
    [Engine::Sqlite].into_iter().chain(scylla)
}

/// A store of this run and what it runs on.
struct Running {
    runtime: Runtime,
    store: Arc<dyn Store>,
    _directory: TempDir,
}

fn running(engine: Engine) -> &'static Running {
    static SQLITE: OnceLock<Running> = OnceLock::new();
    static CLUSTER: OnceLock<Running> = OnceLock::new();
    match engine {
        Engine::Sqlite => SQLITE.get_or_init(|| start(engine)),
        Engine::Scylla => CLUSTER.get_or_init(|| start(engine)),
    }
}

fn start(engine: Engine) -> Running {
    let directory = TempDir::new().unwrap();
    let store: Arc<dyn Store> = match engine {
        Engine::Sqlite => Arc::new(SqliteStore::open(&directory.path().join("store.db")).unwrap()),
        Engine::Scylla => Arc::new(
            ScyllaStore::new(ScyllaSettings {
                nodes: vec![env::var(SCYLLA).unwrap()],
                keyspace: format!("bench_{}", Uuid::now_v7().simple()),
                login: None,
                tls: None,
                replication_factor: 1,
            })
            .unwrap(),
        ),
    };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(store.setup(LAYOUT)).unwrap();
    Running {
        runtime,
        store,
        _directory: directory,
    }
}

fn now() -> UnixMs {
    NotificationId::random().unix_ms()
}

/// New notifications of one partition of `status`, as materialize gets them.
fn new_rows() -> Vec<RowWrite> {
    let ids = std::iter::repeat_with(NotificationId::random);
    ids.filter(|id| LAYOUT.status_shard(*id) == 0)
        .take(POLL)
        .map(|id| RowWrite {
            row: row(id),
            is_new: true,
            writes_message: true,
            calls: Vec::new(),
        })
        .collect()
}

fn row(id: NotificationId) -> NotificationRow {
    let number = id.as_bytes()[15];
    NotificationRow {
        identity: Identity {
            id,
            recipient: format!("customer{number}@example.com"),
            channel: Channel::Email,
            priority: Priority::Normal,
            batch_id: None,
            event_id: None,
            rule_id: None,
            requeued_from: None,
            template_id: None,
            template_version: None,
            idempotency_key: None,
            correlation_id: Some(format!("request-{}", Uuid::now_v7())),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            created_at: now(),
            send_at: None,
            expires_at: None,
            catalog_version: 7,
            source: None,
        },
        message: Some(Message {
            content: "Thank you for your order. ".repeat(12),
            subject: Some("Your order".to_owned()),
            html: None,
            metadata: None,
        }),
        status: Status::Pending,
        attempts: 0,
        updated_at: now(),
        sent_at: None,
        cancelled_at: None,
        provider_message_id: None,
        last_error: None,
        delivery_status: None,
    }
}

#[divan::bench(args = engines(), sample_count = 30)]
fn write_new_rows(bencher: Bencher, engine: Engine) {
    let Running { runtime, store, .. } = running(engine);
    bencher
        .counter(ItemsCount::new(POLL))
        .with_inputs(new_rows)
        .bench_values(|rows| {
            runtime
                .block_on(store.write_notifications(&rows, 1))
                .unwrap();
        });
}

#[divan::bench(args = engines(), sample_count = 30)]
fn read_rows(bencher: Bencher, engine: Engine) {
    let Running { runtime, store, .. } = running(engine);
    let rows = new_rows();
    let ids: Vec<NotificationId> = rows.iter().map(|write| write.row.id()).collect();
    runtime
        .block_on(store.write_notifications(&rows, 1))
        .unwrap();
    bencher.counter(ItemsCount::new(POLL)).bench_local(|| {
        let read = runtime.block_on(store.notifications(&ids)).unwrap();
        assert!(read.iter().all(Option::is_some));
    });
}

/// A notification becomes `sent`.
#[divan::bench(args = engines(), sample_count = 30)]
fn update_rows(bencher: Bencher, engine: Engine) {
    let Running { runtime, store, .. } = running(engine);
    bencher
        .counter(ItemsCount::new(POLL))
        .with_inputs(|| {
            let mut rows = new_rows();
            runtime
                .block_on(store.write_notifications(&rows, 1))
                .unwrap();
            for write in &mut rows {
                write.is_new = false;
                write.writes_message = false;
                write.row.status = Status::Sent;
                write.row.sent_at = Some(now());
            }
            rows
        })
        .bench_values(|rows| {
            runtime
                .block_on(store.write_notifications(&rows, 2))
                .unwrap();
        });
}

/// Claims of one partition of `deliveries`, with the outcomes of as many before.
#[divan::bench(args = engines(), sample_count = 50)]
fn claim(bencher: Bencher, engine: Engine) {
    let Running { runtime, store, .. } = running(engine);
    let claims = || {
        let of = |id| Claim {
            id,
            recipient: "customer@example.com".to_owned(),
            attempt: 1,
            worker: "bench".to_owned(),
        };
        let ids = std::iter::repeat_with(NotificationId::random);
        ids.take(CLAIMS).map(of).collect::<Vec<Claim>>()
    };
    bencher
        .counter(ItemsCount::new(CLAIMS))
        .with_inputs(|| {
            let outcome = |claim: Claim| Outcome {
                id: claim.id,
                recipient: claim.recipient,
                attempt: 1,
                body: vec![7; 120],
            };
            let outcomes: Vec<Outcome> = claims().into_iter().map(outcome).collect();
            (claims(), outcomes)
        })
        .bench_values(|(claims, outcomes)| {
            runtime.block_on(store.claim(&claims, &outcomes)).unwrap();
        });
}

/// One conditional write a poll.
#[divan::bench(args = engines(), sample_count = 100)]
fn advance_totals(bencher: Bencher, engine: Engine) {
    static OFFSET: [AtomicI64; 2] = [AtomicI64::new(0), AtomicI64::new(0)];
    let Running { runtime, store, .. } = running(engine);
    let changes: Vec<(CountKey, i64)> = [Status::Pending, Status::Sent]
        .map(|status| {
            let key = CountKey {
                day: 20_000,
                status,
                channel: Channel::Email,
                priority: Priority::Normal,
            };
            (key, 1)
        })
        .to_vec();
    bencher.bench_local(|| {
        let from = OFFSET[engine as usize].fetch_add(1, Ordering::Relaxed);
        let advanced = store.advance_totals(Counted::Status(0), from, from + 1, &changes, &[]);
        assert!(runtime.block_on(advanced).unwrap());
    });
}

/// The first page of everything, as somebody who looks sees it.
#[divan::bench(args = engines(), sample_count = 50)]
fn list_first_page(bencher: Bencher, engine: Engine) {
    let Running { runtime, store, .. } = running(engine);
    runtime
        .block_on(store.write_notifications(&new_rows(), 1))
        .unwrap();
    bencher.bench_local(|| {
        let filter = Filter::default();
        let page = runtime
            .block_on(store.list_notifications(&filter, None, 25))
            .unwrap();
        assert_eq!(page.items.len(), 25);
    });
}
