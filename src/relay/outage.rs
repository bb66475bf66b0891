//! One calm line when the database stops answering, one when it is back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_transport::Backoff;

use crate::StoreError;

#[derive(Debug, Default)]
pub(super) struct Outage(AtomicBool);

impl Outage {
    /// Notes a failure; true if it is the first of an outage.
    pub(super) fn began(&self, error: &StoreError) -> bool {
        let first = !self.0.swap(true, Ordering::Relaxed);
        if first {
            tracing::warn!(error = error as &dyn std::error::Error, "the database does not answer; waiting for it");
        } else {
            tracing::debug!(error = error as &dyn std::error::Error, "the database still does not answer");
        }
        first
    }

    /// Notes an answer; true if an outage ends with it.
    pub(super) fn ended(&self) -> bool {
        let ended = self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed);
        if ended {
            tracing::info!("the database answers again");
        }
        ended
    }
}

/// How long to wait before the `failures`th try at a database that does not answer.
pub(super) fn wait(failures: u32) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    WAIT.delay(failures, super::shared::random())
}
