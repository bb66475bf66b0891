//! Renews leases while messages are being sent, and reports that this relay is alive.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use postrider_transport::Transport;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::retention;
use super::run::RunMode;
use super::shared::Shared;
use crate::store::{Settled, Store, StoreError};

/// Time between two reports.
const REPORT: Duration = Duration::from_secs(5);

/// The time limit for the background tasks when the relay stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The background tasks of a relay. Dropping this stops them at once.
pub(super) struct Background {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Background {
    /// Stops the tasks after their current call to the store, within a time limit.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let all = async {
            for task in &mut self.tasks {
                // A task that panicked has already stopped.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(STOP_LIMIT, all).await.is_err() {
            tracing::debug!("the background tasks did not stop in time");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub(super) fn start<S: Store, T: Transport>(
    shared: &Arc<Shared<S, T>>,
    retention: Option<retention::Task<S, T>>,
    mode: RunMode,
) -> Background {
    let stop = CancellationToken::new();
    let mut tasks = vec![
        tokio::spawn(renew(Arc::clone(shared), stop.clone())),
        tokio::spawn(report(Arc::clone(shared), stop.clone(), mode)),
    ];
    tasks.extend(retention.map(|task| tokio::spawn(task(Arc::clone(shared), stop.clone()))));
    Background { stop, tasks }
}

/// Renews all leases three times in the duration of a lease, so that a lease survives two failed renewals.
async fn renew<S: Store, T: Transport>(shared: Arc<Shared<S, T>>, stop: CancellationToken) {
    let mut beat = interval(shared.settings.lease / 3);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = beat.tick() => {}
        }
        if let Err(error) = shared.renew().await {
            shared.store_failed(&error);
        }
    }
}

impl<S: Store, T: Transport> Shared<S, T> {
    /// Renews all leases in flight.
    pub(super) async fn renew(&self) -> Result<(), StoreError> {
        let held = self.in_flight.keys();
        let asked = Instant::now();
        if !held.is_empty() {
            let results = self.call_store(|| self.store.renew(&held, self.settings.lease)).await?;
            // `LeaseLost` may also mean that the delivery was just settled. If the lease was lost, the settlement reports it.
            let gone = held.iter().zip(&results).filter(|(_, result)| **result == Settled::LeaseLost);
            self.in_flight.mark_lost(gone.map(|(key, _)| *key));
        }
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        Ok(())
    }

    /// Whether leases of this relay may have expired, because the database did not answer or the process was suspended. The relay must
    /// renew them before it claims. Otherwise it could claim deliveries that it is sending.
    pub(super) fn must_renew(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.elapsed() > self.settings.lease / 2 && self.in_flight.len() > 0
    }
}

async fn report<S: Store, T: Transport>(shared: Arc<Shared<S, T>>, stop: CancellationToken, mode: RunMode) {
    loop {
        let report = shared.report();
        if let Err(error) = shared.call_store(|| shared.store.report(&report)).await {
            shared.store_failed(&error);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(REPORT) => {}
            () = shared.pause_changed.notified() => {}
        }
    }
    // A drain that was paused after failures leaves its report, so that an operator sees why the mail waits for the next drain.
    let last_report = if mode == RunMode::Run || shared.failure_pauses().is_empty() {
        shared.store.retire(shared.id).await
    } else {
        shared.store.report(&shared.report()).await
    };
    if let Err(error) = last_report {
        tracing::debug!(error = &error as &dyn std::error::Error, "the last report could not be written");
    }
}
