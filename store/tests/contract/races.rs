//! What several do at once about one thing: cancelling what is being sent, claiming a key, owning a
//! schedule.

use super::*;
use herald_schemas::ids::ApiKeyId;
use herald_store::{CancelMark, KeyClaim, KeyHeld, Race, RaceEnd, ScheduledRow};

fn claim_of(id: NotificationId, attempt: i32) -> Claim {
    Claim {
        id,
        recipient: "r".to_owned(),
        attempt,
        worker: "w".to_owned(),
    }
}

fn mark_of(id: NotificationId, mark: i32) -> CancelMark {
    CancelMark {
        id,
        recipient: "r".to_owned(),
        mark,
        send_at: None,
    }
}

pub async fn a_claim_and_a_mark_see_each_other(store: Arc<dyn Store>) {
    let [early, late, never] = [(); 3].map(|()| NotificationId::random());
    // The claim first: the mark sees it.
    store.claim(&[claim_of(early, 1)], &[]).await.unwrap();
    let stands = store
        .mark_cancelled(&[mark_of(early, 7), mark_of(late, 7), mark_of(never, 7)])
        .await
        .unwrap();
    let claimed: Vec<Option<i32>> = stands.iter().map(|standing| standing.claimed).collect();
    assert_eq!(claimed, [Some(1), None, None]);
    assert!(stands.iter().all(|standing| standing.outcome.is_none()));
    // The mark first: the claim sees it.
    let claimed = store
        .claim(&[claim_of(late, 1), claim_of(early, 2)], &[])
        .await
        .unwrap();
    assert!(claimed.iter().all(|claimed| claimed.cancel_marked));
    // One of two marks is taken back: the other one still stands.
    store.mark_cancelled(&[mark_of(late, 8)]).await.unwrap();
    for (mark, expected) in [(7, true), (8, false)] {
        store
            .unmark_cancelled(&[mark_of(late, mark)])
            .await
            .unwrap();
        let claimed = store.claim(&[claim_of(late, 1)], &[]).await.unwrap();
        assert_eq!(claimed[0].cancel_marked, expected, "after mark {mark}");
    }
}

pub async fn a_mark_learns_of_the_newest_outcome(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let outcome = |attempt, body: &[u8]| Outcome {
        id,
        recipient: "r".to_owned(),
        attempt,
        body: body.to_vec(),
    };
    store
        .claim(&[claim_of(id, 1)], &[outcome(1, b"one")])
        .await
        .unwrap();
    store.claim(&[claim_of(id, 2)], &[]).await.unwrap();
    let stands = store.mark_cancelled(&[mark_of(id, 1)]).await.unwrap();
    assert_eq!(stands[0].claimed, Some(2));
    assert_eq!(stands[0].outcome, Some((1, b"one".to_vec())));
    store.claim(&[], &[outcome(2, b"two")]).await.unwrap();
    let stands = store.mark_cancelled(&[mark_of(id, 1)]).await.unwrap();
    assert_eq!(stands[0].outcome, Some((2, b"two".to_vec())));
}

fn race(id: NotificationId, attempt: i32) -> Race {
    Race {
        id,
        recipient: "r".to_owned(),
        attempt,
        send_at: None,
    }
}

pub async fn a_race_has_one_end_for_all(store: Arc<dyn Store>) {
    let id = NotificationId::random();
    let first = race(id, 1);
    let ends = (0..6).map(|n| {
        let proposal = if n % 2 == 0 {
            RaceEnd::Sent
        } else {
            RaceEnd::Cancelled
        };
        store.end_race(&first, proposal)
    });
    let ends: Vec<RaceEnd> = join_all(ends)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    // That of the next attempt is another race.
    let other = match ends[0] {
        RaceEnd::Sent => RaceEnd::Cancelled,
        RaceEnd::Cancelled => RaceEnd::Sent,
    };
    assert_eq!(store.end_race(&race(id, 2), other).await.unwrap(), other);
    assert_eq!(store.end_race(&race(id, 1), other).await.unwrap(), ends[0]);
}

fn key_claim(key: &str, value: &str) -> KeyClaim {
    KeyClaim {
        scope: "notification of somebody".to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        digest: "d".to_owned(),
        leased_until: now() + 10_000,
        kept_until: now() + 86_400_000,
    }
}

pub async fn of_many_that_claim_a_key_at_once_one_gets_it(store: Arc<dyn Store>) {
    let claims: Vec<KeyClaim> = (0..10).map(|n| key_claim("k", &n.to_string())).collect();
    let held = join_all(
        claims
            .iter()
            .map(|claim| store.take_keys(std::slice::from_ref(claim))),
    )
    .await;
    let held: Vec<KeyHeld> = held
        .into_iter()
        .map(|held| held.unwrap().remove(0))
        .collect();
    let new: Vec<&KeyHeld> = held.iter().filter(|held| held.is_new).collect();
    assert_eq!(new.len(), 1, "{held:?}");
    assert!(held.iter().all(|one| one.value == new[0].value), "{held:?}");
}

