//! Calls to the store: their time limit, the retries after conflicts, and the reports of outages.

use std::future::Future;
use std::time::Duration;

use postrider_transport::{Backoff, Transport};

use super::shared::Shared;
use crate::observe::Event;
use crate::store::{Store, StoreError, StoreErrorKind};

/// Conflicts in a row before a call to the store counts as failed. The stores of this crate have retried each of them before.
const CONFLICTS: u32 = 4;

impl<S: Store, T: Transport> Shared<S, T> {
    /// Waits for an answer of the store, but not for ever: the connection may have gone without a word, as in a network that drops what
    /// it should carry, and it would be many minutes before the system noticed. Half a lease, so that it can still be renewed.
    async fn in_time<R>(&self, call: impl Future<Output = Result<R, StoreError>>) -> Result<R, StoreError> {
        let limit = self.settings.call_limit();
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let text = format!("the database has not answered for {} s", limit.as_secs());
            Err(StoreError::new(StoreErrorKind::Unavailable, text))
        })
    }

    /// [`in_time`](Self::in_time), and again a few times where another transaction was in the way: the database works then, and has
    /// written nothing.
    pub(super) async fn ask<R, F>(&self, call: impl Fn() -> F) -> Result<R, StoreError>
    where
        F: Future<Output = Result<R, StoreError>>,
    {
        let mut conflicts = 0;
        loop {
            let asked = std::time::Instant::now();
            match self.in_time(call()).await {
                Ok(answer) => {
                    self.store_answered(asked);
                    return Ok(answer);
                }
                Err(error) if error.kind() == StoreErrorKind::Conflict && conflicts < CONFLICTS => {
                    conflicts += 1;
                    tracing::debug!(error = &error as &dyn std::error::Error, conflicts, "a conflict; trying again");
                    tokio::time::sleep(wait_after_conflict(conflicts, self.random())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        if self.outage.began(error) {
            self.tell(&Event::StoreUnavailable { error });
        }
    }

    fn store_answered(&self, asked: std::time::Instant) {
        if self.outage.ended(asked) {
            self.tell(&Event::StoreRecovered);
        }
    }
}

/// The wait before the next try, after this many conflicts.
fn wait_after_conflict(conflicts: u32, random: f64) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    WAIT.delay(conflicts, random)
}
