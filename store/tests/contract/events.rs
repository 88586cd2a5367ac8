//! Events and what the rules said.

use super::*;
use herald_schemas::rows::{EventFilter, EventHead};

fn event(name: &str, correlation_id: Option<String>) -> Event {
    Event {
        id: None,
        event: name.to_owned(),
        payload: "{}".to_owned(),
        occurred_at: 7,
        catalog_version: 1,
        correlation_id,
        traceparent: None,
    }
}

pub async fn an_event_shows_with_its_matches_whichever_came_first(store: Arc<dyn Store>) {
    let (early, late) = (EventId::random(), EventId::random());
    let event = |id: EventId| Event {
        id: Some(id.to_string()),
        ..event("e", Some("c".to_owned()))
    };
    let matched = |id| EventMatched {
        event_id: id,
        catalog_version: 1,
        at: 8,
        rules: vec![RuleOutcome {
            rule_id: RuleId::random(),
            rule: "r".to_owned(),
            notification_id: None,
            reason: Some("no".to_owned()),
        }],
        omitted: 0,
        error: None,
    };
    let (of_early, of_late) = (matched(early), matched(late));
    store
        .write_matches(std::slice::from_ref(&of_early))
        .await
        .unwrap();
    assert_eq!(store.event(early).await.unwrap(), None);
    store
        .write_events(&[(early, event(early)), (late, event(late))])
        .await
        .unwrap();
    assert_eq!(store.event(late).await.unwrap().unwrap().matched, None);
    store
        .write_matches(std::slice::from_ref(&of_late))
        .await
        .unwrap();
    store.write_events(&[(late, event(late))]).await.unwrap();
    for (id, expected) in [(early, of_early), (late, of_late)] {
        let row = store.event(id).await.unwrap().unwrap();
        assert_eq!((row.event.as_str(), row.occurred_at), ("e", 7));
        assert_eq!(row.matched, Some(expected));
    }
}

async fn list_all(store: &dyn Store, filter: &EventFilter, limit: usize) -> Vec<EventHead> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.list_events(filter, before, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        before = page.next;
        if before.is_none() {
            return all;
        }
    }
}

pub async fn events_are_listed_newest_first_and_filtered(store: Arc<dyn Store>) {
    // Many of one hour, so that a shard has more than is read of it at once, and some of other days.
    let (start, hour) = (now() - 20 * 86_400_000, 3_600_000);
    let at = |n: i64| start + if n < 2_500 { n } else { (n - 2_400) * 7 * hour };
    let events: Vec<(EventId, Event)> = (0..2_560)
        .map(|n| {
            let correlation_id = (n % 4 != 0).then(|| format!("c{}", n % 3));
            let id = EventId::derived(at(n), &[&n.to_be_bytes()]);
            (id, event(&format!("listed_{}", n % 2), correlation_id))
        })
        .collect();
    for events in events.chunks(500) {
        store.write_events(events).await.unwrap();
    }
    let listed = |name: &str| EventFilter {
        event: Some(name.to_owned()),
        ..EventFilter::default()
    };
    for (filter, limit) in [
        (listed("listed_0"), 100),
        (listed("listed_1"), 10_000),
        (
            EventFilter {
                correlation_id: Some("c1".to_owned()),
                from: Some(at(700)),
                until: Some(at(2_540)),
                ..listed("listed_1")
            },
            333,
        ),
    ] {
        let mut expected: Vec<EventHead> = events
            .iter()
            .map(|(id, event)| EventHead {
                id: *id,
                event: event.event.clone(),
                occurred_at: 7,
                correlation_id: event.correlation_id.clone(),
            })
            .filter(|head| filter.shows(head))
            .collect();
        expected.sort_unstable_by_key(|head| std::cmp::Reverse(head.id));
        assert_eq!(
            list_all(&*store, &filter, limit).await,
            expected,
            "{filter:?}"
        );
    }
    let unknown = list_all(&*store, &listed("unknown"), 10).await;
    assert_eq!(unknown, []);
}
