//! Push notifications.

mod aes128gcm;
pub mod fcm;
pub mod service_account;
mod tokens;
pub mod vapid;
pub mod web_push;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::sha::sha256;
use serde_json::{Map, Value};

use crate::Call;

/// How many bytes of a hash make the 32 characters that a topic may have.
const TOPIC_BYTES: usize = 24;

/// By what a device, or whoever keeps a message for it, knows a repetition: what comes again takes
/// the place of what is there. The same for every attempt, and no longer than a topic (RFC 8030) or
/// Apple's `apns-collapse-id` may be.
fn topic(call: &Call) -> String {
    let hash = sha256(call.idempotency_key().as_bytes());
    URL_SAFE_NO_PAD.encode(&hash[..TOPIC_BYTES])
}

/// How long the message is still worth showing, where it says so.
fn time_left(call: &Call, now: SystemTime) -> Option<Duration> {
    let expires_at = call.delivery.identity.expires_at?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = expires_at.saturating_sub(now.as_millis() as i64).max(0);
    Some(Duration::from_millis(left as u64))
}

/// The client's metadata, for the app; nothing where there is none.
fn metadata(call: &Call) -> Map<String, Value> {
    let json = call.delivery.message.metadata.as_deref();
    json.and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}
