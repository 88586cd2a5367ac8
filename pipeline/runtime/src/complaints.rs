//! What an operator has to hear of without asking, however often it happens: said at once, then
//! counted, and said again with the number now and then.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

/// How often the same is said.
const EVERY: Duration = Duration::from_secs(10);

/// What goes wrong of one kind, by whom it goes wrong with.
pub(crate) struct Complaints {
    what: &'static str,
    told: Mutex<HashMap<String, Told>>,
}

struct Told {
    at: Instant,
    /// How often since.
    since: u64,
}

impl Complaints {
    /// Complaints of this kind, such as `calls to a provider fail`.
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            told: Mutex::default(),
        }
    }

    /// One more, with the reason of this one. `with` is one of few.
    pub(crate) fn note(&self, with: &str, reason: &str) {
        if let Some(times) = self.times(with, Instant::now()) {
            // Quoted: it may be what a stranger sent.
            warn!(with, times, reason = ?reason, "{}", self.what);
        }
    }

    /// How often it was since it was said, if it is to be said now.
    fn times(&self, with: &str, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(with) {
            Some(told) if now.saturating_duration_since(told.at) < EVERY => {
                told.since += 1;
                None
            }
            Some(told) => {
                let times = told.since + 1;
                *told = Told { at: now, since: 0 };
                Some(times)
            }
            None => {
                told.insert(with.to_owned(), Told { at: now, since: 0 });
                Some(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_others_by_their_number() {
        let complaints = Complaints::new("things fail");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(complaints.times("a", at(0)), Some(1));
        assert_eq!(complaints.times("a", at(1)), None);
        assert_eq!(complaints.times("a", at(9)), None);
        assert_eq!(complaints.times("b", at(9)), Some(1));
        assert_eq!(complaints.times("a", at(10)), Some(3));
        assert_eq!(complaints.times("a", at(40)), Some(1));
    }
}
