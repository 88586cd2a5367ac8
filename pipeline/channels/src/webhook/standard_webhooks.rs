//! Webhooks by the Standard Webhooks specification: the recipient is any URL, the request is signed.
//!
//! Body: `{"type", "timestamp", "id", "data", "metadata"}`. The content is `data` where it is a JSON
//! object, so that a template shapes what arrives; any other is `{"subject", "content"}` there.
//! `type` is the metadata's, where that is a word such as `order.created`, else `notification`.
//! `timestamp` is when the notification was made; the header `webhook-timestamp` is of the attempt.
//!
//! Each secret signs: while one is exchanged for another, receivers may have either.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat};
use herald_schemas::{ids::NotificationId, records::Failure};
use openssl::{error::ErrorStack, hash::MessageDigest, pkey::PKey, sign::Signer};
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Call, Provider, Reply, Secret,
    guard::Guard,
    http::{self, Answer, Deadlines, IDEMPOTENCY_KEY},
    not_allowed, permanent,
};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const SECRET_PREFIX: &str = "whsec_";
/// How many bytes the specification wants a secret to have.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The type of what has none.
const TYPE: &str = "notification";
const TYPE_LIMIT: usize = 128;

/// How to send.
#[derive(Clone)]
pub struct Settings {
    /// By what the requests are signed.
    pub secrets: Secrets,
    /// Where they may lead.
    pub guard: Guard,
    /// The deadlines of a call.
    pub deadlines: Deadlines,
}

/// Secrets, at least one.
#[derive(Clone)]
pub struct Secrets(Vec<PKey<openssl::pkey::Private>>);

impl Secrets {
    /// Reads `whsec_…`, each of them 24 to 64 bytes in base64. An error does not repeat what is none.
    pub fn new(secrets: &[Secret]) -> Result<Self, String> {
        let keys = secrets.iter().map(|secret| {
            let base64 = secret.reveal().strip_prefix(SECRET_PREFIX)?;
            let bytes = STANDARD.decode(base64).ok()?;
            let bytes = Some(bytes).filter(|bytes| SECRET_BYTES.contains(&bytes.len()))?;
            PKey::hmac(&bytes).ok()
        });
        let keys: Option<Vec<_>> = keys.collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            Some(_) => Err("there is no secret".to_owned()),
            None => Err(format!(
                "a secret is not {SECRET_PREFIX} and {} to {} bytes in base64",
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            )),
        }
    }

    /// The signatures of a message, one for each secret.
    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> Result<String, ErrorStack> {
        let mut signatures = Vec::new();
        for key in &self.0 {
            let mut signer = Signer::new(MessageDigest::sha256(), key)?;
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                signer.update(part)?;
            }
            let signature = STANDARD.encode(signer.sign_to_vec()?);
            signatures.push(format!("v1,{signature}"));
        }
        Ok(signatures.join(" "))
    }
}

/// Webhooks of whoever is notified.
pub struct StandardWebhooks {
    settings: Settings,
    client: Client,
}

impl StandardWebhooks {
    /// Webhooks whose URLs users give.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let client = settings.guard.client(settings.deadlines)?;
        Ok(Self { settings, client })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let identity = &call.delivery.identity;
        let url: Url = identity
            .recipient
            .parse()
            .map_err(|_| not_allowed("the recipient is no URL"))?;
        self.settings.guard.check(&url)?;
        let unencodable = |error: String| permanent("unencodable", error);
        let body =
            serde_json::to_vec(&Body::of(call)).map_err(|error| unencodable(error.to_string()))?;
        let id = identity.id.to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.unwrap_or_default().as_secs().to_string();
        let signature = self.settings.secrets.sign(&id, &timestamp, &body);
        let signature = signature.map_err(|error| unencodable(error.to_string()))?;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ID, id)
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, signature)
            .body(body);
        http::ask(http::with_context(request, call, &IDEMPOTENCY_KEY)).await
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    timestamp: Option<String>,
    id: NotificationId,
    data: Data<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(&'a RawValue),
    Text {
        subject: Option<&'a str>,
        content: &'a str,
    },
}

impl<'a> Body<'a> {
    fn of(call: &'a Call) -> Self {
        let identity = &call.delivery.identity;
        let message = &call.delivery.message;
        let created_at = DateTime::from_timestamp_millis(identity.created_at);
        let metadata: Option<&RawValue> = message.metadata.as_deref().and_then(json);
        let data = json(&message.content).filter(|json| json.get().starts_with('{'));
        Self {
            r#type: metadata.and_then(kind).unwrap_or_else(|| TYPE.to_owned()),
            timestamp: created_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            id: identity.id,
            data: match data {
                Some(json) => Data::Json(json),
                None => Data::Text {
                    subject: message.subject.as_deref(),
                    content: &message.content,
                },
            },
            metadata,
        }
    }
}

fn json(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// The type that the metadata names, in the specification's form.
fn kind(metadata: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata {
        r#type: Option<serde_json::Value>,
    }
    let metadata: Metadata = serde_json::from_str(metadata.get()).ok()?;
    let kind = metadata.r#type?.as_str()?.to_owned();
    let is_of_type = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    ((1..=TYPE_LIMIT).contains(&kind.len()) && kind.bytes().all(is_of_type)).then_some(kind)
}

#[async_trait]
impl Provider for StandardWebhooks {
    fn name(&self) -> &str {
        "standard_webhooks"
    }

    async fn send(&self, call: &Call) -> Reply {
        match self.ask(call).await {
            Ok(answer) if answer.status.is_success() => Reply::accepted(None, &answer),
            Ok(answer) => {
                let failure = http::status_failure(answer.status);
                Reply::refused(failure, &answer)
            }
            Err(failure) => Reply::unanswered(failure),
        }
    }
}
