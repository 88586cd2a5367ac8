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

    /// Who comes in by it, if it is one of them; takes the same time whichever it is.
    fn whose(&self, key: &str) -> Option<Known> {
        let asked = digest(key);
        let found: bool = self
            .0
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&asked))
            .into();
        found.then(|| Known {
            name: hex(&asked[..16]),
        })
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

/// Whose key it is.
pub(crate) struct Known {
    name: String,
}

impl Caller {
    /// A scope for idempotency keys of this kind: the same key of two clients is not one.
    pub(crate) fn scope(&self, kind: &str) -> String {
        format!("{kind} of {}", self.0.name)
    }
}

async fn check(request: &Request, key: ApiKey) -> Option<Known> {
    request.data::<Keys>()?.whose(&key.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_open_and_none_prints() {
        let keys = Keys::new(["one", "two"].into_iter());
        let name = |key: &str| keys.whose(key).map(|known| known.name);
        assert_ne!(name("one").unwrap(), name("two").unwrap());
        assert_eq!(name("one"), name("one"));
        assert!(["on", "", "three"].iter().all(|key| name(key).is_none()));
        assert_eq!(format!("{keys:?}"), "Keys(2)");
    }
}
