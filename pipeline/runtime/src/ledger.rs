//! The offset ledger: which records are in hand, and how far a partition may be committed.
//!
//! Records are taken in the order of their offsets and completed in any order. What may be
//! committed is the contiguous frontier: never past a record that is still in hand, so that a
//! crash at any moment makes every unfinished record come again.

use std::collections::{HashMap, VecDeque};

use herald_broker::{Offsets, Partition, Record};
use herald_schemas::ids::UnixMs;

/// Where to go on once all of these are done: without a ledger, by stages that finish a batch before
/// they take the next.
pub(crate) fn frontier(records: &[Record]) -> Offsets {
    // In order within each partition: the last one of each stands.
    records
        .iter()
        .map(|record| (Partition::clone(&record.partition), record.offset + 1))
        .collect()
}

/// The records in hand, by partition.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tracks: HashMap<Partition, Track>,
}

#[derive(Debug, Default)]
struct Track {
    /// In the order taken, which is the order of offsets.
    open: VecDeque<Open>,
    /// How many of `open` are not completed.
    unfinished: usize,
    /// Where to go on; none until the first contiguous completion.
    frontier: Option<i64>,
    /// Whether the frontier moved since it was last asked for.
    moved: bool,
}

#[derive(Debug)]
struct Open {
    offset: i64,
    /// Since when it waits.
    since: UnixMs,
    completed: bool,
}

impl Ledger {
    /// Notes that a record is now in hand. Offsets of a partition are taken in rising order; one
    /// that is not above the last one taken, as after a seek back, starts the partition anew.
    pub(crate) fn take(&mut self, partition: &Partition, offset: i64, since: UnixMs) {
        if !self.tracks.contains_key(partition) {
            self.tracks.insert(partition.clone(), Track::default());
        }
        let Some(track) = self.tracks.get_mut(partition) else {
            return;
        };
        if track.open.back().is_some_and(|last| offset <= last.offset) {
            *track = Track::default();
        }
        track.open.push_back(Open {
            offset,
            since,
            completed: false,
        });
        track.unfinished += 1;
    }

    /// Notes that a record is done. One that is not in hand, as after its partition was forgotten,
    /// changes nothing.
    pub(crate) fn complete(&mut self, partition: &Partition, offset: i64) {
        let Some(track) = self.tracks.get_mut(partition) else {
            return;
        };
        let Ok(index) = track.open.binary_search_by_key(&offset, |open| open.offset) else {
            return;
        };
        if std::mem::replace(&mut track.open[index].completed, true) {
            return;
        }
        track.unfinished -= 1;
        while let Some(done) = track.open.pop_front_if(|first| first.completed) {
            track.frontier = Some(done.offset + 1);
            track.moved = true;
        }
    }

    /// The frontiers that moved since this was last called.
    pub(crate) fn frontier(&mut self) -> Offsets {
        let mut offsets = Offsets::new();
        for (partition, track) in &mut self.tracks {
            if let (true, Some(frontier)) = (std::mem::take(&mut track.moved), track.frontier) {
                offsets.insert(partition.clone(), frontier);
            }
        }
        offsets
    }

    /// How many records are in hand and not done.
    pub(crate) fn unfinished_in_all(&self) -> usize {
        self.tracks.values().map(|track| track.unfinished).sum()
    }

    /// Since when the oldest record in hand waits: one of those that hold a frontier up.
    pub(crate) fn oldest(&self) -> Option<UnixMs> {
        let first = self.tracks.values().filter_map(|track| track.open.front());
        first.map(|open| open.since).min()
    }

