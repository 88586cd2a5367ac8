//! Dead letters and batches.

use super::*;
use herald_schemas::{
    records::BatchAccepted,
    rows::{DeadLetterRow, LetterFilter, Order},
};

fn letter(at: i64, n: i64) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::of_record("t", 0, n, at),
        stage: "render".to_owned(),
        error: Failure {
            kind: ["poison", "permanent"][n as usize % 2].to_owned(),
            code: format!("c{}", n % 3),
            message: "m".to_owned(),
        },
        at: 1,
        identity: (n % 4 != 0).then(|| {
            let id = NotificationId::derived(at, &[&n.to_be_bytes()]);
            let mut identity = row(id, Status::Failed).identity;
            identity.channel = Channel::ALL[n as usize % 2];
            identity
        }),
        event_id: None,
        attempts: 0,
        source_topic: "t".to_owned(),
        source_partition: 0,
        source_offset: n,
        key: Some(vec![0, 255]),
        value: vec![0, 159, 146, 150],
        headers: Vec::new(),
    }
}

pub async fn dead_letters_keep_their_bytes(store: Arc<dyn Store>) {
    let start = now() - 100;
    let letters: Vec<DeadLetter> = (0..5).map(|n| letter(start + n, n)).collect();
    let ids: Vec<DeadLetterId> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(store.has_dead_letters(&ids).await.unwrap(), [false; 5]);
    store.write_dead_letters(&letters[1..]).await.unwrap();
    let there = [false, true, true, true, true];
    assert_eq!(store.has_dead_letters(&ids).await.unwrap(), there);
    store.write_dead_letters(&letters).await.unwrap();
    let requeued = NotificationId::random();
    store
        .note_requeued(&[(letters[3].id, requeued)])
        .await
        .unwrap();
    // Again, as after a crash.
    store.write_dead_letters(&letters).await.unwrap();
    for (n, letter) in letters.iter().enumerate() {
        let expected = DeadLetterRow {
            letter: letter.clone(),
            requeued_as: (n == 3).then_some(requeued),
        };
        let read = store.dead_letter(letter.id).await.unwrap();
        assert_eq!(read, Some(expected));
    }
    let unknown = DeadLetterId::random();
    assert_eq!(store.dead_letter(unknown).await.unwrap(), None);
    // A mark of what is not there makes no letter.
    store.note_requeued(&[(unknown, requeued)]).await.unwrap();
    assert_eq!(store.dead_letter(unknown).await.unwrap(), None);
    let there = store.has_dead_letters(&[unknown, letters[3].id]).await;
    assert_eq!(there.unwrap(), [false, true]);
}

async fn list_letters(
    store: &dyn Store,
    filter: &LetterFilter,
    order: Order,
    limit: usize,
) -> Vec<DeadLetterRow> {
    let (mut all, mut past) = (Vec::new(), None);
    loop {
        let page = store
            .list_dead_letters(filter, order, past, limit)
            .await
            .unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        past = page.next;
        if past.is_none() {
            return all;
        }
    }
}

pub async fn dead_letters_are_listed_both_ways_and_filtered(store: Arc<dyn Store>) {
    // Many of one hour, so that a shard has more than is read of it at once, and some of other days.
    let (start, hour) = (now() - 20 * 86_400_000, 3_600_000);
    let at = |n: i64| start + if n < 1_500 { n } else { (n - 1_400) * 7 * hour };
    let letters: Vec<DeadLetter> = (0..1_560).map(|n| letter(at(n), n)).collect();
    store.write_dead_letters(&letters).await.unwrap();
    let requeued: Vec<(DeadLetterId, NotificationId)> = letters
        .iter()
        .step_by(5)
        .map(|letter| (letter.id, NotificationId::random()))
        .collect();
    store.note_requeued(&requeued).await.unwrap();
    let plain = LetterFilter::default();
    let filters = [
        plain.clone(),
        LetterFilter {
            open_only: true,
            ..plain.clone()
        },
        LetterFilter {
            channel: Some(Channel::Sms),
            error_code: Some("c1".to_owned()),
            ..plain.clone()
        },
        LetterFilter {
            error_type: Some("permanent".to_owned()),
            from: Some(at(700)),
            until: Some(at(1_540)),
            ..plain
        },
    ];
    for filter in filters {
        let mut expected: Vec<DeadLetterId> = letters
            .iter()
            .map(|letter| DeadLetterRow {
                letter: letter.clone(),
                requeued_as: requeued
                    .iter()
                    .find(|(id, _)| *id == letter.id)
                    .map(|(_, id)| *id),
            })
            .filter(|row| filter.shows(row))
            .map(|row| row.letter.id)
            .collect();
        expected.sort_unstable();
        let oldest = list_letters(&*store, &filter, Order::Oldest, 333).await;
        let ids: Vec<DeadLetterId> = oldest.iter().map(|row| row.letter.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
        assert!(oldest.iter().all(|row| row.letter.value.is_empty()));
        expected.reverse();
        let newest = list_letters(&*store, &filter, Order::Newest, 1_000).await;
        let ids: Vec<DeadLetterId> = newest.iter().map(|row| row.letter.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
}

pub async fn batches_are_read_as_they_were_written(store: Arc<dyn Store>) {
    let batch = |total| BatchAccepted {
        id: BatchId::random(),
        at: now(),
        total,
        metadata: (total > 1).then(|| r#"{"a":1}"#.to_owned()),
        idempotency_key: Some("k".to_owned()),
        correlation_id: None,
        traceparent: None,
    };
    let batches = [batch(1), batch(2), batch(1_000)];
    store.write_batches(&batches).await.unwrap();
    store.write_batches(&batches[..1]).await.unwrap();
    for batch in batches {
        assert_eq!(store.batch(batch.id).await.unwrap(), Some(batch));
    }
    assert_eq!(store.batch(BatchId::random()).await.unwrap(), None);
}
