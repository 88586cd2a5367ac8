//! What the driver's errors mean: whether trying again can help.

use std::fmt;

use scylla::errors::{
    DbError, ExecutionError, NewSessionError, NextPageError, PrepareError, RequestAttemptError,
    RequestError,
};

use crate::StoreError;

pub(super) fn unreadable(error: impl fmt::Display) -> StoreError {
    StoreError::Fatal(format!("an answer that cannot be read: {error}"))
}

pub(super) fn not_connected(nodes: &str, error: &NewSessionError) -> StoreError {
    // A refused login is among the reasons, and may be mended on the other side: tried again.
    StoreError::Unavailable(format!("{nodes}: {error}"))
}

pub(super) fn not_prepared(error: &PrepareError) -> StoreError {
    match error {
        PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(DbError::Invalid, text),
        } => StoreError::NotSetUp(text.clone()),
        PrepareError::AllAttemptsFailed { first_attempt } => attempt_failed(first_attempt),
        other => StoreError::Unavailable(other.to_string()),
    }
}

pub(super) fn failed(error: ExecutionError) -> StoreError {
    match error {
        ExecutionError::LastAttemptError(error) => attempt_failed(&error),
        ExecutionError::PrepareError(error) => not_prepared(&error),
        ExecutionError::BadQuery(error) => StoreError::Fatal(error.to_string()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

pub(super) fn no_page(error: &NextPageError) -> StoreError {
    match error {
        NextPageError::RequestFailure(RequestError::LastAttemptError(error)) => {
            attempt_failed(error)
        }
        NextPageError::RequestFailure(error) => StoreError::Unavailable(error.to_string()),
        other => unreadable(other),
    }
}

/// What the database can take later is unavailable: rights that were granted a moment ago and are
/// not known everywhere, a table that another setup just made.
fn attempt_failed(error: &RequestAttemptError) -> StoreError {
    use DbError::{ConfigError, Invalid, SyntaxError};
    match error {
        RequestAttemptError::DbError(SyntaxError | Invalid | ConfigError, _)
        | RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_) => StoreError::Fatal(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_unavailable_and_what_will_not_is_fatal() {
        let of = |error| attempt_failed(&RequestAttemptError::DbError(error, String::new()));
        let exists = DbError::AlreadyExists {
            keyspace: String::new(),
            table: String::new(),
        };
        for may_pass in [DbError::Unauthorized, DbError::Overloaded, exists] {
            assert!(matches!(of(may_pass), StoreError::Unavailable(_)));
        }
        for will_not in [DbError::SyntaxError, DbError::Invalid, DbError::ConfigError] {
            assert!(matches!(of(will_not), StoreError::Fatal(_)));
        }
    }
}
