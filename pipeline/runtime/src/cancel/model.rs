//! Every order of the steps of two that cancel and of a chain of two attempts that may crash and
//! come again: small enough to try them all. The decisions are the real ones; the store is its seam
//! in memory, where a write and the read after it are two steps.

use std::collections::HashSet;

use herald_schemas::records::{Attempt, Failure};
use herald_stages::retry::{Backoff, Ladder, Policy, Tier};

use super::*;

/// How the calls of the two attempts go: the first one's reply, then the second one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reply {
    Accepted,
    Transient,
    Permanent,
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    replies: [Reply; 2],
    /// Whether each cancels what is retrying, too.
    retrying: [bool; 2],
    /// Whether the first outcome is stored whenever it comes, the next attempt not waiting for it.
    outcome_late: bool,
    crashes: u8,
    rules: Rules,
}

/// What the model may be asked about besides what is built.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Whether who sees no claim proposes anything before it promises.
    free_proposes: bool,
    of_deliver: RaceEnd,
}

const BUILT: Rules = Rules {
    free_proposes: true,
    of_deliver: OF_DELIVER,
};

/// Of one that cancels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Canceller {
    Starts,
    Marked,
    Read(Stands),
    /// Its mark is still there.
    Lost(Status),
    Over(Cancelled),
}

