//! Herald as its users see it: the built program, HTTP in front, a provider behind.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod api_keys;
mod bad_input;
mod cancelling;
mod compose;
mod controls;
mod crash;
mod delivery;
mod events;
mod figures;
mod idempotency;
mod metrics;
mod process;
mod producers;
mod readme;
mod requeue;
mod scheduled;
mod schemathesis;
mod seed_samples;
mod servers;
mod setup;
mod user_webhooks;
mod webhooks;

use herald_e2e::Engine;

/// A test for each function, on the embedded pair.
macro_rules! on_the_embedded_engine {
    ($($test:ident),+ $(,)?) => {
        mod embedded {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::Engine::Embedded).await;
            }
        )+}
    };
}
pub(crate) use on_the_embedded_engine;