pub async fn keys_are_answered_in_their_order_and_another_scope_is_another_key(
    store: Arc<dyn Store>,
) {
    store.take_keys(&[key_claim("b", "first")]).await.unwrap();
    let elsewhere = KeyClaim {
        scope: "notification of somebody else".to_owned(),
        ..key_claim("b", "theirs")
    };
    let asked = [
        key_claim("a", "1"),
        key_claim("b", "2"),
        elsewhere,
        key_claim("c", "3"),
    ];
    let held = store.take_keys(&asked).await.unwrap();
    let got: Vec<(bool, &str)> = held
        .iter()
        .map(|held| (held.is_new, held.value.as_str()))
        .collect();
    assert_eq!(
        got,
        [(true, "1"), (false, "first"), (true, "theirs"), (true, "3")]
    );
    assert_eq!(held[1].digest, "d");
}

pub async fn a_key_is_leased_anew_by_one_and_keeps_its_answer(store: Arc<dyn Store>) {
    let claim = key_claim("k", "v");
    let held = store
        .take_keys(std::slice::from_ref(&claim))
        .await
        .unwrap()
        .remove(0);
    let (scope, key) = (claim.scope.as_str(), claim.key.as_str());
    let again = held.leased_until + 5_000;
    let leases = join_all((0..5).map(|n| store.lease_key(scope, key, &held, again + n))).await;
    let won = leases
        .into_iter()
        .filter(|won| *won.as_ref().unwrap())
        .count();
    assert_eq!(won, 1);
    store.answer_key(scope, key, &held, b"done").await.unwrap();
    let seen = store
        .take_keys(std::slice::from_ref(&claim))
        .await
        .unwrap()
        .remove(0);
    assert!(!seen.is_new && seen.leased_until >= again);
    assert_eq!(
        (seen.value.as_str(), seen.answer.as_deref()),
        ("v", Some(b"done".as_slice()))
    );
    assert_eq!(seen.kept_until, held.kept_until);
}

pub async fn scheduled_rows_come_when_due_in_order_and_once(store: Arc<dyn Store>) {
    let start = now();
    let minute = 60_000;
    let row = |at: i64, n: u8| ScheduledRow {
        send_at: at,
        id: NotificationId::derived(start, &[&[n]]),
        body: vec![n; 10],
    };
    let first = store.own_schedule(3, "me", start).await.unwrap();
    assert_eq!(first.0, start);
    // Hours apart, two of one moment, and years ahead.
    let mut rows = vec![
        row(start + 300 * minute, 1),
        row(start + minute, 2),
        row(start + minute, 3),
        row(start + 5, 4),
        row(start + 20 * 365 * 1_440 * minute, 5),
    ];
    store.put_scheduled(3, &rows).await.unwrap();
    store.put_scheduled(3, &rows[..2]).await.unwrap();
    store.put_scheduled(4, &[row(start + 1, 9)]).await.unwrap();
    rows.sort_by_key(ScheduledRow::place);
    let due = async |from, now, limit| store.due_scheduled(3, from, now, limit).await.unwrap();
    assert_eq!(due(first, start + 4, 10).await, []);
    assert_eq!(due(first, start + 400 * minute, 2).await, rows[..2]);
    let from = rows[1].place();
    assert!(store.advance_schedule(3, "me", from).await.unwrap());
    assert_eq!(due(from, start + 400 * minute, 10).await, rows[2..4]);
    assert_eq!(
        store.own_schedule(3, "me again", start).await.unwrap(),
        from
    );
}

pub async fn a_schedule_obeys_its_newest_owner_alone(store: Arc<dyn Store>) {
    let start = now();
    store.own_schedule(0, "old", start).await.unwrap();
    assert_eq!(
        store.own_schedule(0, "new", start + 9).await.unwrap().0,
        start
    );
    let place = |n| (start + n, NotificationId::random());
    assert!(!store.advance_schedule(0, "old", place(1)).await.unwrap());
    let to = place(2);
    assert!(store.advance_schedule(0, "new", to).await.unwrap());
    assert_eq!(store.own_schedule(0, "newer", start).await.unwrap(), to);
}

pub async fn the_latest_use_of_an_api_key_is_kept(store: Arc<dyn Store>) {
    let (used, other) = (ApiKeyId::random(), ApiKeyId::random());
    let now = now();
    for at in [now - 2_000, now, now - 1_000] {
        store.note_api_key_use(used, at).await.unwrap();
    }
    let uses = store.api_key_uses(&[other, used]).await.unwrap();
    assert_eq!(uses, [None, Some(now)]);
    assert_eq!(store.api_key_uses(&[]).await.unwrap(), []);
}
