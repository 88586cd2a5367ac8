//! The provider `log`: writes the message to the log and takes it as sent. Any channel may use it;
//! it is what `herald dev` starts with.

use async_trait::async_trait;
use tracing::info;

use crate::{Call, CallOutcome, Provider, Reply};

/// Writes messages to the log.
#[derive(Debug, Default)]
pub struct LogProvider;

#[async_trait]
impl Provider for LogProvider {
    fn name(&self) -> &str {
        "log"
    }

    async fn send(&self, call: &Call) -> Reply {
        let identity = &call.delivery.identity;
        let message = &call.delivery.message;
        info!(
            id = %identity.id,
            channel = %identity.channel,
            // Quoted: a line of a stranger's is not to look like one of ours.
            recipient = ?identity.recipient,
            subject = ?message.subject.as_deref().unwrap_or_default(),
            content = ?message.content,
            "message"
        );
        Reply {
            outcome: CallOutcome::Accepted {
                provider_message_id: None,
            },
            response: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::call;

    #[tokio::test]
    async fn whatever_is_logged_is_sent() {
        let reply = LogProvider.send(&call("ada@example.com")).await;
        assert_eq!(
            reply.outcome,
            CallOutcome::Accepted {
                provider_message_id: None
            }
        );
    }
}
