//! What an event source asks of its payloads: JSON Schema, compiled once a snapshot.
//!
//! Whoever writes a schema is not trusted with the stage's time, nor with its stack: nothing outside
//! the schema is looked up, patterns take linear time, and what it may cost is known beforehand, see
//! [`cost`].

mod cost;

use std::fmt;

use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

use self::cost::{Cost, Told};
use crate::shortened::shortened;

/// How many faults of a payload are told.
const MAX_FAULTS: usize = 20;
/// How much of each, which may quote the payload.
const MAX_MESSAGE: usize = 300;
/// The longest path that is told.
const MAX_PATH: usize = 300;
/// The largest schema, as text.
const MAX_BYTES: usize = 256 << 10;
/// The largest pattern, compiled; and what it may remember of where it has been.
const MAX_PATTERN_BYTES: usize = 64 << 10;
const MAX_PATTERN_MEMORY: usize = 256 << 10;

/// A schema that is none, or one that cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

/// Whether a value is a schema that an event source may have.
pub fn check_schema(schema: &Value) -> Result<(), SchemaError> {
    Schema::compile(schema).map(drop)
}

/// What of a payload is against its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFault {
    /// Where, dotted, such as `customer.email`; empty for the payload as a whole.
    pub path: String,
    /// What, for people.
    pub message: String,
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "payload: {}", self.message),
            path => write!(f, "payload.{path}: {}", self.message),
        }
    }
}

/// A compiled schema.
pub(crate) struct Schema {
    validator: Validator,
    cost: Cost,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    pub(crate) fn compile(schema: &Value) -> Result<Self, SchemaError> {
        if schema.to_string().len() > MAX_BYTES {
            return Err(SchemaError(format!("longer than {MAX_BYTES} bytes")));
        }
        let cost = Cost::of(schema).map_err(SchemaError)?;
        let patterns = PatternOptions::regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_MEMORY);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| SchemaError(refused(&error)))?;
        Ok(Self { validator, cost })
    }

    /// What of a payload is against it; nothing when all is well.
    pub(crate) fn faults(&self, payload: &Value) -> Vec<SchemaFault> {
        let whole = |message: String| {
            let path = String::new();
            vec![SchemaFault { path, message }]
        };
        let told = match self.cost.check(payload) {
            Ok(told) => told,
            Err(message) => return whole(message),
        };
        // Most have none, which takes a fraction of the time to see.
        if self.validator.is_valid(payload) {
            return Vec::new();
        }
        match told {
            Told::All => {
                let errors = self.validator.iter_errors(payload).take(MAX_FAULTS);
                errors.map(|error| fault(&error)).collect()
            }
            Told::First => {
                let first = self.validator.validate(payload).err();
                first.iter().map(fault).collect()
            }
            Told::None => whole("is against its schema, and too large to say where".to_owned()),
        }
    }
}

fn refused(error: &ValidationError<'_>) -> String {
    let path = dotted(error.instance_path().as_str());
    let message = shortened(error, MAX_MESSAGE);
    match path.as_str() {
        "" => message,
        path => format!("{path}: {message}"),
    }
}

fn fault(error: &ValidationError<'_>) -> SchemaFault {
    let mut path = dotted(error.instance_path().as_str());
    // It lies where the property should be.
    if let ValidationErrorKind::Required { property } = error.kind()
        && let Some(name) = property.as_str()
    {
        let dot = if path.is_empty() { "" } else { "." };
        path = format!("{path}{dot}{name}");
    }
    SchemaFault {
        path: shortened(path, MAX_PATH),
        message: shortened(error, MAX_MESSAGE),
    }
}

/// A JSON pointer with dots, as rules write their paths.
fn dotted(pointer: &str) -> String {
    let steps = pointer.split('/').skip(1);
    let steps: Vec<String> = steps
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    steps.join(".")
}

#[cfg(test)]
mod tests;
