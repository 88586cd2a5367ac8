//! What leaves the runner: what follows from deliveries to the log, claims and outcomes to the store.

use std::{sync::Arc, time::Duration};

use herald_broker::Acks;
use herald_stages::Output;
use herald_store::Claim;

use super::{CLAIMS_AT_ONCE, Done, InHand, Runner, Ticket, Work};
use crate::worker::{StageError, until_ok};

/// How long an outcome may wait for claims to go with.
pub(super) const OUTCOME_PATIENCE: Duration = Duration::from_millis(50);
/// How many batches of what follows may be on their way to the broker. Few, so that more gather
/// in each.
const BATCHES_IN_FLIGHT: usize = 2;

impl Runner {
    pub(super) fn follow(&mut self, ticket: Ticket, outputs: &[Output]) -> Result<(), StageError> {
        self.await_ack(ticket);
        if outputs.is_empty() {
            self.acked(ticket);
            return Ok(());
        }
        self.outgoing.extend(self.worker.outbox.encode(outputs)?);
        self.outgoing_of.push(ticket);
        self.outgoing_is.add(outputs);
        Ok(())
    }

    pub(super) fn await_ack(&mut self, ticket: Ticket) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.awaits += 1;
        }
    }

    pub(super) fn acked(&mut self, ticket: Ticket) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.awaits -= 1;
            if open.awaits == 0 {
                self.ledger.complete(&open.partition, open.offset);
                self.open.remove(&ticket);
            }
        }
    }

    /// Sends off what has gathered. `all`: outcomes too that could wait for claims to go with.
    pub(super) fn dispatch(&mut self, all: bool) {
        if !self.outgoing.is_empty() && self.batches < BATCHES_IN_FLIGHT {
            self.batches += 1;
            let work = self.produce();
            self.work.push(work);
        }
        let due = all
            || self.outcomes.len() >= CLAIMS_AT_ONCE
            || self
                .oldest_outcome
                .is_some_and(|oldest| oldest.elapsed() >= OUTCOME_PATIENCE);
        let something = !self.picked.is_empty() || (due && !self.outcomes.is_empty());
        if !self.store_busy && something {
            self.store_busy = true;
            self.oldest_outcome = None;
            let work = self.store_turn();
            self.work.push(work);
        }
    }

    fn produce(&mut self) -> Work {
        let records = std::mem::take(&mut self.outgoing);
        let tickets = std::mem::take(&mut self.outgoing_of);
        let written = std::mem::take(&mut self.outgoing_is);
        let outbox = Arc::clone(&self.worker.outbox);
        Box::pin(async move {
            until_ok("produce what follows from deliveries", || async {
                let acks: Acks = outbox.enqueue(records.clone()).await?;
                acks.await.map(drop)
            })
            .await;
            Done::Acked(tickets, written)
        })
    }

    fn store_turn(&mut self) -> Work {
        let picked = std::mem::take(&mut self.picked);
        let (stored, outcomes): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.outcomes).into_iter().unzip();
        let store = Arc::clone(&self.worker.store);
        let name = Arc::clone(&self.worker.name);
        Box::pin(async move {
            let claim = |item: &InHand| Claim {
                id: item.delivery.identity.id,
                recipient: item.delivery.identity.recipient.clone(),
                attempt: item.attempt,
                worker: name.to_string(),
            };
            let claims: Vec<Claim> = picked.iter().map(claim).collect();
            let claimed = until_ok("claim deliveries", || store.claim(&claims, &outcomes)).await;
            Done::StoreTurn {
                claimed: picked.into_iter().zip(claimed).collect(),
                stored,
            }
        })
    }
}
