//! Providers of one channel that have different kinds of recipients, as one: a device token is for
//! one of them, a browser's subscription for the other.
//!
//! Not a primary and its fallback: where the one that a recipient is for is left alone for a while,
//! asking the other one alone would be the end of the notification.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Call, CallOutcome, NOT_FOR_IT, Provider, Reply};

/// The first of several that the recipient is for.
pub struct ByRecipient {
    name: String,
    first: Arc<dyn Provider>,
    others: Vec<Arc<dyn Provider>>,
}

impl ByRecipient {
    /// Providers that refuse what is not for them without a call.
    pub fn new(first: Arc<dyn Provider>, others: Vec<Arc<dyn Provider>>) -> Self {
        let names: Vec<_> = [&first].into_iter().chain(&others).collect();
        let names: Vec<_> = names.iter().map(|provider| provider.name()).collect();
        Self {
            name: names.join("+"),
            first,
            others,
        }
    }
}

#[async_trait]
impl Provider for ByRecipient {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, call: &Call) -> Reply {
        let mut reply = self.first.send(call).await;
        for other in &self.others {
            if !is_not_for_it(&reply) {
                break;
            }
            reply = other.send(call).await;
        }
        reply
    }
}

fn is_not_for_it(reply: &Reply) -> bool {
    let CallOutcome::Refused { failure, .. } = &reply.outcome else {
        return false;
    };
    failure.code == NOT_FOR_IT
}
