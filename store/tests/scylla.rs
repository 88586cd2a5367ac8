//! The contract on Cassandra, which speaks the CQL that ScyllaDB speaks, and what only a store of
//! many processes has: setups at once, and nodes that are not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use std::{io::Write, sync::Arc, time::Duration};

use contract::{Engine, LAYOUT, fresh, now, row};
use futures_util::future::join_all;
use herald_schemas::{
    ids::NotificationId,
    rows::{Filter, NotificationRow, RowWrite},
    words::Status,
};
use herald_store::{
    Layout, Store, StoreError,
    scylla::{ScyllaSettings, ScyllaStore},
};
use scylla::{client::session_builder::SessionBuilder, response::query_result::QueryResult};
use tokio::time::timeout;
use uuid::Uuid;

const SCYLLA: &str = "HERALD_TEST_SCYLLA";

struct Scylla {
    node: String,
    keyspace: String,
    store: Arc<ScyllaStore>,
}

fn settings(node: &str, keyspace: &str) -> ScyllaSettings {
    ScyllaSettings {
        nodes: vec![node.to_owned()],
        keyspace: keyspace.to_owned(),
        login: None,
        tls: None,
        replication_factor: 1,
    }
}

impl Scylla {
    /// A keyspace of the test's own that is not set up.
    fn bare() -> Option<Self> {
        let Ok(node) = std::env::var(SCYLLA) else {
            skip();
            return None;
        };
        let keyspace = format!("contract_{}", Uuid::now_v7().simple());
        let store = Arc::new(ScyllaStore::new(settings(&node, &keyspace)).unwrap());
        Some(Self {
            node,
            keyspace,
            store,
        })
    }

    /// Says something to the database itself; the keyspace is `ks`.
    async fn cql(&self, statement: &str) -> QueryResult {
        let session = SessionBuilder::new().known_node(&self.node);
        let session = session.build().await.unwrap();
        let statement = statement.replace("ks.", &format!("{}.", self.keyspace));
        session.query_unpaged(statement, ()).await.unwrap()
    }

    /// Another process on the same keyspace.
    fn another(&self) -> ScyllaStore {
        ScyllaStore::new(settings(&self.node, &self.keyspace)).unwrap()
    }
}

impl Engine for Scylla {
    async fn start() -> Option<Self> {
        let scylla = Self::bare()?;
        scylla.store.setup(LAYOUT).await.unwrap();
        Some(scylla)
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Tables cost the server memory, and there are many of these tests.
    async fn end(self) {
        let drop = format!("DROP KEYSPACE {}", self.keyspace);
        self.cql(&drop).await;
    }
}

/// Not by `eprintln`, which the test runner would keep to itself.
fn skip() {
    let reason = format!("{SCYLLA} is not set");
    let real = std::env::var("HERALD_TEST_REAL").is_ok_and(|value| value == "1");
    assert!(!real, "{reason}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("scylla");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

contract!(Scylla);

#[tokio::test]
async fn before_setup_everything_says_so() {
    let Some(scylla) = Scylla::bare() else { return };
    let error = scylla.store.catalog().await.unwrap_err();
    assert!(matches!(error, StoreError::NotSetUp(_)), "{error}");
}

#[tokio::test]
async fn many_can_set_up_at_once_and_the_first_one_fixes_the_layout() {
    let Some(scylla) = Scylla::bare() else { return };
    let setups = (1..=4).map(|shards| {
        let store = scylla.another();
        let layout = Layout {
            status_shards: 1 + shards % 2,
            ..LAYOUT
        };
        async move { (layout, store.setup(layout).await) }
    });
    let ended = join_all(setups).await;
    let fixed = scylla.store.layout().await.unwrap();
    for (asked, result) in ended {
        match result {
            Ok(()) => assert_eq!(asked, fixed),
            Err(StoreError::LayoutChanged(_)) => assert_ne!(asked, fixed),
            Err(other) => panic!("{other}"),
        }
    }
    scylla.end().await;
}

#[tokio::test]
async fn a_change_of_the_catalog_is_seen_by_the_next_read_of_another_process() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    let other = scylla.another();
    for n in 1..=5 {
        let id = Uuid::now_v7();
        let change = herald_store::CatalogChange::Put {
            kind: herald_schemas::catalog::Kind::Source,
            id,
            version: 1,
            seen: None,
            name: format!("event {n}"),
            body: format!(
                r#"{{"id":"{id}","name":"event {n}","is_active":true,"created_at":1,"updated_at":1}}"#
            ),
        };
        scylla.store.change_catalog(change).await.unwrap();
        assert_eq!(other.catalog_version().await.unwrap(), n);
        assert_eq!(other.catalog().await.unwrap().sources.len(), n as usize);
    }
    scylla.end().await;
}

#[tokio::test]
async fn a_setup_that_meets_strange_tables_gives_up_instead_of_asking_for_setup() {
    let Some(scylla) = Scylla::bare() else { return };
    let make = "WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
    scylla
        .cql(&format!("CREATE KEYSPACE {} {make}", scylla.keyspace))
        .await;
    scylla
        .cql("CREATE TABLE ks.setup (one int PRIMARY KEY, other text)")
        .await;
    let error = scylla.store.setup(LAYOUT).await.unwrap_err();
    assert!(matches!(error, StoreError::Fatal(_)), "{error}");
    scylla.end().await;
}

#[tokio::test]
async fn a_setup_that_died_is_waited_for() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    let worker = Uuid::now_v7();
    scylla
        .cql(&format!(
            "UPDATE ks.setup USING TTL 3 SET worker = {worker} WHERE one = 1 IF worker = null"
        ))
        .await;
    scylla.another().setup(LAYOUT).await.unwrap();
    scylla.end().await;
}

#[tokio::test]
async fn what_a_newer_herald_has_set_up_is_left_alone() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    scylla
        .cql("UPDATE ks.setup SET version = 99 WHERE one = 1 IF EXISTS")
        .await;
    let older = scylla.another();
    for result in [
        older.setup(LAYOUT).await,
        older.catalog_version().await.map(|_| ()),
    ] {
        assert!(matches!(result, Err(StoreError::Fatal(_))), "{result:?}");
    }
    scylla.end().await;
}

