//! Herald's vocabulary: what a notification, an event, a rule and a status *are*, and how they are
//! written down.
//!
//! * [`ids`]: time-ordered identifiers, random or derived.
//! * [`words`]: the closed sets of words (channel, priority, status).
//! * [`records`]: the Avro records on the topics; `schemas/*.avsc` is their source of truth.
//! * [`codec`]: encoding and decoding, single-object or Confluent-framed.
//! * [`catalog`]: event sources, templates and rules.
//! * [`rows`]: the materialized answer to "what happened to my notification?".
//! * [`topics`]: topic and header names, each written once.
//!
//! Nothing here does I/O.

pub mod catalog;
pub mod codec;
pub mod ids;
pub mod records;
pub mod rows;
pub mod topics;
pub mod words;
