//! The API over HTTP, on the embedded engines: what it answers, what it writes, and what it lets
//! into the catalog. Nothing runs behind it here; what becomes of what it accepts is the end-to-end
//! tests' matter.

#![allow(clippy::unwrap_used)]

mod accepted;
mod admin;
mod api_keys;
mod catalog;
mod engines;
mod events;
mod refused;
mod rules;
mod seed;
mod served;
mod templates;

use serde_json::{Value, json};

const NOTIFICATIONS: &str = "/api/v1/notifications";

fn notification() -> Value {
    json!({ "recipient": "me", "channel": "log", "content": "Hello" })
}
