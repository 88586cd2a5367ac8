//! The harness of the end-to-end tests: starts the built `herald` as its users do, speaks HTTP to
//! it, and stands in for the provider on its other side. Nothing here looks inside.
//!
//! The tests are in `tests/e2e`. One test function serves both engines, see [`on_both_engines`].
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod client;
mod exposition;
mod fetched;
mod forwarder;
mod provider;
mod system;

pub use client::{Answer, Client};
pub use exposition::Exposition;
pub use fetched::{npm_package, python, python_of, python_script};
pub use forwarder::Forwarder;
pub use herald_test_servers::process::Process;
pub use provider::{Provider, Received, Reply};
pub use system::{Engine, KEY, Servers, System, herald, workspace};

use std::{
    env,
    io::Write,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

/// How long something may take that takes a moment on an idle machine. Only a bound: nothing waits
/// for it to pass.
pub const SOON: Duration = Duration::from_secs(60);

/// The same tests on the embedded pair and on real servers: a module for each.
#[macro_export]
macro_rules! on_both_engines {
    ($($test:ident),+ $(,)?) => {
        mod embedded {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::Engine::Embedded).await;
            }
        )+}
        $crate::on_real_servers!($($test),+);
    };
}

/// Tests that need the real servers.
#[macro_export]
macro_rules! on_real_servers {
    ($($test:ident),+ $(,)?) => {
        mod real {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(engine) = $crate::Engine::real(stringify!($test)) {
                    super::$test(engine).await;
                }
            }
        )+}
    };
}

/// Says that a test is left out, which the test command counts; with `HERALD_TEST_REAL=1` nothing
/// may be left out.
pub fn skip(test: &str, reason: &str) {
    let real = herald_test_servers::REAL;
    assert!(
        !env::var(real).is_ok_and(|value| value == "1"),
        "{test}: {real}=1, but {reason}"
    );
    // Not by a macro: the test runner would keep it for itself.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

/// Asks again and again until it is so. Until then the answer says what is there instead.
///
/// # Panics
///
/// When it is not so within the time.
pub async fn eventually<T>(within: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(instead) => assert!(
                Instant::now() < deadline,
                "not within {within:?}: {instead}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Does it for each of them, so many at once, and answers what came of each, in their order.
///
/// # Panics
///
/// When one of them does.
pub async fn at_once<I, T, F>(
    limit: usize,
    items: impl IntoIterator<Item = I>,
    mut make: impl FnMut(I) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (mut running, mut done) = (JoinSet::new(), Vec::new());
    let mut waiting = items.into_iter().enumerate();
    loop {
        while running.len() < limit
            && let Some((number, item)) = waiting.next()
        {
            let work = make(item);
            running.spawn(async move { (number, work.await) });
        }
        let Some(ended) = running.join_next().await else {
            done.sort_by_key(|(number, _)| *number);
            return done.into_iter().map(|(_, result)| result).collect();
        };
        done.push(ended.expect("no panic"));
    }
}