/// Of deliver, between two steps; the attempts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Deliver {
    Record(usize),
    Claimed(usize),
    Contested(usize),
    Calls(usize),
    Called(usize),
    Over(Status),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    marks: [bool; 2],
    claims: [bool; 2],
    outcomes: [bool; 2],
    /// By attempt, whether it was withdrawn.
    races: [Option<bool>; 2],
    cancellers: [Canceller; 2],
    /// Whether somebody had been promised something when each began.
    promised_before: [bool; 2],
    deliver: Deliver,
    /// The first attempt's outcome is still to be stored.
    outcome_waits: bool,
    arrived: bool,
    called_though_promised: bool,
    crashes: u8,
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        Self {
            marks: [false; 2],
            claims: [false; 2],
            outcomes: [false; 2],
            races: [None; 2],
            cancellers: [Canceller::Starts; 2],
            promised_before: [false; 2],
            deliver: Deliver::Record(0),
            outcome_waits: false,
            arrived: false,
            called_though_promised: false,
            crashes: scenario.crashes,
        }
    }

    fn is_promised(&self) -> bool {
        let promised = Canceller::Over(Cancelled::Yes);
        self.cancellers.contains(&promised)
    }

    fn end_race(&mut self, attempt: usize, proposal: RaceEnd) -> RaceEnd {
        let withdrawn = self.races[attempt].get_or_insert(proposal == RaceEnd::Cancelled);
        match withdrawn {
            true => RaceEnd::Cancelled,
            false => RaceEnd::Sent,
        }
    }

    /// What a mark learns, as the store says it.
    fn standing(&self, scenario: &Scenario) -> Standing {
        let newest = |of: &[bool; 2]| of.iter().rposition(|there| *there);
        let outcome = newest(&self.outcomes).map(|attempt| {
            let settled = settled(attempt, scenario.replies[attempt]);
            (attempt as i32 + 1, settled.to_bytes())
        });
        Standing {
            claimed: newest(&self.claims).map(|attempt| attempt as i32 + 1),
            outcome,
        }
    }

    /// What may happen next; nothing where everybody is done.
    fn next(&self, scenario: &Scenario, settings: &Settings) -> Vec<Self> {
        let mut worlds = Vec::new();
        for who in 0..2 {
            worlds.extend(self.canceller(who, scenario, settings));
        }
        worlds.extend(self.deliver(scenario));
        if self.outcome_waits {
            let mut world = self.clone();
            world.outcome_waits = false;
            world.outcomes[0] = true;
            worlds.push(world);
        }
        let is_over = matches!(self.deliver, Deliver::Over(_)) && !self.outcome_waits;
        if self.crashes > 0 && !is_over {
            // All that was not committed comes again.
            let mut world = self.clone();
            world.crashes -= 1;
            world.outcome_waits = false;
            world.deliver = Deliver::Record(0);
            worlds.push(world);
        }
        worlds
    }

    fn canceller(&self, who: usize, scenario: &Scenario, settings: &Settings) -> Option<Self> {
        let mut world = self.clone();
        let all = [Status::Pending, Status::Scheduled, Status::Retrying];
        let from = match scenario.retrying[who] {
            true => &all[..],
            false => &all[..2],
        };
        world.cancellers[who] = match self.cancellers[who] {
            Canceller::Starts => {
                world.marks[who] = true;
                world.promised_before[who] = self.is_promised();
                Canceller::Marked
            }
            Canceller::Marked => Canceller::Read(stands(&self.standing(scenario), settings)),
            Canceller::Read(stands) => {
                let answer = match next(stands, from) {
                    Next::Answer(answer) => answer,
                    Next::Propose(_, RaceEnd::Cancelled) if !scenario.rules.free_proposes => {
                        Cancelled::Yes
                    }
                    Next::Propose(attempt, proposal) => {
                        answer(world.end_race(attempt as usize - 1, proposal))
                    }
                };
                match answer {
                    Cancelled::Yes => Canceller::Over(answer),
                    Cancelled::No(status) => Canceller::Lost(status),
                }
            }
            Canceller::Lost(status) => {
                world.marks[who] = false;
                Canceller::Over(Cancelled::No(status))
            }
            Canceller::Over(_) => return None,
        };
        Some(world)
    }

    fn deliver(&self, scenario: &Scenario) -> Option<Self> {
        let mut world = self.clone();
        world.deliver = match self.deliver {
            Deliver::Record(attempt) => {
                world.claims[attempt] = true;
                Deliver::Claimed(attempt)
            }
            Deliver::Claimed(attempt) if self.outcomes[attempt] => {
                after(attempt, scenario.replies[attempt])
            }
            // An older record: the newer one comes again, too.
            Deliver::Claimed(attempt) if self.outcomes[1] => Deliver::Record(attempt + 1),
            Deliver::Claimed(attempt) if self.marks != [false; 2] => Deliver::Contested(attempt),
            Deliver::Claimed(attempt) => Deliver::Calls(attempt),
            Deliver::Contested(attempt) => {
                match world.end_race(attempt, scenario.rules.of_deliver) {
                    RaceEnd::Cancelled => Deliver::Over(Status::Cancelled),
                    RaceEnd::Sent => Deliver::Calls(attempt),
                }
            }
            Deliver::Calls(attempt) => {
                world.called_though_promised |= self.is_promised();
                world.arrived |= scenario.replies[attempt] == Reply::Accepted;
                Deliver::Called(attempt)
            }
            Deliver::Called(attempt) => {
                let next = after(attempt, scenario.replies[attempt]);
                match next {
                    Deliver::Record(_) if scenario.outcome_late => world.outcome_waits = true,
                    _ => world.outcomes[attempt] = true,
                }
                next
            }
            Deliver::Over(_) => return None,
        };
        Some(world)
    }

    /// What is wrong; whoever is not done yet may as well be dead.
    fn wrong(&self, scenario: &Scenario) -> Option<&'static str> {
        if self.called_though_promised {
            return Some("called after it was said that it never is");
        }
        if self.is_promised() && self.arrived {
            return Some("arrived though it was said that it never does");
        }
        for who in 0..2 {
            let refused = match self.cancellers[who] {
                Canceller::Over(Cancelled::No(status)) => Some(status),
                _ => None,
            };
            // A single cancel does not take what is retrying, whatever another one did.
            let may = refused == Some(Status::Retrying) && !scenario.retrying[who];
            if refused.is_some() && self.promised_before[who] && !may {
                return Some("refused after another one was promised it");
            }
        }
        let Deliver::Over(end) = self.deliver else {
            return None;
        };
        if end == Status::Cancelled && self.arrived {
            return Some("arrived and is reported as cancelled");
        }
        if self.is_promised() && end != Status::Cancelled {
            return Some("promised and not reported as cancelled");
        }
        let all_refused = self
            .cancellers
            .iter()
            .all(|canceller| matches!(canceller, Canceller::Over(Cancelled::No(_))));
        if all_refused && end == Status::Cancelled {
            return Some("all were refused, and it neither arrived nor failed");
        }
        None
    }
}

