//! What the document's examples are made of.

use serde_json::{Value, json};

use crate::body::Object;

pub(crate) const ID: &str = "01980c2f-7d1a-7c3e-9a55-3f2b8c0d4e6f";
pub(crate) const OTHER_ID: &str = "01980c2f-7d1b-7a08-8d4f-6b1e2c3d4f5a";
pub(crate) const TIME: &str = "2026-01-31T12:00:00.000+00:00";
pub(crate) const EVENT: &str = "order_created";

/// The first seed's payload.
pub(crate) fn payload() -> Object {
    object(json!({ "order_id": 444, "customer_email": "john@example.com", "total": 99.99 }))
}

/// A schema that it fits.
pub(crate) fn schema() -> Object {
    object(json!({ "required": ["order_id"],
        "properties": { "order_id": { "type": "integer" } } }))
}

/// An object from its JSON.
pub(crate) fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => map.into_iter().collect(),
        _ => Object::new(),
    }
}
