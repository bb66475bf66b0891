//! Writes results in batches. Results that arrive while a batch is being written go into the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postrider_transport::Transport;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::outage;
use super::shared::Shared;
use crate::observe::Event;
use crate::state::RecipientState;
use crate::store::{Next, Settled, Settlement, Store, StoreError};

/// The largest number of results in one transaction.
const BATCH: usize = super::producer::MAX_CLAIM;

/// A settlement, with the data for its event.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) settlement: Settlement,
    /// [`Lease::attempts`](crate::store::Lease::attempts) when the call was made.
    pub(super) attempts: u32,
    /// [`Lease::charged_attempts`](crate::store::Lease::charged_attempts) when the call was made.
    pub(super) charged_attempts: u32,
    pub(super) template_id: Option<String>,
    /// Held until the result is written, so that a crash leaves at most `concurrency` messages in doubt.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Settles results until the channel is closed. If the database does not answer, it retries for `retry_limit` after the first failure.
pub(super) async fn complete<S: Store, T: Transport>(
    shared: Arc<Shared<S, T>>,
    mut completions: mpsc::UnboundedReceiver<Completion>,
    retry_limit: Duration,
) -> Result<(), StoreError> {
    let mut received = Vec::with_capacity(BATCH);
    let mut batch = Batch::default();
    let mut outcome = Ok(());
    while receive(&mut completions, &mut received).await > 0 {
        shared.settling.store(true, Ordering::SeqCst);
        received.drain(..).for_each(|done| batch.add(&shared, done));
        let settled = settle_batch(&shared, &batch, retry_limit).await;
        if let Err(error) = settled {
            // The leases expire, and the next claim records a lost attempt for each.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                count = batch.settlements.len(),
                "results could not be written; their attempts will be recorded as lost"
            );
            outcome = Err(error);
        }
        shared.in_flight.remove(batch.settlements.iter().map(|settlement| settlement.key));
        batch.clear();
        shared.settling.store(false, Ordering::SeqCst);
        shared.permit_freed.notify_one();
    }
    outcome
}

/// Waits for results and returns their number. 0 means that the channel is closed.
async fn receive(completions: &mut mpsc::UnboundedReceiver<Completion>, received: &mut Vec<Completion>) -> usize {
    if completions.recv_many(received, BATCH).await == 0 {
        return 0;
    }
    // Calls that are about to finish join this batch.
    tokio::task::yield_now().await;
    while received.len() < BATCH {
        let Ok(done) = completions.try_recv() else { break };
        received.push(done);
    }
    received.len()
}

/// Results that are written in one transaction.
#[derive(Default)]
struct Batch {
    settlements: Vec<Settlement>,
    template_ids: Vec<Option<String>>,
    permits: Option<OwnedSemaphorePermit>,
}

impl Batch {
    fn add<S: Store, T: Transport>(&mut self, shared: &Shared<S, T>, mut done: Completion) {
        shared.in_flight.begin_settling(&mut done.settlement, done.attempts, done.charged_attempts);
        self.settlements.push(done.settlement);
        self.template_ids.push(done.template_id);
        match &mut self.permits {
            Some(permits) => permits.merge(done.permit),
            None => self.permits = Some(done.permit),
        }
    }

    fn clear(&mut self) {
        self.settlements.clear();
        self.template_ids.clear();
        self.permits = None;
    }

    fn announce<S: Store, T: Transport>(&self, shared: &Shared<S, T>, first: usize, results: Vec<Settled>) {
        let settlements = self.settlements[first..].iter().zip(&self.template_ids[first..]);
        for ((settlement, template_id), result) in settlements.zip(results) {
            announce(shared, settlement, template_id.as_deref(), result);
        }
    }
}

async fn settle_batch<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    batch: &Batch,
    retry_limit: Duration,
) -> Result<(), StoreError> {
    let settlements = &batch.settlements;
    match settle_with_retries(shared, settlements, retry_limit).await {
        Ok(results) => {
            batch.announce(shared, 0, results);
            Ok(())
        }
        Err(error) if error.kind().is_transient() || settlements.len() == 1 => Err(error),
        // The database refused a result. Write each by itself, so that the others are not lost.
        Err(_) => {
            let mut outcome = Ok(());
            for (place, settlement) in settlements.iter().enumerate() {
                match settle_with_retries(shared, std::slice::from_ref(settlement), retry_limit).await {
                    Ok(results) => batch.announce(shared, place, results),
                    Err(error) => outcome = Err(error),
                }
            }
            outcome
        }
    }
}

async fn settle_with_retries<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    settlements: &[Settlement],
    retry_limit: Duration,
) -> Result<Vec<Settled>, StoreError> {
    let mut failures = 0;
    let started = Instant::now();
    loop {
        match shared.call_store(|| shared.store.settle(settlements)).await {
            Ok(results) => {
                shared.unsettled.store(false, Ordering::SeqCst);
                return Ok(results);
            }
            Err(error) if error.kind().is_transient() && started.elapsed() < retry_limit => {
                shared.unsettled.store(true, Ordering::SeqCst);
                shared.store_failed(&error);
                failures += 1;
                tokio::time::sleep(outage::wait(failures, shared.random())).await;
            }
            Err(error) => {
                shared.unsettled.store(false, Ordering::SeqCst);
                return Err(error);
            }
        }
    }
}

fn announce<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    settlement: &Settlement,
    template_id: Option<&str>,
    result: Settled,
) {
    let id = settlement.key.id;
    if result == Settled::LeaseLost {
        tracing::warn!(%id, "the lease was lost while the message was being sent; it may be sent twice");
        shared.count(|summary| summary.lease_lost += 1);
        shared.emit(&Event::LeaseLost { id });
        return;
    }
    match &settlement.next {
        Next::Sent => {
            let without = |state| state != RecipientState::Sent;
            let refused = settlement.recipients.iter().filter(|r| without(r.state)).count();
            tracing::debug!(%id, refused, "sent");
            shared.count(|summary| summary.sent += 1);
            shared.emit(&Event::Sent { id, refused });
        }
        Next::Pending { after } => {
            let charged = settlement.attempt.as_ref().is_some_and(|attempt| attempt.charged);
            let error = settlement.attempt.as_ref().and_then(|attempt| attempt.error.as_deref());
            let after_s = after.as_secs_f64();
            if settlement.attempt.is_some() {
                tracing::info!(%id, after_s, charged, error, "retry scheduled");
            } else {
                tracing::debug!(%id, after_s, "released without a call");
            }
            shared.count(|summary| if charged { summary.retried += 1 } else { summary.released += 1 });
            shared.emit(&Event::RetryScheduled { id, after: *after, charged });
        }
        Next::Dead { reason } => {
            tracing::warn!(%id, template_id, reason, "dead letter");
            shared.count(|summary| summary.dead += 1);
            shared.emit(&Event::DeadLettered { id, template_id, reason });
        }
        Next::InDoubt { reason } => {
            tracing::warn!(%id, reason, "held in doubt");
            shared.count(|summary| summary.in_doubt += 1);
            shared.emit(&Event::Held { id, reason });
        }
    }
}
