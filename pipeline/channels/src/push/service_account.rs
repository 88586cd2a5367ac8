//! A Google service account: who may ask for access tokens, and how it says so (RFC 7523).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::{
    error::ErrorStack,
    pkey::{Id, PKey, Private},
};
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use crate::{Secret, jwt};

/// What an access token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// How long an assertion is good for: the longest that Google takes.
const ASSERTION_LIFE: Duration = Duration::from_secs(3_600);

/// A service account.
pub struct ServiceAccount {
    /// The project it belongs to.
    pub project: String,
    email: String,
    key_id: Option<String>,
    key: PKey<Private>,
    /// Where its tokens are made.
    pub(crate) token_url: Url,
}

#[derive(Deserialize)]
struct File {
    project_id: String,
    client_email: String,
    private_key_id: Option<String>,
    private_key: Secret,
    token_uri: String,
}

impl ServiceAccount {
    /// Reads the JSON that Google hands out. An error repeats nothing of it.
    pub fn from_json(json: &Secret) -> Result<Self, &'static str> {
        let file: File = serde_json::from_str(json.reveal()).map_err(|_| {
            "is no service account's JSON, with project_id, client_email, private_key and token_uri"
        })?;
        let key = PKey::private_key_from_pem(file.private_key.reveal().as_bytes())
            .ok()
            .filter(|key| key.id() == Id::RSA)
            .ok_or("has a private_key that is no RSA key in PEM")?;
        let token_url: Option<Url> = file.token_uri.parse().ok();
        let token_url = token_url
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or("has a token_uri that is no URL")?;
        Ok(Self {
            project: file.project_id,
            email: file.client_email,
            key_id: file.private_key_id,
            key,
            token_url,
        })
    }

    /// What is shown where tokens are made.
    pub(crate) fn assertion(&self, now: SystemTime) -> Result<String, ErrorStack> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_url.as_str(),
            "iat": now.as_secs(),
            "exp": (now + ASSERTION_LIFE).as_secs(),
        });
        jwt::sign(&header, &claims, &self.key)
    }
}
