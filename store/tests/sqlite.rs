//! The contract on SQLite, and what only it has: a file that it cleans up itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use std::sync::Arc;

use contract::{Engine, LAYOUT, fresh, now, row};
use herald_schemas::{
    ids::NotificationId,
    rows::{Filter, Index},
    words::Status,
};
use herald_store::{Store, StoreError, sqlite::SqliteStore};
use tempfile::TempDir;

struct Sqlite {
    store: Arc<SqliteStore>,
    directory: TempDir,
}

impl Engine for Sqlite {
    async fn start() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
        store.setup(LAYOUT).await.unwrap();
        Some(Self {
            store: Arc::new(store),
            directory,
        })
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn end(self) {}
}

contract!(Sqlite);

#[tokio::test]
async fn before_setup_everything_says_so() {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    let error = store.catalog().await.unwrap_err();
    assert!(matches!(error, StoreError::NotSetUp(_)), "{error}");
}

#[tokio::test]
async fn what_has_expired_goes_with_its_index_and_the_rest_stays() {
    let Sqlite {
        store,
        directory: _held,
    } = Sqlite::start().await.unwrap();
    let day = 86_400_000;
    let old = NotificationId::derived(now() - 91 * day, &[b"old"]);
    let scheduled = NotificationId::derived(now() - 91 * day, &[b"scheduled"]);
    let young = NotificationId::derived(now() - 89 * day, &[b"young"]);
    let mut rows = [old, scheduled, young].map(|id| fresh(row(id, Status::Sent)));
    for write in &mut rows {
        write.row.identity.recipient = "same".to_owned();
    }
    rows[1].row.identity.send_at = Some(now() - day);
    store.write_notifications(&rows, 1).await.unwrap();
    store.expire(now()).await.unwrap();
    let read = store.notifications(&[old, scheduled, young]).await.unwrap();
    assert_eq!(
        read.iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true, true]
    );
    let index = Some(Index::Recipient("same".to_owned()));
    let filter = Filter {
        index,
        ..Filter::default()
    };
    assert_eq!(
        store
            .list_notifications(&filter, None, 10)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let Sqlite { store, directory } = Sqlite::start().await.unwrap();
    let id = NotificationId::random();
    store
        .write_notifications(&[fresh(row(id, Status::Pending))], 1)
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    assert!(store.notifications(&[id]).await.unwrap()[0].is_some());
}