/// Where deliver is after an attempt that ended so.
fn after(attempt: usize, reply: Reply) -> Deliver {
    match reply {
        Reply::Accepted => Deliver::Over(Status::Sent),
        Reply::Transient if attempt == 0 => Deliver::Record(1),
        _ => Deliver::Over(Status::Failed),
    }
}

fn settled(attempt: usize, reply: Reply) -> Settled {
    let number = attempt as i32 + 1;
    let error = |kind: &str| Failure {
        kind: kind.to_owned(),
        code: "http_500".to_owned(),
        message: "no".to_owned(),
    };
    Settled {
        attempt: number,
        at: 0,
        seed: 0,
        calls: vec![Attempt {
            number,
            step: 0,
            provider: "p".to_owned(),
            started_at: 0,
            latency_ms: 0,
            error: match reply {
                Reply::Accepted => None,
                Reply::Transient => Some(error("transient")),
                Reply::Permanent => Some(error("permanent")),
            },
            response: None,
        }],
        provider_message_id: None,
        accepted: reply == Reply::Accepted,
        retry_after_ms: None,
    }
}

fn two_attempts() -> Settings {
    let tier = Tier {
        name: "1s".to_owned(),
        delay: std::time::Duration::from_secs(1),
    };
    let ladder = Ladder::new(vec![tier]).unwrap();
    Settings {
        retry: Policy::new(ladder, Backoff::Ladder, 2),
        ..Settings::default()
    }
}

fn scenarios(rules: Rules, crashes: u8) -> Vec<Scenario> {
    use Reply::{Accepted, Permanent, Transient};
    let mut scenarios = Vec::new();
    for replies in [
        [Accepted, Accepted],
        [Permanent, Accepted],
        [Transient, Accepted],
        [Transient, Permanent],
        [Transient, Transient],
    ] {
        for retrying in [[false; 2], [true; 2], [true, false]] {
            for outcome_late in [false, true] {
                scenarios.push(Scenario {
                    replies,
                    retrying,
                    outcome_late,
                    crashes,
                    rules,
                });
            }
        }
    }
    scenarios
}

/// How many states there are, and the way to each kind of wrong.
fn explore(scenario: &Scenario) -> (usize, Vec<(&'static str, Vec<World>)>) {
    let settings = two_attempts();
    let first = World::new(scenario);
    let mut seen = HashSet::from([first.clone()]);
    let mut open = vec![vec![first]];
    let mut wrong: Vec<(&str, Vec<World>)> = Vec::new();
    while let Some(way) = open.pop() {
        let Some(here) = way.last() else { continue };
        if let Some(what) = here.wrong(scenario) {
            if wrong.iter().all(|(known, _)| *known != what) {
                wrong.push((what, way));
            }
            continue;
        }
        for next in here.next(scenario, &settings) {
            if seen.insert(next.clone()) {
                open.push([way.as_slice(), &[next]].concat());
            }
        }
    }
    (seen.len(), wrong)
}

#[test]
fn in_no_order_of_the_steps_is_a_promise_broken() {
    let mut states = 0;
    for scenario in scenarios(BUILT, 2) {
        let (seen, wrong) = explore(&scenario);
        for (what, way) in &wrong {
            println!("{what}: {scenario:?}");
            way.iter().for_each(|world| println!("  {world:?}"));
        }
        assert!(wrong.is_empty());
        states += seen;
    }
    println!("{states} states");
    assert!(states > 50_000, "only {states} states");
}

/// A model that finds nothing anywhere proves nothing: this is what it says of marks that withdraw
/// by themselves, where a conditional write is made only by those who see each other.
#[test]
fn a_mark_that_withdraws_by_itself_breaks_promises() {
    let rules = Rules {
        free_proposes: false,
        of_deliver: RaceEnd::Cancelled,
    };
    let mut found = HashSet::new();
    for scenario in scenarios(rules, 1) {
        let (_, wrong) = explore(&scenario);
        found.extend(wrong.into_iter().map(|(what, _)| what));
    }
    for what in [
        "called after it was said that it never is",
        "arrived and is reported as cancelled",
        "all were refused, and it neither arrived nor failed",
    ] {
        assert!(found.contains(what), "{found:?}");
    }
}
