//! Which lane is served next: high before normal before low, and each lower lane a share.

use herald_schemas::words::Priority;

/// After how many picks that passed it over a waiting lane gets its turn, by lane. High is never
/// passed over; under full load normal gets an eighth and low a thirty-second.
const PATIENCE: [u32; 3] = [0, 8, 32];

/// Chooses among the lanes of one channel.
#[derive(Debug, Default)]
pub(super) struct LanePicker {
    passed_over: [u32; 3],
}

impl LanePicker {
    /// The lane to serve, of those that have something `ready`.
    pub(super) fn pick(&mut self, ready: [bool; 3]) -> Option<Priority> {
        let overdue = |lane: &usize| ready[*lane] && self.passed_over[*lane] >= PATIENCE[*lane];
        // The lowest lane first: it waits longest, so its rare turn is not taken by normal's.
        let chosen = (1..3)
            .rev()
            .find(overdue)
            .or_else(|| (0..3).find(|lane| ready[*lane]))?;
        for (lane, passed_over) in self.passed_over.iter_mut().enumerate() {
            let is_passed_over = lane != chosen && ready[lane];
            *passed_over = if is_passed_over { *passed_over + 1 } else { 0 };
        }
        Some(Priority::ALL[chosen])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(ready: [bool; 3], picks: u32) -> [u32; 3] {
        let mut picker = LanePicker::default();
        let mut shares = [0; 3];
        for _ in 0..picks {
            if let Some(lane) = picker.pick(ready) {
                shares[lane.index()] += 1;
            }
        }
        shares
    }

    #[test]
    fn nothing_ready_picks_nothing() {
        assert_eq!(LanePicker::default().pick([false; 3]), None);
    }

    #[test]
    fn a_lane_that_is_alone_gets_everything() {
        assert_eq!(shares([false, false, true], 10), [0, 0, 10]);
    }

    #[test]
    fn high_goes_first_and_the_others_are_not_starved() {
        let [high, normal, low] = shares([true; 3], 1_000);
        assert!(high > 800, "{high}");
        assert!((90..=130).contains(&normal), "{normal}");
        assert!((25..=35).contains(&low), "{low}");
    }

    #[test]
    fn a_lane_that_had_nothing_waiting_saves_up_no_turns() {
        let mut picker = LanePicker::default();
        for _ in 0..100 {
            picker.pick([true, false, false]);
        }
        assert_eq!(picker.pick([true, true, true]), Some(Priority::High));
    }
}
