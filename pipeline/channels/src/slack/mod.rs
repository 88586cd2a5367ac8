//! Slack messages.

pub mod chat_post_message;
pub mod incoming_webhook;

use herald_schemas::records::Failure;
use reqwest::StatusCode;

use crate::{code, http};

/// What Slack's word for an error means, such as `channel_not_found`; none where it is no word.
fn failure(word: &str, status: StatusCode) -> Option<Failure> {
    let code = code("slack", word)?;
    let may_pass = is_passing(word) || http::may_pass(status);
    Some(http::failure_of(may_pass, code, format!("Slack: {word}")))
}

/// Words that pass, whatever the status is.
fn is_passing(word: &str) -> bool {
    matches!(
        word,
        "ratelimited"
            | "rate_limited"
            | "message_limit_exceeded"
            | "request_timeout"
            | "service_unavailable"
            | "internal_error"
            | "fatal_error"
            | "rollup_error"
            // A workspace is being moved.
            | "team_added_to_org"
            | "org_login_required"
    )
}
