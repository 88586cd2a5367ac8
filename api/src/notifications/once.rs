//! Making what an idempotency key names once, however often and by however many it is asked for.
//!
//! A key is claimed before anything is written, and names the ids of what is going to be: whoever
//! finds it later finds those, made or, after a crash, still to be made under the same ids. A claim
//! is leased: while the lease lasts, somebody is at work on it and is waited for.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use herald_runtime::worker::now;
use herald_schemas::{
    ids::{BatchId, NotificationId, UnixMs},
    records::NotificationRequested,
};
use herald_store::{KeyClaim, KeyHeld};
use poem::Request;
use tokio::time::sleep;

use super::find_all;
use crate::{
    Api,
    fault::{Conflict, Fault, Faults},
    keys::{Known, digest, hex},
};

/// How long whoever claims a key is given to make what it names.
const LEASE_MS: i64 = 10_000;
/// How often somebody else's work is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest `Idempotency-Key`.
const MAX_HEADER: usize = 255;
/// What is kept with a batch's key once the batch is made.
const MADE: &[u8] = b"made";

/// A key that this request has to make good.
pub(crate) struct Ours {
    scope: String,
    key: String,
    held: KeyHeld,
}

impl Ours {
    /// What the key names.
    pub(crate) fn value(&self) -> &str {
        &self.held.value
    }
}

/// What a key comes to.
pub(crate) enum Turn {
    /// It is this request's to make good.
    Ours(Ours),
    /// It was made good before.
    Made(KeyHeld),
}

/// A key and what it would name.
pub(crate) struct Wanted {
    pub(crate) scope: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) digest: String,
    pub(crate) kept: Duration,
}

impl Wanted {
    fn claim(&self, now: UnixMs) -> KeyClaim {
        KeyClaim {
            scope: self.scope.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            digest: self.digest.clone(),
            leased_until: now + LEASE_MS,
            kept_until: now.saturating_add(self.kept.as_millis() as i64),
        }
    }
}

