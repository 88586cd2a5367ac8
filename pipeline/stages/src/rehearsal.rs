//! What would follow from an event: match and render, asked as the stages are, with nothing written.

use std::collections::HashMap;

use herald_schemas::{
    ids::{NotificationId, RuleId},
    records::{DeliveryReady, Event, EventMatched, Failure, NotificationRequested},
};

use crate::{Context, Output, Source, Verdict, matching, render};

/// What would follow from an event.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// One entry for each rule of the event, as many as match tells about.
    pub rules: Vec<Rehearsed>,
    /// How many more there are.
    pub omitted: i32,
    /// Why no rule was asked at all.
    pub error: Option<Failure>,
}

/// What would follow from a rule.
#[derive(Debug)]
pub struct Rehearsed {
    /// The rule.
    pub rule_id: RuleId,
    /// Its name.
    pub rule: String,
    /// What it comes to.
    pub outcome: Outcome,
}

/// What a rule comes to.
#[derive(Debug)]
pub enum Outcome {
    /// It does not match: why.
    Silent(String),
    /// It matches, and this would be sent.
    Sends(Box<DeliveryReady>),
    /// It matches, and what it asks for would be a dead letter.
    Fails(Failure),
}

/// Asks match and render about an event that is not there.
pub fn rehearse(event: Event, context: &Context<'_>) -> Rehearsal {
    let source = Source {
        topic: "rehearsal",
        partition: 0,
        offset: 0,
        timestamp: context.now,
        key: None,
        value: &[],
        headers: Vec::new(),
    };
    let (mut outcomes, mut said) = (HashMap::new(), None);
    for output in outputs(matching::process(event, &source, context)) {
        match output {
            Output::Request(request) => outcomes.extend(rendered(request, &source, context)),
            Output::Matched(matched) => said = Some(matched),
            _ => {}
        }
    }
    said.map_or_else(Rehearsal::default, |said| Rehearsal::of(said, outcomes))
}

fn outputs(verdict: Verdict) -> Vec<Output> {
    match verdict {
        Verdict::Emit(outputs) | Verdict::DeadLetter(outputs) => outputs,
        Verdict::Drop(_) | Verdict::Defer(_) => Vec::new(),
    }
}

/// What render makes of a request.
fn rendered(
    request: NotificationRequested,
    source: &Source<'_>,
    context: &Context<'_>,
) -> Option<(NotificationId, Outcome)> {
    let id = request.id.as_deref()?.parse().ok()?;
    let outputs = outputs(render::process(request, source, context));
    let outcome = outputs.into_iter().find_map(|output| match output {
        Output::Deliver(delivery) => Some(Outcome::Sends(Box::new(delivery))),
        Output::DeadLetter(letter) => Some(Outcome::Fails(letter.error)),
        _ => None,
    });
    Some((id, outcome?))
}

impl Rehearsal {
    fn of(said: EventMatched, mut outcomes: HashMap<NotificationId, Outcome>) -> Self {
        let rules = said.rules.into_iter().map(|said| {
            let outcome = said.notification_id.and_then(|id| outcomes.remove(&id));
            Rehearsed {
                rule_id: said.rule_id,
                rule: said.rule,
                outcome: outcome
                    .unwrap_or_else(|| Outcome::Silent(said.reason.unwrap_or_default())),
            }
        });
        Self {
            rules: rules.collect(),
            omitted: said.omitted,
            error: said.error,
        }
    }
}
