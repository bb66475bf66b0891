//! Store health: one log line when the database stops answering, one when it answers again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postrider_transport::Backoff;

use crate::{StoreError, StoreErrorKind};

/// The kind and the beginning of the current outage; `None` if there is none.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<(StoreErrorKind, Instant)>>);

impl Outage {
    fn state(&self) -> MutexGuard<'_, Option<(StoreErrorKind, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a failure. Returns whether an outage begins with it.
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

    /// Records an answer to a call that was made at `asked`. Returns whether an outage ends with it. An answer to a call from before the
    /// outage does not end it.
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

/// The wait before the next try, after this many failures of the database. `random` is from -1 to 1.
pub(super) fn wait(failures: u32, random: f64) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    WAIT.delay(failures, random)
}