/// Claims a key whose being made good is noted with it; waits for whoever is at work on it.
pub(crate) async fn claim(api: &Api, wanted: &Wanted) -> Result<Turn, Fault> {
    loop {
        let held = api.store.take_keys(&[wanted.claim(now())]).await?;
        let Some(held) = held.into_iter().next() else {
            return Err(Fault::unavailable("The key could not be claimed."));
        };
        if !held.is_new && (held.answer.is_some() || held.digest != wanted.digest) {
            return Ok(Turn::Made(held));
        }
        if held.is_new || lease(api, &wanted.scope, &wanted.key, &held).await? {
            return Ok(Turn::Ours(ours(wanted, held)));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn ours(wanted: &Wanted, held: KeyHeld) -> Ours {
    Ours {
        scope: wanted.scope.clone(),
        key: wanted.key.clone(),
        held,
    }
}

/// Takes over a key whose lease has ended. False: it has not, or somebody else was faster.
async fn lease(api: &Api, scope: &str, key: &str, held: &KeyHeld) -> Result<bool, Fault> {
    let now = now();
    if held.leased_until > now {
        return Ok(false);
    }
    Ok(api
        .store
        .lease_key(scope, key, held, now + LEASE_MS)
        .await?)
}

/// Notes that a key is made good, and what was answered. A failure is no answer to the request: who
/// comes with the key makes the same once more, under the same ids.
pub(crate) async fn made(api: &Api, ours: &Ours, answer: &[u8]) {
    let Ours { scope, key, held } = ours;
    if let Err(error) = api.store.answer_key(scope, key, held, answer).await {
        tracing::warn!(%error, "an idempotency key's answer is not kept");
    }
}

/// Ends the leases of keys that could not be made good, so that the client's next try need not wait.
pub(crate) async fn give_back(api: &Api, ours: &[Ours]) {
    for Ours { scope, key, held } in ours {
        // As the lease ends by itself, nothing is lost when this fails.
        let _ = api.store.lease_key(scope, key, held, now()).await;
    }
}

/// The `Idempotency-Key` of a request.
pub(super) fn header(request: &Request) -> Result<Option<String>, Fault> {
    let Some(value) = request.headers().get("Idempotency-Key") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > MAX_HEADER {
        let text = format!("The Idempotency-Key must have 1 to {MAX_HEADER} visible characters.");
        return Err(Faults::only("Idempotency-Key", text));
    }
    Ok(Some(text.to_owned()))
}

/// Claims the key of the whole request. Its value is the id that all others are derived from.
pub(super) async fn request(
    api: &Api,
    caller: &Known,
    key: String,
    body: &str,
) -> Result<Turn, Fault> {
    let wanted = Wanted {
        scope: caller.scope("request"),
        key,
        value: BatchId::random().to_string(),
        digest: hex(&digest(body)),
        kept: api.keys_kept,
    };
    let turn = claim(api, &wanted).await?;
    match &turn {
        Turn::Made(held) if held.digest != wanted.digest => Err(Faults::only(
            "Idempotency-Key",
            "The Idempotency-Key was used with another request before.",
        )),
        _ => Ok(turn),
    }
}

/// Claims the key of a batch; answers the batch's id.
pub(super) async fn batch(
    api: &Api,
    caller: &Known,
    key: &str,
    id: BatchId,
    items: usize,
) -> Result<(BatchId, Ours), Fault> {
    let wanted = Wanted {
        scope: caller.scope("batch"),
        key: key.to_owned(),
        value: id.to_string(),
        digest: String::new(),
        kept: api.keys_kept,
    };
    match claim(api, &wanted).await? {
        Turn::Ours(ours) => Ok((ours.value().parse().unwrap_or(id), ours)),
        Turn::Made(held) => Err(Fault::from(Conflict {
            message: "Batch idempotency key already exists.".to_owned(),
            batch_id: Some(held.value),
            duplicates: Some(items),
            ..Conflict::default()
        })),
    }
}

/// Notes that a batch is made.
pub(super) async fn batch_made(api: &Api, ours: &Ours) {
    made(api, ours, MADE).await;
}

/// A notification at its place in the request.
type Placed = (usize, NotificationRequested);

/// What became of the notifications' own keys.
pub(super) struct Items {
    /// Those that are to be made, with their ids, in the order of the request.
    pub(super) requests: Vec<NotificationRequested>,
    /// Their keys.
    pub(super) ours: Vec<Ours>,
    /// Of each that is not made: its key, and the notification that there is already.
    pub(super) duplicates: Vec<(String, String)>,
}

/// Claims the keys of notifications. `id` says the one that each would have.
pub(super) async fn items(
    api: &Api,
    caller: &Known,
    requests: Vec<NotificationRequested>,
    id: impl Fn(usize) -> NotificationId,
) -> Result<Items, Fault> {
    let mut placed: Vec<Placed> = Vec::with_capacity(requests.len());
    let mut items = Items {
        requests: Vec::new(),
        ours: Vec::new(),
        duplicates: Vec::new(),
    };
    let scope = caller.scope("notification");
    let mut keyed: Vec<(Wanted, Placed)> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    let mut again = Vec::new();
    for (index, mut request) in requests.into_iter().enumerate() {
        let id = id(index).to_string();
        let Some(key) = request.idempotency_key.clone() else {
            request.id = Some(id);
            placed.push((index, request));
            continue;
        };
        if !seen.insert(key.clone()) {
            again.push(key);
            continue;
        }
        let wanted = Wanted {
            scope: scope.clone(),
            key,
            value: id,
            digest: String::new(),
            kept: api.keys_kept,
        };
        keyed.push((wanted, (index, request)));
    }
    claim_items(api, keyed, &mut placed, &mut items).await?;
    placed.sort_by_key(|(place, _)| *place);
    items.requests = placed.into_iter().map(|(_, request)| request).collect();
    // The second of one request is the first one's duplicate.
    let made = items.ours.iter().map(|ours| (&ours.key, &ours.held.value));
    let there = items.duplicates.iter().map(|(key, id)| (key, id));
    let named: HashMap<&String, &String> = there.chain(made).collect();
    let again: Vec<(String, String)> = again
        .into_iter()
        .map(|key| {
            let id = named.get(&key).map(|id| (*id).clone()).unwrap_or_default();
            (key, id)
        })
        .collect();
    items.duplicates.extend(again);
    Ok(items)
}

async fn claim_items(
    api: &Api,
    mut keyed: Vec<(Wanted, Placed)>,
    placed: &mut Vec<Placed>,
    items: &mut Items,
) -> Result<(), Fault> {
    while !keyed.is_empty() {
        let now = now();
        let claims: Vec<KeyClaim> = keyed.iter().map(|(wanted, _)| wanted.claim(now)).collect();
        let held = api.store.take_keys(&claims).await?;
        // A key that was there names a notification that is there, unless it is being made.
        let there = held.iter().filter(|held| !held.is_new);
        let ids: Vec<NotificationId> = there.filter_map(|held| held.value.parse().ok()).collect();
        let made: HashSet<String> = find_all(api, &ids)
            .await?
            .iter()
            .map(|row| row.id().to_string())
            .collect();
        let mut waiting = Vec::new();
        for ((wanted, (place, mut request)), held) in keyed.into_iter().zip(held) {
            if !held.is_new && made.contains(&held.value) {
                items.duplicates.push((wanted.key, held.value));
            } else if held.is_new || lease(api, &wanted.scope, &wanted.key, &held).await? {
                request.id = Some(held.value.clone());
                placed.push((place, request));
                items.ours.push(ours(&wanted, held));
            } else {
                waiting.push((wanted, (place, request)));
            }
        }
        keyed = waiting;
        if !keyed.is_empty() {
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}
