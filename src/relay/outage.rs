//! Store health: one log line when the database stops answering, one when it answers again; and the time of its last answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postrider_transport::Backoff;

use crate::{StoreError, StoreErrorKind};

#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The kind and the start of the current outage. `None` if there is none.
    current: Option<(StoreErrorKind, Instant)>,
    /// The time of the last answer. `None` before the first.
    answered: Option<Instant>,
}

impl Outage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the last answer, and the time since the start of the current outage.
    pub(super) fn ages(&self) -> (Option<Duration>, Option<Duration>) {
        let state = self.state();
        (state.answered.map(|at| at.elapsed()), state.current.map(|(_, since)| since.elapsed()))
    }

    /// Records a failure. Returns whether it begins an outage.
    pub(super) fn began(&self, error: &StoreError) -> bool {
        let kind = error.kind();
        let first = {
            let mut state = self.state();
            let first = state.current.is_none();
            state.current.get_or_insert_with(|| (kind, Instant::now()));
            first
        };
        let error = error as &dyn std::error::Error;
        match (first, kind) {
            (true, StoreErrorKind::Conflict) => {
                tracing::warn!(
                    error,
                    "calls to the database conflict with other transactions repeatedly; the relay retries"
                );
            }
            (true, StoreErrorKind::Unavailable) => {
                tracing::warn!(error, "the database does not answer; waiting for it")
            }
            // A missing right, for instance.
            (true, _) => tracing::warn!(error, "the database refuses a call; the relay tries again"),
            (false, StoreErrorKind::Conflict) => {
                tracing::debug!(error, "calls to the database still conflict with other transactions")
            }
            (false, _) => tracing::debug!(error, "calls to the database still fail"),
        }
        first
    }

    /// Records an answer to a call that began at `call_began`. Returns whether it ends an outage. If the call began before the outage, it
    /// does not.
    pub(super) fn ended(&self, call_began: Instant) -> bool {
        let mut state = self.state();
        state.answered = Some(Instant::now());
        let Some((kind, _)) = state.current.take_if(|(_, since)| *since <= call_began) else { return false };
        drop(state);
        match kind {
            StoreErrorKind::Conflict => {
                tracing::info!("calls to the database no longer conflict with other transactions")
            }
            _ => tracing::info!("the database answers again"),
        }
        true
    }
}

/// The wait before the next call, after this many failures of the database. `random` is from -1 to 1.
pub(super) fn wait(failures: u32, random: f64) -> Duration {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    WAIT.delay(failures, random)
}
