//! Writing down what became of deliveries, in natural batches: whatever finishes while one batch is being written goes into
//! the next. Nothing waits for a timer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postrider_transport::Transport;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::outage;
use super::shared::Shared;
use crate::delivery::{Next, Settled, Settlement};
use crate::observe::Event;
use crate::state::RecipientState;
use crate::store::{Store, StoreError, StoreErrorKind};

/// The most that is written in one transaction.
const BATCH: usize = 500;

/// A settlement, with what is told once it is written.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) settlement: Settlement,
    pub(super) template_id: Option<String>,
    /// Until the result is written, the message counts as being sent: what a crash leaves in doubt is bounded by the room.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Settles what comes until the last sender is gone. A database that does not answer is waited for, as long as `patience`
/// lasts from its first failure.
pub(super) async fn settle<S: Store, T: Transport>(
    shared: Arc<Shared<S, T>>,
    mut finished: mpsc::Receiver<Finished>,
    patience: Duration,
) -> Result<(), StoreError> {
    let mut batch = Vec::new();
    let mut outcome = Ok(());
    while finished.recv_many(&mut batch, BATCH).await > 0 {
        if let Err(error) = settle_batch(&shared, &batch, patience).await {
            // Their leases run out, and whoever takes them over records a lost attempt: nothing is lost but the knowledge.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                count = batch.len(),
                "results could not be written"
            );
            outcome = Err(error);
        }
        for done in batch.drain(..) {
            shared.let_go(done.settlement.key);
            drop(done.permit);
        }
        shared.room_freed.notify_one();
    }
    outcome
}

async fn settle_batch<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    batch: &[Finished],
    patience: Duration,
) -> Result<(), StoreError> {
    let settlements: Vec<Settlement> = batch.iter().map(|done| done.settlement.clone()).collect();
    match with_patience(shared, &settlements, patience).await {
        Ok(results) => {
            for (done, result) in batch.iter().zip(results) {
                announce(shared, done, result);
            }
            Ok(())
        }
        Err(error) if error.kind() == StoreErrorKind::Unavailable || batch.len() == 1 => Err(error),
        // One that the database refuses must not keep the others from being written.
        Err(_) => {
            let mut outcome = Ok(());
            for done in batch {
                match with_patience(shared, std::slice::from_ref(&done.settlement), patience).await {
                    Ok(results) => results.into_iter().for_each(|result| announce(shared, done, result)),
                    Err(error) => outcome = Err(error),
                }
            }
            outcome
        }
    }
}

async fn with_patience<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    settlements: &[Settlement],
    patience: Duration,
) -> Result<Vec<Settled>, StoreError> {
    let mut failures = 0;
    let started = Instant::now();
    loop {
        match shared.store.settle(settlements).await {
            Ok(results) => {
                shared.unsettled.store(false, Ordering::SeqCst);
                shared.store_answered();
                return Ok(results);
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable && started.elapsed() < patience => {
                shared.unsettled.store(true, Ordering::SeqCst);
                shared.store_failed(&error);
                failures += 1;
                tokio::time::sleep(outage::wait(failures)).await;
            }
            Err(error) => {
                shared.unsettled.store(false, Ordering::SeqCst);
                return Err(error);
            }
        }
    }
}

fn announce<S: Store, T: Transport>(shared: &Shared<S, T>, done: &Finished, result: Settled) {
    let id = done.settlement.key.id;
    if result == Settled::LeaseLost {
        tracing::warn!(%id, "the lease was lost while the message was being sent; it may be sent twice");
        shared.count(|pass| pass.lease_lost += 1);
        shared.tell(&Event::LeaseLost { id });
        return;
    }
    match &done.settlement.next {
        Next::Sent => {
            let without = |state| state != RecipientState::Sent;
            let refused = done.settlement.recipients.iter().filter(|r| without(r.state)).count();
            tracing::debug!(%id, refused, "sent");
            shared.count(|pass| pass.sent += 1);
            shared.tell(&Event::Sent { id, refused });
        }
        Next::Pending { after } => {
            let charged = done.settlement.charge;
            let error = done.settlement.attempt.as_ref().and_then(|attempt| attempt.error.as_deref());
            tracing::info!(%id, after_s = after.as_secs_f64(), charged, error, "to be tried again");
            shared.count(|pass| if charged { pass.retried += 1 } else { pass.released += 1 });
            shared.tell(&Event::RetryScheduled { id, after: *after, charged });
        }
        Next::Dead { reason } => {
            let template_id = done.template_id.as_deref();
            tracing::warn!(%id, template_id, reason, "dead letter");
            shared.count(|pass| pass.dead += 1);
            shared.tell(&Event::DeadLettered { id, template_id, reason });
        }
        Next::InDoubt { reason } => {
            tracing::warn!(%id, reason, "held in doubt");
            shared.count(|pass| pass.in_doubt += 1);
            shared.tell(&Event::Held { id, reason });
        }
    }
}