    /// Forgets partitions that are another member's now.
    pub(crate) fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.tracks.remove(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(index: i32) -> Partition {
        Partition::new("t", index)
    }

    #[test]
    fn the_frontier_stops_at_a_gap_and_jumps_when_it_closes() {
        let mut ledger = Ledger::default();
        for offset in [10, 11, 15] {
            ledger.take(&p(0), offset, 0);
        }
        ledger.complete(&p(0), 11);
        ledger.complete(&p(0), 15);
        assert!(ledger.frontier().is_empty());
        ledger.complete(&p(0), 10);
        assert_eq!(ledger.frontier(), Offsets::from([(p(0), 16)]));
        assert!(ledger.frontier().is_empty(), "a frontier is told once");
        assert_eq!(ledger.unfinished_in_all(), 0);
    }

    #[test]
    fn completing_what_was_forgotten_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.take(&p(0), 1, 0);
        ledger.forget(&[p(0)]);
        ledger.complete(&p(0), 1);
        assert!(ledger.frontier().is_empty());
        ledger.take(&p(0), 1, 0);
        assert_eq!(ledger.unfinished_in_all(), 1);
    }

    #[test]
    fn what_waits_longest_is_the_oldest_of_the_first_in_hand_of_each_partition() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.oldest(), None);
        for (partition, offset, since) in [(0, 1, 500), (0, 2, 700), (1, 9, 600)] {
            ledger.take(&p(partition), offset, since);
        }
        ledger.complete(&p(0), 2);
        assert_eq!(ledger.oldest(), Some(500));
        ledger.complete(&p(0), 1);
        assert_eq!(ledger.oldest(), Some(600));
        ledger.forget(&[p(1)]);
        assert_eq!(ledger.oldest(), None);
    }

    #[test]
    fn a_seek_back_starts_the_partition_anew() {
        let mut ledger = Ledger::default();
        ledger.take(&p(0), 1, 0);
        ledger.take(&p(0), 2, 0);
        ledger.take(&p(0), 1, 0);
        ledger.complete(&p(0), 1);
        assert_eq!(ledger.frontier(), Offsets::from([(p(0), 2)]));
    }

    /// Takes and completions of three partitions in any interleaving.
    fn histories() -> impl Strategy<Value = (Vec<Vec<i64>>, Vec<(usize, usize)>)> {
        let gaps = prop::collection::vec(prop::collection::vec(1_i64..4, 0..40), 3);
        gaps.prop_flat_map(|gaps| {
            let offsets: Vec<Vec<i64>> = gaps
                .iter()
                .map(|gaps| {
                    gaps.iter()
                        .scan(0, |at, gap| {
                            *at += gap;
                            Some(*at)
                        })
                        .collect()
                })
                .collect();
            let all: Vec<(usize, usize)> = offsets
                .iter()
                .enumerate()
                .flat_map(|(partition, offsets)| (0..offsets.len()).map(move |i| (partition, i)))
                .collect();
            (Just(offsets), Just(all).prop_shuffle())
        })
    }

    proptest! {
        #[test]
        fn never_past_a_gap_and_always_to_the_end((offsets, order) in histories(), lead in 1_usize..20) {
            let mut ledger = Ledger::default();
            let mut taken = [0_usize; 3];
            let mut done: Vec<Vec<bool>> = offsets.iter().map(|o| vec![false; o.len()]).collect();
            let mut committed = [i64::MIN; 3];
            for (partition, index) in order {
                // A record is taken before it is completed, and so are some of those behind it.
                while taken[partition] < (index + lead).min(offsets[partition].len()) {
                    ledger.take(&p(partition as i32), offsets[partition][taken[partition]], 0);
                    taken[partition] += 1;
                }
                ledger.complete(&p(partition as i32), offsets[partition][index]);
                done[partition][index] = true;
                for (at, frontier) in ledger.frontier() {
                    let at = at.index as usize;
                    prop_assert!(frontier > committed[at], "a frontier never goes back");
                    committed[at] = frontier;
                    for (offset, done) in offsets[at].iter().zip(&done[at]) {
                        prop_assert!(*offset >= frontier || *done, "{offset} passed unfinished");
                    }
                }
            }
            prop_assert_eq!(ledger.unfinished_in_all(), 0);
            for (at, offsets) in offsets.iter().enumerate() {
                if let Some(last) = offsets.last() {
                    prop_assert_eq!(committed[at], last + 1, "the end is reached");
                }
            }
        }
    }
}
