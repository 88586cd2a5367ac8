//! How long servers take to answer: what the crates of the two seams measure alike, below both.

use std::time::Instant;

use prometheus::{Error, Histogram, HistogramOpts, HistogramVec, core::Collector};

/// From a statement in memory to a deadline of the servers' clients.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The round trips to one server, by operation and by outcome: `ok` or `error`.
pub struct RoundTrips(HistogramVec);

impl RoundTrips {
    /// A histogram of that name; empty.
    pub fn new(name: &str, help: &str) -> Result<Self, Error> {
        let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        Ok(Self(HistogramVec::new(options, &["operation", "outcome"])?))
    }

    /// One of its operations: to be asked for once, not with each call.
    pub fn operation(&self, name: &str) -> Operation {
        Operation {
            ok: self.0.with_label_values(&[name, "ok"]),
            error: self.0.with_label_values(&[name, "error"]),
        }
    }

    /// For the registry that shows it.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.0.clone())
    }
}

/// One operation of a server. A clone counts with the original.
#[derive(Clone)]
pub struct Operation {
    ok: Histogram,
    error: Histogram,
}

impl Operation {
    /// Waits for the answer and notes how long that took. A call that is dropped before it has an
    /// answer is not noted.
    pub async fn time<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let since = Instant::now();
        let answer = call.await;
        self.took(since, answer.is_ok());
        answer
    }

    /// Notes an answer that has just come.
    pub fn took(&self, since: Instant, is_ok: bool) {
        let outcome = if is_ok { &self.ok } else { &self.error };
        outcome.observe(since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn an_answer_is_counted_by_how_it_came_out_and_an_unfinished_call_is_not() {
        let trips = RoundTrips::new("trips_seconds", "Trips.").unwrap();
        let (read, same) = (trips.operation("read"), trips.operation("read"));
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = |answer: Option<Result<(), ()>>| {
            let call = pin!(read.time(async {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }));
            call.poll(&mut context)
        };
        assert_eq!(poll(Some(Ok(()))), Poll::Ready(Ok(())));
        assert_eq!(poll(Some(Err(()))), Poll::Ready(Err(())));
        assert_eq!(poll(None), Poll::Pending);
        same.took(Instant::now(), true);
        assert_eq!(
            (read.ok.get_sample_count(), read.error.get_sample_count()),
            (2, 1)
        );
    }
}
