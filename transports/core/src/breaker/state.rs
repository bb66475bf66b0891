//! The state machine of a breaker.

use std::time::{Duration, Instant};

use crate::{Backoff, Breaker};

/// Start and end of a call.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "a call has a start and an end")]
pub struct CallTime {
    /// When the call started.
    pub began: Instant,
    /// When its result arrived.
    pub ended: Instant,
}

/// What a [`BreakerState`] allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// All messages: the breaker is closed.
    All,
    /// One message, as the probe with this number.
    Probe(u64),
    /// No message before this time.
    NotBefore(Instant),
    /// No message before the running probe ends.
    Probing,
}

/// The state machine of a [`Breaker`], without its clock, lock and classification.
///
/// Use it with another clock, or to decide from more than one result.
#[derive(Debug)]
pub struct BreakerState {
    backoff: Backoff,
    /// The number of pauses in a row. 0 while closed.
    failures: u32,
    /// The end of the present pause.
    until: Instant,
    /// When the last failure arrived. Results of calls that started earlier are stale.
    opened: Instant,
    /// The number of the running probe. `None` if none is running.
    probing: Option<u64>,
    /// The number of probes so far.
    probes: u64,
    /// Why it is open. `None` while closed.
    reason: Option<String>,
}

impl BreakerState {
    /// Creates a closed breaker.
    pub fn new(backoff: Backoff, now: Instant) -> Self {
        Self { backoff, failures: 0, until: now, opened: now, probing: None, probes: 0, reason: None }
    }

    /// Whether the breaker is open.
    pub fn is_paused(&self) -> bool {
        self.failures > 0
    }

    /// Why the breaker is open. `None` while it is closed.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The time until the next probe. Zero if a probe is due or running, `None` while closed.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.is_paused().then(|| self.until.saturating_duration_since(now))
    }

    /// Whether [`admit`](Self::admit) would allow a message. Does not take the probe.
    pub fn would_admit(&self, now: Instant) -> bool {
        !self.is_paused() || (self.probing.is_none() && now >= self.until)
    }

    /// Returns what is allowed now. Takes the probe if one is due.
    ///
    /// A probe ends with [`record_success`](Self::record_success), [`record_failure`](Self::record_failure) or
    /// [`release_probe`](Self::release_probe).
    pub fn admit(&mut self, now: Instant) -> Admit {
        match (self.failures, self.probing) {
            (0, _) => Admit::All,
            (_, Some(_)) => Admit::Probing,
            (_, None) if now < self.until => Admit::NotBefore(self.until),
            _ => self.probe(),
        }
    }

    /// Takes a probe before the pause ends, unless one is running. Returns [`Admit::All`] while the breaker is closed.
    pub fn admit_early(&mut self) -> Admit {
        match (self.failures, self.probing) {
            (0, _) => Admit::All,
            (_, Some(_)) => Admit::Probing,
            _ => self.probe(),
        }
    }

    fn probe(&mut self) -> Admit {
        self.probes += 1;
        self.probing = Some(self.probes);
        Admit::Probe(self.probes)
    }

    /// Ends a probe without a result. Does nothing if the probe has ended already.
    pub fn release_probe(&mut self, number: u64) {
        if self.probing == Some(number) {
            self.probing = None;
        }
    }

    /// Whether a call started before the last failure, so that its result says nothing about the present.
    pub fn is_stale(&self, began: Instant) -> bool {
        self.is_paused() && began < self.opened
    }

    /// The length of the next pause: by the backoff, at least `asked`, and at most [`Breaker::MAX_PAUSE`]. `random` is a number from
    /// -1 to 1.
    pub fn next_pause(&self, asked: Option<Duration>, random: f64) -> Duration {
        let own = self.backoff.delay(self.failures.saturating_add(1), random);
        own.max(asked.unwrap_or_default()).min(Breaker::MAX_PAUSE)
    }

    /// Records a failure: opens the breaker, or extends the pause after a failed probe. Returns the new pause.
    ///
    /// Concurrent calls that fail together count once: `None` for the others.
    pub fn record_failure(
        &mut self,
        reason: String,
        asked: Option<Duration>,
        random: f64,
        call: CallTime,
    ) -> Option<Duration> {
        self.record_failure_with_pause(reason, self.next_pause(asked, random), call)
    }

    /// Records a failure with a pause of this length, and returns the pause. [`next_pause`](Self::next_pause) has the usual length.
    ///
    /// `None` if the failure has no effect: the call began before the last failure, or the breaker is open without a probe.
    pub fn record_failure_with_pause(&mut self, reason: String, pause: Duration, call: CallTime) -> Option<Duration> {
        if self.is_stale(call.began) || (self.is_paused() && self.probing.is_none()) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.probing = None;
        self.opened = call.ended;
        self.until = call.ended + pause;
        self.reason = Some(reason);
        Some(pause)
    }

    /// Records a success. Returns `true` if it closes the breaker.
    pub fn record_success(&mut self, call: CallTime) -> bool {
        if self.is_stale(call.began) {
            return false;
        }
        self.probing = None;
        self.reason = None;
        std::mem::take(&mut self.failures) > 0
    }
}
