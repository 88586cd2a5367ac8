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
#[allow(
    dead_code,
    reason = "the macro wants a field; that it is there says all"
)]
pub(crate) struct Caller(Known);

pub(crate) struct Known;

async fn check(request: &Request, key: ApiKey) -> Option<Known> {
    request.data::<Keys>()?.has(&key.key).then_some(Known)
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
