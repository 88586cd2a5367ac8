//! The contract on SQLite, and what only it has: a file that it cleans up itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use std::sync::Arc;

use contract::{Engine, LAYOUT, fresh, now, row};
use herald_schemas::{
    ids::NotificationId,
    rows::{Filter, Index, Tally},
    words::Status,
};
use herald_store::{
    CancelMark, Claim, Counted, Race, RaceEnd, Store, StoreError, sqlite::SqliteStore,
};
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
async fn what_is_agreed_about_a_far_time_is_kept_until_then() {
    let Sqlite {
        store,
        directory: _held,
    } = Sqlite::start().await.unwrap();
    let day = 86_400_000;
    let id = NotificationId::derived(now() - 91 * day, &[b"far"]);
    let mut write = fresh(row(id, Status::Scheduled));
    write.row.identity.send_at = Some(now() + day);
    let recipient = write.row.identity.recipient.clone();
    let send_at = write.row.identity.send_at;
    store.write_notifications(&[write], 1).await.unwrap();
    let claim = Claim {
        id,
        recipient: recipient.clone(),
        attempt: 1,
        worker: "w".to_owned(),
    };
    let mark = CancelMark {
        id,
        recipient: recipient.clone(),
        mark: 1,
        send_at,
    };
    let race = Race {
        id,
        recipient,
        attempt: 1,
        send_at,
    };
    store
        .claim(std::slice::from_ref(&claim), &[])
        .await
        .unwrap();
    let marks = [mark.clone()];
    store.mark_cancelled(&marks).await.unwrap();
    store.end_race(&race, RaceEnd::Cancelled).await.unwrap();
    store.expire(now() + day).await.unwrap();
    let standing = store
        .mark_cancelled(&[CancelMark { mark: 2, ..mark }])
        .await;
    assert_eq!(standing.unwrap()[0].claimed, Some(1));
    let claimed = store.claim(&[claim], &[]).await.unwrap();
    assert!(claimed[0].cancel_marked);
    let ended = store.end_race(&race, RaceEnd::Sent).await.unwrap();
    assert_eq!(ended, RaceEnd::Cancelled);
}

#[tokio::test]
async fn tallies_go_when_nobody_asks_for_them_any_more() {
    let Sqlite {
        store,
        directory: _held,
    } = Sqlite::start().await.unwrap();
    let (hour, day) = (Tally::hour(now()), (now() / 86_400_000) as i32);
    let young = [
        Tally::Sent(hour - 40),
        Tally::SentMs(hour),
        Tally::Requeued(day - 89),
        Tally::DeadLetters(day - 89),
    ];
    let old = [
        Tally::Sent(hour - 49),
        Tally::SentMs(hour - 100),
        Tally::Requeued(day - 91),
        Tally::DeadLetters(day - 91),
    ];
    let all: Vec<(Tally, i64)> = young.iter().chain(&old).map(|tally| (*tally, 1)).collect();
    let of = Counted::Status(0);
    let advanced = store.advance_totals(of, 0, 1, &[], &all).await;
    assert!(advanced.unwrap());
    store.expire(now()).await.unwrap();
    let mut left = store.totals(of).await.unwrap().tallies;
    left.sort_unstable();
    assert_eq!(left, young.map(|tally| (tally, 1)));
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
