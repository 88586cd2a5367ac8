//! Text messages.

pub mod twilio;
pub mod vonage;

use herald_schemas::records::Failure;

use crate::permanent;

/// What a provider would refuse for its length is not sent to it.
fn within(limit: usize, content: &str) -> Result<(), Failure> {
    let length = content.chars().count();
    if length <= limit {
        return Ok(());
    }
    Err(permanent(
        "content_too_long",
        format!("{length} characters, and the provider takes {limit}"),
    ))
}
