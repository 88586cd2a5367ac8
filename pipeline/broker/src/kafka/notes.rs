//! What a member of a group has noted to commit, between its two halves.

use std::collections::HashMap;

use crate::{Offsets, Partition};

/// The offsets of one assignment. Another assignment has other notes: what belongs to partitions
/// that have been elsewhere meanwhile must not be committed over what was done there.
#[derive(Default)]
pub(super) struct Notes {
    /// Counts assignments.
    assignment: u64,
    offsets: HashMap<Partition, Note>,
    /// How many are not sent.
    unsent: usize,
}

#[derive(Default)]
struct Note {
    next: Option<i64>,
    sent: bool,
}

impl Notes {
    /// Starts over with these partitions; returns the number of the assignment.
    pub(super) fn begin<'a>(&mut self, partitions: impl Iterator<Item = &'a Partition>) -> u64 {
        self.assignment += 1;
        self.unsent = 0;
        self.offsets = partitions
            .map(|partition| (partition.clone(), Note::default()))
            .collect();
        self.assignment
    }

    /// Nothing is owned any more.
    pub(super) fn end(&mut self) {
        self.begin(std::iter::empty());
    }

    /// Notes what is done, where it is further than what was.
    pub(super) fn note(&mut self, assignment: u64, frontier: &Offsets) {
        if assignment != self.assignment {
            return;
        }
        for (partition, next) in frontier {
            let Some(note) = self.offsets.get_mut(partition) else {
                continue;
            };
            if note.next.is_none_or(|noted| noted < *next) {
                if note.next.is_none() || note.sent {
                    self.unsent += 1;
                }
                note.next = Some(*next);
                note.sent = false;
            }
        }
    }

    /// What is to be sent; counts as sent from now on.
    pub(super) fn take(&mut self) -> Vec<(Partition, i64)> {
        if self.unsent == 0 {
            return Vec::new();
        }
        self.unsent = 0;
        let unsent = self.offsets.iter_mut().filter(|(_, note)| !note.sent);
        unsent
            .filter_map(|(partition, note)| {
                let next = note.next?;
                note.sent = true;
                Some((partition.clone(), next))
            })
            .collect()
    }

    /// These did not arrive, so they are to be sent again.
    pub(super) fn failed(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(note) = self.offsets.get_mut(partition)
                && note.sent
            {
                note.sent = false;
                self.unsent += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(offset: i64) -> Offsets {
        Offsets::from([(Partition::new("t", 0), offset)])
    }

    fn begun() -> (Notes, u64) {
        let mut notes = Notes::default();
        let assignment = notes.begin([Partition::new("t", 0)].iter());
        (notes, assignment)
    }

    #[test]
    fn each_offset_is_sent_once_and_never_backwards() {
        let (mut notes, assignment) = begun();
        assert!(notes.take().is_empty());
        notes.note(assignment, &frontier(5));
        notes.note(assignment, &frontier(7));
        notes.note(assignment, &frontier(6));
        assert_eq!(notes.take(), [(Partition::new("t", 0), 7)]);
        notes.note(assignment, &frontier(7));
        notes.note(assignment, &frontier(3));
        assert!(notes.take().is_empty());
    }

    #[test]
    fn what_failed_is_sent_again() {
        let (mut notes, assignment) = begun();
        notes.note(assignment, &frontier(5));
        notes.take();
        notes.failed(&[Partition::new("t", 0), Partition::new("t", 1)]);
        notes.note(assignment, &frontier(6));
        assert_eq!(notes.take(), [(Partition::new("t", 0), 6)]);
        assert!(notes.take().is_empty());
    }

    #[test]
    fn only_the_assignment_that_holds_is_noted() {
        let (mut notes, first) = begun();
        notes.note(first, &Offsets::from([(Partition::new("other", 0), 1)]));
        notes.note(first, &frontier(5));
        let second = notes.begin([Partition::new("t", 0)].iter());
        notes.note(first, &frontier(9));
        assert!(notes.take().is_empty());
        notes.note(second, &frontier(1));
        assert_eq!(notes.take(), [(Partition::new("t", 0), 1)]);
        notes.end();
        notes.note(second, &frontier(2));
        assert!(notes.take().is_empty());
    }
}
