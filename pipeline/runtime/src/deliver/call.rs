//! One attempt: the primary provider, then the fallback.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use herald_channels::{Call, CallOutcome, Provider, Reply};
use herald_schemas::records::{Attempt, DeliveryReady, Failure};
use herald_stages::deliver::Settled;
use tokio::time::timeout;

use crate::{metrics::Metrics, worker::now};

/// No provider may take longer, whatever its own deadline is.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Asks the providers in order until one accepts.
pub(super) async fn attempt(
    delivery: Arc<DeliveryReady>,
    attempt: i32,
    seed: u64,
    providers: Vec<Arc<dyn Provider>>,
    metrics: Arc<Metrics>,
) -> Settled {
    let channel = delivery.identity.channel;
    let call = Call { delivery, attempt };
    let mut settled = Settled {
        attempt,
        at: now(),
        seed,
        calls: Vec::new(),
        provider_message_id: None,
        accepted: false,
        retry_after_ms: None,
    };
    for (step, provider) in providers.iter().enumerate() {
        let (started_at, started) = (now(), Instant::now());
        let reply = match timeout(CALL_LIMIT, provider.send(&call)).await {
            Ok(reply) => reply,
            Err(_) => overdue(),
        };
        let latency = started.elapsed();
        let error = match reply.outcome {
            CallOutcome::Accepted {
                provider_message_id,
            } => {
                settled.accepted = true;
                settled.provider_message_id = provider_message_id;
                None
            }
            CallOutcome::Refused {
                failure,
                retry_after,
            } => {
                settled.retry_after_ms = retry_after.map(|wait| wait.as_millis() as i64);
                Some(failure)
            }
        };
        let outcome = error
            .as_ref()
            .map_or("accepted", |failure| failure.kind.as_str());
        metrics.called(channel, provider.name(), outcome, latency);
        settled.calls.push(Attempt {
            number: attempt,
            step: step as i32,
            provider: provider.name().to_owned(),
            started_at,
            latency_ms: latency.as_millis() as i32,
            error,
            response: reply.response,
        });
        if settled.accepted {
            break;
        }
    }
    if providers.is_empty() {
        settled
            .calls
            .push(nobody(attempt, settled.at, channel.as_str()));
    }
    settled.at = now();
    settled
}

fn overdue() -> Reply {
    let failure = Failure {
        kind: "transient".to_owned(),
        code: "connection_error".to_owned(),
        message: format!("the provider took longer than {} s", CALL_LIMIT.as_secs()),
    };
    Reply {
        outcome: CallOutcome::Refused {
            failure,
            retry_after: None,
        },
        response: None,
    }
}

/// A channel without a provider: a mistake in the configuration that waiting may mend.
fn nobody(number: i32, started_at: i64, channel: &str) -> Attempt {
    Attempt {
        number,
        step: 0,
        provider: "none".to_owned(),
        started_at,
        latency_ms: 0,
        error: Some(Failure {
            kind: "transient".to_owned(),
            code: "no_provider".to_owned(),
            message: format!("no provider is configured for channel {channel}"),
        }),
        response: None,
    }
}
