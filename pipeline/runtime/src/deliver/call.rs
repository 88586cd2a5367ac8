//! One attempt: the primary provider, then the fallback.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use herald_channels::{Call, CallOutcome, Reply};
use herald_schemas::records::{Attempt, DeliveryReady, Failure};
use herald_stages::deliver::Settled;
use tokio::time::timeout;

use crate::{metrics::Metrics, providers::Route, worker::now};

/// No provider may take longer, whatever its own deadline is.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Asks the providers in order until one accepts.
pub(super) async fn attempt(
    delivery: Arc<DeliveryReady>,
    attempt: i32,
    seed: u64,
    providers: Route,
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
                // The longest of them: the next attempt starts with the primary again.
                let asked = retry_after.map(|wait| wait.as_millis() as i64);
                settled.retry_after_ms = settled.retry_after_ms.max(asked);
                Some(failure)
            }
        };
        let outcome = error
            .as_ref()
            .map_or("accepted", |failure| failure.kind.as_str());
        metrics.called(channel, provider.name(), outcome, latency);
        if let Some(failure) = &error {
            metrics.call_failed(provider.name(), &failure.message);
        }
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use herald_channels::Provider;
    use herald_schemas::words::{Channel, Priority};

    use super::*;
    use crate::deliver::tests::delivery;

    struct Says(&'static str, CallOutcome);

    #[async_trait]
    impl Provider for Says {
        fn name(&self) -> &str {
            self.0
        }

        async fn send(&self, _: &Call) -> Reply {
            Reply {
                outcome: self.1.clone(),
                response: None,
            }
        }
    }

    fn refuses(name: &'static str, kind: &str, retry_after: Option<u64>) -> Arc<dyn Provider> {
        let failure = Failure {
            kind: kind.to_owned(),
            code: "http_429".to_owned(),
            message: "busy".to_owned(),
        };
        let retry_after = retry_after.map(Duration::from_secs);
        Arc::new(Says(
            name,
            CallOutcome::Refused {
                failure,
                retry_after,
            },
        ))
    }

    fn accepts(name: &'static str) -> Arc<dyn Provider> {
        let provider_message_id = Some(format!("of {name}"));
        Arc::new(Says(
            name,
            CallOutcome::Accepted {
                provider_message_id,
            },
        ))
    }

    async fn settled(providers: Vec<Arc<dyn Provider>>) -> Settled {
        let delivery = Arc::new(delivery(Channel::Sms, Priority::High, "+905551234567"));
        attempt(delivery, 2, 17, providers.into(), Metrics::new().unwrap()).await
    }

    fn asked(settled: &Settled) -> Vec<(i32, &str)> {
        let calls = settled.calls.iter();
        calls
            .map(|call| (call.step, call.provider.as_str()))
            .collect()
    }

    #[tokio::test]
    async fn the_first_that_accepts_is_the_last_that_is_asked() {
        let both = settled(vec![accepts("primary"), accepts("fallback")]).await;
        assert_eq!(asked(&both), [(0, "primary")]);
        assert_eq!(both.provider_message_id.as_deref(), Some("of primary"));

        let failed = refuses("primary", "permanent", None);
        let over = settled(vec![failed, accepts("fallback")]).await;
        assert_eq!(asked(&over), [(0, "primary"), (1, "fallback")]);
        assert!(over.accepted && over.calls[0].error.is_some() && over.calls[1].error.is_none());
        assert_eq!((over.attempt, over.seed, over.calls[1].number), (2, 17, 2));
    }

    #[tokio::test]
    async fn a_wait_that_one_of_them_asked_for_is_not_lost_with_the_other() {
        for (primary, fallback, expected) in [
            (None, None, None),
            (Some(600), None, Some(600_000)),
            (None, Some(60), Some(60_000)),
            (Some(600), Some(60), Some(600_000)),
        ] {
            let settled = settled(vec![
                refuses("primary", "transient", primary),
                refuses("fallback", "transient", fallback),
            ])
            .await;
            assert_eq!(settled.retry_after_ms, expected);
            assert!(!settled.accepted);
        }
    }

    #[tokio::test]
    async fn nobody_to_ask_is_a_failure_that_may_pass() {
        let settled = settled(Vec::new()).await;
        let error = settled.calls[0].error.as_ref().unwrap();
        assert_eq!(
            (error.kind.as_str(), error.code.as_str()),
            ("transient", "no_provider")
        );
    }
}
