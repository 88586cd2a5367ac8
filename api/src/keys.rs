//! Who may come in: by a key of the configuration, which opens everything, or by one that was made
//! through the API.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use herald_runtime::worker::now;
use herald_schemas::{
    ids::{ApiKeyId, UnixMs},
    words::Scope,
};
use poem::Request;
use poem_openapi::{SecurityScheme, auth};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::warn;

use crate::{Api, CATALOG_AGE, fault::Fault};

/// How a key that was made through the API begins; so that it is found where it does not belong.
const MARK: &str = "hrld_";
/// How much of such a key is shown ever after: the mark and 48 bits.
const PREFIX_LENGTH: usize = MARK.len() + 12;
/// The random bytes of a key, those in the prefix included.
const RANDOM_BYTES: usize = 30;
/// The span that requests are counted in.
const WINDOW: Duration = Duration::from_secs(60);
/// How old the use of a key that was noted may be, before another one is.
const NOTED_EVERY_MS: UnixMs = 60_000;

/// The keys of the configuration, and what this process knows of each key's use.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    /// Digests of keys that open everything.
    configured: Vec<[u8; 32]>,
    /// How many requests a minute a key may make that says nothing of its own.
    rate_limit: Option<u32>,
    /// The requests of each key in its current window, by its name.
    windows: Mutex<HashMap<String, Window>>,
    /// When a use of each key was last noted in the store.
    noted: Mutex<HashMap<ApiKeyId, UnixMs>>,
}

impl Keys {
    /// These keys open everything. `rate_limit` is how many requests a minute each key may make at
    /// this process.
    pub fn new<'a>(keys: impl Iterator<Item = &'a str>, rate_limit: Option<u32>) -> Self {
        Self(Arc::new(Inner {
            configured: keys.map(digest).collect(),
            rate_limit,
            windows: Mutex::default(),
            noted: Mutex::default(),
        }))
    }

    /// Whose key it is.
    async fn whose(&self, api: &Api, key: &str) -> Result<Known, Fault> {
        let asked = digest(key);
        // Each is compared, so that it takes the same time whichever it is.
        let found = self.0.configured.iter();
        let found = found.fold(0, |found, one| found | one.ct_eq(&asked).unwrap_u8());
        if found == 1 {
            return Ok(Known {
                name: hex(&asked[..16]),
                scopes: vec![Scope::Admin],
                rate_limit: self.0.rate_limit,
            });
        }
        let prefix = key.get(..PREFIX_LENGTH).filter(|_| key.starts_with(MARK));
        let prefix = prefix.ok_or_else(Fault::unauthorized)?;
        let catalog = api.catalogs.fresh(CATALOG_AGE).await?;
        let kept = catalog.api_key(prefix).filter(|kept| {
            let is_it: bool = kept.digest.as_bytes().ct_eq(hex(&asked).as_bytes()).into();
            is_it && kept.is_good(now())
        });
        let kept = kept.ok_or_else(Fault::unauthorized)?;
        self.note_use(api, kept.id);
        Ok(Known {
            name: kept.id.to_string(),
            scopes: kept.scopes.clone(),
            rate_limit: kept.rate_limit.or(self.0.rate_limit),
        })
    }

    /// Counts a request. When there were too many, how many there may be and how long to wait.
    fn count(&self, known: &Known) -> Result<(), Fault> {
        let Some(limit) = known.rate_limit else {
            return Ok(());
        };
        let mut windows = unpoisoned(&self.0.windows);
        let window = windows.entry(known.name.clone()).or_default();
        let wait = window.count(Instant::now(), limit);
        wait.map_or(Ok(()), |wait| Err(Fault::too_many(limit, wait)))
    }

    /// Has it written down that a key is in use, once a minute; no request waits for that.
    fn note_use(&self, api: &Api, id: ApiKeyId) {
        let at = now();
        {
            let mut noted = unpoisoned(&self.0.noted);
            let last = noted.entry(id).or_insert(UnixMs::MIN);
            if at.saturating_sub(*last) < NOTED_EVERY_MS {
                return;
            }
            *last = at;
        }
        let store = Arc::clone(&api.store);
        tokio::spawn(async move {
            if let Err(error) = store.note_api_key_use(id, at).await {
                warn!(%error, key = %id, "that an API key is in use was not noted");
            }
        });
    }
}

/// What is behind it is whole after every step.
fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.configured.len())
    }
}

/// The requests of one key in the minute that its first one began.
#[derive(Default)]
struct Window {
    since: Option<Instant>,
    requests: u32,
}

