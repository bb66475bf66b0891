//! A circuit breaker for transports.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::random;
use crate::{Backoff, Failure, Receipt, Scope};

mod state;

pub use state::{Admit, BreakerState, CallTime};

/// A circuit breaker: pauses a transport that cannot send, and probes it later.
///
/// A closed breaker allows all messages. A failure with [`Scope::Transport`] opens it: no message is allowed for a pause, then one
/// message as a probe. A probe that fails in the same way starts a longer pause. An accepted message closes the breaker. After any other
/// result, the next message is the probe.
///
/// Call [`admit`](Self::admit) before each call of the transport, and [`record`](Self::record) after it.
///
/// ```
/// use std::time::{Duration, Instant};
/// use postrider_transport::{Admission, Backoff, Scope, Breaker, Change, Failure};
///
/// let breaker = Breaker::new(Backoff::new(Duration::from_secs(60), Duration::from_secs(600)));
/// assert!(matches!(breaker.admit(), Admission::All));
///
/// let began = Instant::now();
/// let result = Err(Failure::transient(Scope::Transport, "421 closing"));
/// assert!(matches!(breaker.record(&result, began), Change::Paused(_)));
/// assert!(matches!(breaker.admit(), Admission::NotBefore(_)));
/// assert_eq!(breaker.reason().as_deref(), Some("421 closing"));
/// ```
///
/// Cheap to clone; clones share the state.
#[derive(Clone)]
pub struct Breaker(Arc<Mutex<BreakerState>>);

/// What a [`Breaker`] allows now.
#[derive(Debug)]
#[non_exhaustive]
pub enum Admission {
    /// All messages: the breaker is closed.
    All,
    /// One message, and no other until its result is recorded or the [`Probe`] is dropped.
    Probe(Probe),
    /// No message before this time.
    NotBefore(Instant),
    /// No message before the running probe ends.
    Probing,
}

/// What a result changed in a [`Breaker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Nothing changed.
    None,
    /// A pause of this length started, or was extended after a probe.
    Paused(Duration),
    /// The pause ended: the transport works again.
    Resumed,
}

/// The right to send one message to a paused transport, to test whether it works again.
///
/// Keep it until the result is [recorded](Breaker::record). If it is dropped before, the next message is the probe.
pub struct Probe {
    breaker: Breaker,
    number: u64,
}

impl Breaker {
    /// The longest pause, even if the next hop asks for more: a day, because an operator may have fixed the cause.
    pub const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

    /// Creates a closed breaker. `backoff` sets the lower bounds of its pauses.
    pub fn new(backoff: Backoff) -> Self {
        Self(Arc::new(Mutex::new(BreakerState::new(backoff, Instant::now()))))
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is allowed now. Takes the probe if one is due.
    pub fn admit(&self) -> Admission {
        match self.state().admit(Instant::now()) {
            Admit::All => Admission::All,
            Admit::Probe(number) => Admission::Probe(Probe { breaker: self.clone(), number }),
            Admit::NotBefore(time) => Admission::NotBefore(time),
            Admit::Probing => Admission::Probing,
        }
    }

    /// Whether [`admit`](Self::admit) would allow a message now. Does not take the probe.
    pub fn would_admit(&self) -> bool {
        self.state().would_admit(Instant::now())
    }

    /// Records the result of one message, whose call started at `began` and has just ended.
    ///
    /// | Result | Closed | Open |
    /// |---|---|---|
    /// | accepted | nothing | ends the pause |
    /// | [`Scope::Transport`] | starts a pause: by the backoff, at least as long as asked | extends the pause after a probe |
    /// | another scope | nothing | nothing; the next message is the probe |
    ///
    /// Results of calls that started before the present pause change nothing. Concurrent calls that fail together count once, and a
    /// late success does not end the pause.
    pub fn record(&self, result: &Result<Receipt, Failure>, began: Instant) -> Change {
        let call = CallTime { began, ended: Instant::now() };
        let mut state = self.state();
        match result {
            Ok(_) => {
                if state.record_success(call) {
                    Change::Resumed
                } else {
                    Change::None
                }
            }
            Err(failure) if failure.scope() == Scope::Transport => {
                let pause = state.record_failure(failure.to_string(), failure.retry_after(), random(), call);
                pause.map_or(Change::None, Change::Paused)
            }
            Err(_) => Change::None,
        }
    }

    /// The time until the next probe. Zero if a probe is due or running, `None` while closed.
    pub fn remaining(&self) -> Option<Duration> {
        self.state().remaining(Instant::now())
    }

    /// The failure that opened the breaker, with mail addresses masked. `None` while closed.
    pub fn reason(&self) -> Option<String> {
        self.state().reason().map(str::to_owned)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("paused", &self.reason()).field("remaining", &self.remaining()).finish()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.breaker.state().release_probe(self.number);
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
