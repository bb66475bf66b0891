//! Calls to the store: their time limit, the retries after conflicts, and the reports of outages.

use std::future::Future;
use std::time::Duration;

use postrider_transport::{Backoff, Transport};

use super::shared::Shared;
use crate::observe::Event;
use crate::store::{Store, StoreError, StoreErrorKind};

/// How many conflicts in a row are retried before a call to the store counts as failed. The stores of this crate also retry by themselves.
const MAX_CONFLICTS: u32 = 4;

impl<S: Store, T: Transport> Shared<S, T> {
    /// Makes a call to the store with a time limit.
    ///
    /// If a network drops packets, the operating system notices a broken connection only after many minutes. The limit of half a lease
    /// leaves time to renew leases on another connection.
    async fn with_time_limit<R>(&self, call: impl Future<Output = Result<R, StoreError>>) -> Result<R, StoreError> {
        let limit = self.settings.call_limit();
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let text = format!("the database has not answered for {} s", limit.as_secs());
            Err(StoreError::new(StoreErrorKind::Unavailable, text))
        })
    }

    /// Makes a call to the store with a time limit, and repeats it a few times after a conflict with another transaction. A conflict leaves
    /// nothing written, and is not an outage.
    pub(super) async fn call_store<R, F>(&self, call: impl Fn() -> F) -> Result<R, StoreError>
    where
        F: Future<Output = Result<R, StoreError>>,
    {
        let mut conflicts = 0;
        loop {
            let asked = std::time::Instant::now();
            match self.with_time_limit(call()).await {
                Ok(answer) => {
                    self.store_answered(asked);
                    return Ok(answer);
                }
                Err(error) if error.kind() == StoreErrorKind::Conflict && conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        conflicts,
                        "conflict with another transaction; the call is repeated"
                    );
                    tokio::time::sleep(wait_after_conflict(conflicts, self.random())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        if self.outage.began(error) {
            self.emit(&Event::StoreUnavailable { error });
        }
    }

    fn store_answered(&self, asked: std::time::Instant) {
        if self.outage.ended(asked) {
            self.emit(&Event::StoreRecovered);
        }
    }
}

/// The wait before the next call, after this many conflicts. `random` is from -1 to 1.
fn wait_after_conflict(conflicts: u32, random: f64) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    WAIT.delay(conflicts, random)
}