impl Window {
    /// Counts a request; when it is one too many, how long the window is still open.
    fn count(&mut self, now: Instant, limit: u32) -> Option<Duration> {
        let age = self.since.map(|since| now.duration_since(since));
        let age = age.filter(|age| *age < WINDOW).unwrap_or_else(|| {
            (self.since, self.requests) = (Some(now), 0);
            Duration::ZERO
        });
        if self.requests >= limit {
            return Some(WINDOW - age);
        }
        self.requests += 1;
        None
    }
}

/// SHA-256.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new key, its prefix and its digest.
pub(crate) fn generate() -> Result<(String, String, String), getrandom::Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    let key = format!("{MARK}{}", hex(&random));
    let prefix = key.chars().take(PREFIX_LENGTH).collect();
    let digest = hex(&digest(&key));
    Ok((key, prefix, digest))
}

/// Whose key it is, and what it is good for.
pub(crate) struct Known {
    name: String,
    scopes: Vec<Scope>,
    rate_limit: Option<u32>,
}

impl Known {
    /// A scope for idempotency keys of this kind: the same key of two clients is not one.
    pub(crate) fn scope(&self, kind: &str) -> String {
        format!("{kind} of {}", self.name)
    }

    fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Lets a request in that has a good key, is not one too many, and may do what it asks for.
async fn admit(request: &Request, key: &str, needed: Option<Scope>) -> poem::Result<Known> {
    let api = request.data::<Api>().ok_or_else(Fault::unauthorized)?;
    let known = api.keys.whose(api, key).await?;
    api.keys.count(&known)?;
    match needed {
        Some(scope) if !known.may(scope) => Err(Fault::forbidden(scope).into()),
        _ => Ok(known),
    }
}

macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident, $checker:tt = $check:ident, $needed:expr;)+) => {$(
        /// The scopes of a key say what it opens: `send` sends and cancels notifications and sends
        /// events; `read` shows everything but keys, and tries templates and rules; `manage` changes
        /// the catalog and requeues dead letters; `admin` does all of that, and makes, expires and
        /// revokes keys. The keys of the configuration have `admin`.
        #[derive(SecurityScheme)]
        #[oai(
            rename = "ApiKey",
            ty = "api_key",
            key_name = "X-Api-Key",
            key_in = "header",
            checker = $checker
        )]
        $(#[$doc])*
        pub(crate) struct $name(#[allow(dead_code, reason = "not every operation asks who it is")] pub(crate) Known);

        async fn $check(request: &Request, key: auth::ApiKey) -> poem::Result<Known> {
            admit(request, &key.key, $needed).await
        }
    )+};
}

callers! {
    Caller, "any" = any, None;
    Sender, "may_send" = may_send, Some(Scope::Send);
    Reader, "may_read" = may_read, Some(Scope::Read);
    Manager, "may_manage" = may_manage, Some(Scope::Manage);
    Admin, "is_admin" = is_admin, Some(Scope::Admin);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_prints_and_none_is_like_another() {
        let keys = Keys::new(["one", "two"].into_iter(), None);
        assert_eq!(format!("{keys:?}"), "Keys(2)");
        let (key, prefix, of_key) = generate().unwrap();
        assert!(key.starts_with(&prefix) && prefix.starts_with(MARK));
        assert_eq!((key.len(), prefix.len()), (65, PREFIX_LENGTH));
        assert_eq!(of_key, hex(&digest(&key)));
        assert_ne!(generate().unwrap().1, prefix);
    }

    #[test]
    fn a_window_opens_anew_once_its_minute_is_over() {
        let (start, mut window) = (Instant::now(), Window::default());
        let mut at = |seconds| window.count(start + Duration::from_secs(seconds), 2);
        assert_eq!([at(0), at(30)], [None, None]);
        assert_eq!(at(45), Some(Duration::from_secs(15)));
        assert_eq!([at(60), at(61)], [None, None]);
        assert_eq!(at(119), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_scope_opens_itself_and_admin_opens_all() {
        let known = |scopes: &[Scope]| Known {
            name: String::new(),
            scopes: scopes.to_vec(),
            rate_limit: None,
        };
        for scope in Scope::ALL {
            assert!(known(&[*scope]).may(*scope));
            assert!(known(&[Scope::Admin]).may(*scope));
            assert!(!known(&[]).may(*scope));
        }
        assert!(!known(&[Scope::Send, Scope::Read]).may(Scope::Manage));
    }
}
