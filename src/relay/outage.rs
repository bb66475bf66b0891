//! One calm line when the database stops answering, one when it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postrider_transport::Backoff;

use crate::{StoreError, StoreErrorKind};

/// What goes on, and since when.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<(StoreErrorKind, Instant)>>);

impl Outage {
    fn state(&self) -> MutexGuard<'_, Option<(StoreErrorKind, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure; true if it is the first of an outage.
    pub(super) fn began(&self, error: &StoreError) -> bool {
        let kind = error.kind();
        let first = {
            let mut state = self.state();
            let first = state.is_none();
            state.get_or_insert_with(|| (kind, Instant::now()));
            first
        };
        let error = error as &dyn std::error::Error;
        match (first, kind) {
            (true, StoreErrorKind::Conflict) => {
                tracing::warn!(error, "other transactions are in the way time and again; going on trying");
            }
            (true, _) => tracing::warn!(error, "the database does not answer; waiting for it"),
            (false, StoreErrorKind::Conflict) => tracing::debug!(error, "other transactions are still in the way"),
            (false, _) => tracing::debug!(error, "the database still does not answer"),
        }
        first
    }

    /// Notes an answer to a call that was made at this time; true if an outage ends with it. One that was under way before the outage
    /// says nothing about now.
    pub(super) fn ended(&self, asked: Instant) -> bool {
        let mut state = self.state();
        let Some((kind, _)) = state.take_if(|(_, since)| *since <= asked) else { return false };
        drop(state);
        match kind {
            StoreErrorKind::Conflict => tracing::info!("no other transaction is in the way any more"),
            _ => tracing::info!("the database answers again"),
        }
        true
    }
}

/// How long to wait before a call is made again that has met so many conflicts.
pub(super) fn wait_after_conflict(conflicts: u32, random: f64) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    WAIT.delay(conflicts, random)
}

/// How long to wait before the `failures`th try at a database that does not answer. `random` is a number from -1 to 1.
pub(super) fn wait(failures: u32, random: f64) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    WAIT.delay(failures, random)
}