#[tokio::test]
async fn large_contents_are_written_read_and_listed() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    let rows: Vec<NotificationRow> = (0..100)
        .map(|_| {
            let mut row = row(NotificationId::random(), Status::Sent);
            row.message.as_mut().unwrap().content = "x".repeat(256 << 10);
            row
        })
        .collect();
    let writes: Vec<RowWrite> = rows.iter().cloned().map(fresh).collect();
    scylla.store.write_notifications(&writes, 1).await.unwrap();
    let ids: Vec<NotificationId> = rows.iter().map(NotificationRow::id).collect();
    let read = scylla.store.notifications(&ids).await.unwrap();
    assert!(read.into_iter().eq(rows.into_iter().map(Some)));
    let all = Filter::default();
    let page = scylla.store.list_notifications(&all, None, 100).await;
    assert_eq!(page.unwrap().items.len(), 100);
    scylla.end().await;
}

#[tokio::test]
async fn the_note_of_a_bucket_lives_as_long_as_the_longest_row_in_it() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    let day = 86_400_000;
    let mut scheduled = row(NotificationId::random(), Status::Scheduled);
    scheduled.identity.send_at = Some(now() + 200 * day);
    let plain = row(NotificationId::random(), Status::Sent);
    for row in [scheduled, plain] {
        // A process each: none of them knows what the others have noted.
        let store = scylla.another();
        store.write_notifications(&[fresh(row)], 1).await.unwrap();
    }
    let notes = "SELECT TTL(until) FROM ks.buckets WHERE kind = 'notifications'";
    let notes = scylla.cql(notes).await.into_rows_result().unwrap();
    let seconds = notes.rows::<(i32,)>().unwrap().map(|ttl| ttl.unwrap().0);
    // Where the hour changed in between there is a note each.
    let longest = seconds.max().unwrap();
    assert!(longest > (200 + 90) * 86_400, "{longest}");
    scylla.end().await;
}

#[tokio::test]
async fn a_row_that_has_half_expired_is_left_out_of_lists() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    let rows = [
        row(NotificationId::random(), Status::Sent),
        row(NotificationId::random(), Status::Sent),
    ];
    let writes: Vec<RowWrite> = rows.iter().cloned().map(fresh).collect();
    scylla.store.write_notifications(&writes, 1).await.unwrap();
    // The cells of a row are not written by one clock, so they do not go in the same moment.
    let id = rows[0].id();
    let [bucket, shard] = [
        LAYOUT.bucket(id.unix_ms()),
        i64::from(LAYOUT.status_shard(id)),
    ];
    scylla
        .cql(&format!(
            "DELETE status, state FROM ks.notifications
             WHERE bucket = {bucket} AND shard = {shard} AND id = 0x{}",
            id.uuid().simple()
        ))
        .await;
    for status in [None, Some(Status::Sent)] {
        let filter = Filter {
            status,
            ..Filter::default()
        };
        let page = scylla.store.list_notifications(&filter, None, 10).await;
        assert_eq!(page.unwrap().items, rows[1..], "{status:?}");
    }
    scylla.end().await;
}

#[tokio::test]
async fn a_list_that_finds_nothing_for_long_stops_and_says_where_to_go_on() {
    let Some(scylla) = Scylla::start().await else {
        return;
    };
    let (hour, start) = (3_600_000, now() - 80 * 86_400_000);
    let writes: Vec<RowWrite> = (0..700)
        .map(|n| {
            let id = NotificationId::derived(start + n * hour, &[b"row"]);
            let oldest = n == 0;
            fresh(row(id, if oldest { Status::Failed } else { Status::Sent }))
        })
        .collect();
    scylla.store.write_notifications(&writes, 1).await.unwrap();
    let failed = Filter {
        status: Some(Status::Failed),
        ..Filter::default()
    };
    let mut page = scylla
        .store
        .list_notifications(&failed, None, 5)
        .await
        .unwrap();
    assert_eq!(page.items, []);
    while let (true, Some(next)) = (page.items.is_empty(), page.next) {
        page = scylla
            .store
            .list_notifications(&failed, Some(next), 5)
            .await
            .unwrap();
    }
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].id(), writes[0].row.id());
    scylla.end().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_unavailable_and_soon() {
    // Needs no server: nothing listens on the port, which is taken and given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let node = listener.local_addr().unwrap().to_string();
    drop(listener);
    let store = ScyllaStore::new(settings(&node, "herald")).unwrap();
    let soon = Duration::from_secs(20);
    let error = timeout(soon, store.catalog()).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let error = timeout(soon, store.setup(LAYOUT)).await.unwrap();
    assert!(matches!(error, Err(StoreError::Unavailable(_))));
}
