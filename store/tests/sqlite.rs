//! The contract on SQLite, and what only it has: a file that it cleans up itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use contract::{LAYOUT, fresh, now, row};
use herald_schemas::{
    ids::NotificationId,
    rows::{Filter, Index},
    words::Status,
};
use herald_store::{Store, StoreError, sqlite::SqliteStore};
use tempfile::TempDir;

async fn start() -> (SqliteStore, TempDir) {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    store.setup(LAYOUT).await.unwrap();
    (store, directory)
}

contract!(
    start:
    setup_can_be_repeated_and_keeps_its_layout,
    rows_are_read_as_they_were_written_in_the_order_asked,
    of_two_writes_the_one_with_the_higher_stamp_stands,
    a_message_may_come_after_the_row,
    calls_are_kept_in_order_and_once,
    lists_are_newest_first_paged_and_filtered,
    counts_advance_only_from_the_offset_they_are_true_for,
    a_claim_learns_of_the_newest_outcome,
    an_event_shows_with_its_matches_whichever_came_first,
    dead_letters_keep_their_bytes,
    catalog_names_are_unique_and_versions_follow_each_other,
);

#[tokio::test]
async fn before_setup_everything_says_so() {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    let error = store.catalog().await.unwrap_err();
    assert!(matches!(error, StoreError::NotSetUp(_)), "{error}");
}

#[tokio::test]
async fn what_has_expired_goes_with_its_index_and_the_rest_stays() {
    let (store, _directory) = start().await;
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
    let (store, directory) = start().await;
    let id = NotificationId::random();
    store
        .write_notifications(&[fresh(row(id, Status::Pending))], 1)
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    assert!(store.notifications(&[id]).await.unwrap()[0].is_some());
}
