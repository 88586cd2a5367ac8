//! What becomes of a claim: a call, or what is known of it already.

use std::{sync::Arc, time::Instant};

use herald_stages::{
    Context, Output,
    deliver::{Plan, Settled, plan, settle, withdrawn},
};
use herald_store::{Claimed, Outcome, Race};
use tracing::warn;

use super::{Done, InHand, Runner, call};
use crate::{
    cancel::OF_DELIVER,
    inbox::source,
    worker::{StageError, now, until_ok},
};

impl Runner {
    /// Starts the attempt, or says again how it ended.
    pub(super) fn claimed(&mut self, item: InHand, claimed: Claimed) -> Result<(), StageError> {
        if let Some((attempt, body)) = claimed.outcome
            && attempt >= item.attempt
        {
            match Settled::from_bytes(&body) {
                // An older record of a notification that is further on: nothing follows from it.
                _ if attempt > item.attempt => return self.not_sent(&item, &[]),
                Ok(settled) => {
                    let outputs = self.settle(&item, &settled);
                    return self.not_sent(&item, &outputs);
                }
                Err(error) => {
                    warn!(id = %item.delivery.identity.id, %error, "outcome unreadable; sending again")
                }
            }
        }
        if claimed.cancel_marked {
            self.end_race(item);
            return Ok(());
        }
        self.start(item)
    }

    /// Somebody wants to cancel what we want to send: it is withdrawn if that was agreed before.
    pub(super) fn end_race(&mut self, item: InHand) {
        let store = Arc::clone(&self.worker.store);
        self.work.push(Box::pin(async move {
            let identity = &item.delivery.identity;
            let race = Race {
                id: identity.id,
                recipient: identity.recipient.clone(),
                attempt: item.attempt,
                send_at: identity.send_at,
            };
            let ended = until_ok("end a race with a cancel", || {
                store.end_race(&race, OF_DELIVER)
            })
            .await;
            Done::RaceEnded(item, ended)
        }));
    }

    /// It is never sent.
    pub(super) fn withdraw(&mut self, item: &InHand) -> Result<(), StageError> {
        let outputs = withdrawn(&item.delivery, now());
        self.not_sent(item, &outputs)
    }

    /// Starts the attempt, unless it is too late for it.
    pub(super) fn start(&mut self, item: InHand) -> Result<(), StageError> {
        let planned = {
            let catalog = self.worker.catalogs.current();
            let context = Context {
                now: now(),
                seed: item.record.offset as u64,
                catalog: &catalog,
                settings: &self.worker.settings,
            };
            plan(&item.delivery, &source(&item.record), &context)
        };
        match planned {
            Plan::Send { .. } => {
                self.call(item);
                Ok(())
            }
            Plan::Settle(outputs) => self.not_sent(&item, &outputs),
        }
    }

    pub(super) fn call(&mut self, item: InHand) {
        self.gates.sending(item.delivery.identity.channel);
        let attempt = call::attempt(
            Arc::clone(&item.delivery),
            item.attempt,
            item.record.offset as u64,
            Arc::clone(&item.pass.providers),
            Arc::clone(&self.worker.metrics),
        );
        self.work.push(Box::pin(async move {
            let settled = attempt.await;
            Done::Attempted(item, settled)
        }));
    }

    pub(super) fn attempted(&mut self, item: &InHand, settled: &Settled) -> Result<(), StageError> {
        let channel = item.delivery.identity.channel;
        self.gates
            .used(channel, &item.pass, &settled.calls, Instant::now());
        let outcome = Outcome {
            id: item.delivery.identity.id,
            recipient: item.delivery.identity.recipient.clone(),
            attempt: item.attempt,
            body: settled.to_bytes(),
        };
        self.await_ack(item.ticket);
        self.outcomes.push((item.ticket, outcome));
        self.oldest_outcome.get_or_insert_with(Instant::now);
        let outputs = self.settle(item, settled);
        self.finished(item, &outputs)
    }

    pub(super) fn settle(&self, item: &InHand, settled: &Settled) -> Vec<Output> {
        settle(
            &item.delivery,
            settled,
            &source(&item.record),
            &self.worker.settings,
        )
    }

    /// Its leave to be sent goes to another one, and this follows.
    fn not_sent(&mut self, item: &InHand, outputs: &[Output]) -> Result<(), StageError> {
        self.give_back(item);
        self.finished(item, outputs)
    }

    pub(super) fn give_back(&mut self, item: &InHand) {
        let channel = item.delivery.identity.channel;
        self.gates.give_back(channel, &item.pass, Instant::now());
    }

    /// The attempt is over: the recipient is free, and this follows.
    pub(super) fn finished(&mut self, item: &InHand, outputs: &[Output]) -> Result<(), StageError> {
        self.attempts -= 1;
        self.queues
            .finish(&item.record.partition, &item.delivery.identity.recipient);
        self.follow(item.ticket, outputs)
    }
}
