//! API keys: who may come in.

use std::{fmt, sync::Arc};

use poem::Request;
use poem_openapi::{SecurityScheme, auth::ApiKey};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The keys that open everything. Kept as digests; they do not print.
#[derive(Clone)]
pub struct Keys(Arc<[[u8; 32]]>);

impl Keys {
    /// These keys.
    pub fn new<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        Self(keys.map(digest).collect())
    }

    /// Whether it is one of them; takes the same time whichever it is.
    fn has(&self, key: &str) -> bool {
        let asked = digest(key);
        self.0
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&asked))
            .into()
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// A request with a good key.
#[derive(SecurityScheme)]
#[oai(
    ty = "api_key",
    key_name = "X-Api-Key",
    key_in = "header",
    checker = "check"
)]
pub(crate) struct Caller(Known);

pub(crate) struct Known {
    key: [u8; 32],
}

impl Caller {
    /// A scope for idempotency keys of this kind: the same key of two clients is not one.
    pub(crate) fn scope(&self, kind: &str) -> String {
        let mut scope = format!("{kind}/");
        for byte in &self.0.key[..16] {
            scope.push_str(&format!("{byte:02x}"));
        }
        scope
    }
}

async fn check(request: &Request, key: ApiKey) -> Option<Known> {
    let is_known = request.data::<Keys>()?.has(&key.key);
    is_known.then(|| Known {
        key: digest(&key.key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_open_and_none_prints() {
        let keys = Keys::new(["one", "two"].into_iter());
        assert!(keys.has("one") && keys.has("two"));
        assert!(!keys.has("on") && !keys.has("") && !keys.has("three"));
        assert_eq!(format!("{keys:?}"), "Keys(2)");
    }
}
