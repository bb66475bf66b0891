//! Pausing a transport that cannot send for anybody.
//!
//! Closed: everything passes. After a failure that the transport is to blame for, open: nothing passes for a while, then one
//! message as a probe. If the probe fares no better, the wait grows; any other result closes the breaker.

use std::time::{Duration, Instant};

use crate::retry::Backoff;

/// No pause is longer, whatever the next hop asks for: somebody may have mended it meanwhile.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How much may be claimed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// As much as there is room for.
    All,
    /// One delivery, as a probe.
    One,
    /// Nothing before this time.
    NotBefore(Instant),
    /// Nothing before the probe that is under way comes back.
    Probing,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Paused(Duration),
    Resumed,
}

/// When a call of the transport began and ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    backoff: Backoff,
    /// Failures in a row, each after a wait; 0 when closed.
    failures: u32,
    until: Instant,
    /// When it was last found not to work. What began before says nothing about now.
    opened: Instant,
    probing: bool,
    reason: Option<String>,
}

impl Breaker {
    pub(crate) fn new(backoff: Backoff) -> Self {
        let now = Instant::now();
        Self { backoff, failures: 0, until: now, opened: now, probing: false, reason: None }
    }

    pub(crate) fn admit(&self, now: Instant) -> Admit {
        match (self.failures, self.probing) {
            (0, _) => Admit::All,
            (_, true) => Admit::Probing,
            (_, false) if now < self.until => Admit::NotBefore(self.until),
            _ => Admit::One,
        }
    }

    /// Says that the one delivery that was admitted is on its way.
    pub(crate) fn probe_started(&mut self) {
        self.probing = true;
    }

    /// Says that no delivery was there to probe with, or that it came to no call of the transport.
    pub(crate) fn probe_unused(&mut self) {
        self.probing = false;
    }

    /// How long the pause still lasts.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// Whether a call that began then is older than the present pause.
    fn is_stale(&self, began: Instant) -> bool {
        self.failures > 0 && began < self.opened
    }

    /// The transport failed by its own fault. Calls that were under way together count once.
    pub(crate) fn failed(&mut self, reason: String, asked: Option<Duration>, random: f64, call: Call) -> Change {
        let now = call.ended;
        if self.is_stale(call.began) || (self.failures > 0 && !self.probing) {
            return Change::None;
        }
        self.failures += 1;
        let pause = asked.unwrap_or_else(|| self.backoff.delay(self.failures, random)).min(LONGEST);
        self.probing = false;
        self.opened = now;
        self.until = now + pause;
        self.reason = Some(reason);
        Change::Paused(pause)
    }

    /// Nobody knows what became of the call: no proof that the transport works, and none that it does not.
    pub(crate) fn unproven(&mut self, reason: String, random: f64, call: Call) -> Change {
        if self.probing { self.failed(reason, None, random, call) } else { Change::None }
    }

    /// The transport did its work, whatever became of the message.
    pub(crate) fn worked(&mut self, call: Call) -> Change {
        if self.is_stale(call.began) {
            return Change::None;
        }
        self.probing = false;
        self.reason = None;
        if std::mem::take(&mut self.failures) > 0 { Change::Resumed } else { Change::None }
    }

    /// Why the transport is paused, if it is.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(Backoff { jitter: 0.0, ..Backoff::new(SECOND, SECOND * 60) })
    }

    /// A call that took no time.
    fn at(now: Instant) -> Call {
        Call { began: now, ended: now }
    }

    #[test]
    fn a_call_that_began_before_the_pause_neither_ends_nor_prolongs_it() {
        let (mut breaker, start) = (breaker(), Instant::now());
        let later = start + SECOND;
        let _ = breaker.failed("429".into(), Some(SECOND * 600), 0.0, at(later));
        let straggler = Call { began: start, ended: later };
        assert_eq!(breaker.worked(straggler), Change::None);
        assert_eq!(breaker.admit(later), Admit::NotBefore(later + SECOND * 600));
        breaker.probe_started();
        assert_eq!(breaker.failed("reset".into(), None, 0.0, straggler), Change::None);
        assert_eq!(breaker.admit(later + SECOND * 600), Admit::Probing);
    }

    #[test]
    fn opens_probes_and_closes() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.admit(start), Admit::All);
        assert_eq!(breaker.failed("535".into(), None, 0.0, at(start)), Change::Paused(SECOND));
        assert_eq!(breaker.reason(), Some("535"));
        assert_eq!(breaker.admit(start), Admit::NotBefore(start + SECOND));
        let later = start + SECOND;
        assert_eq!(breaker.admit(later), Admit::One);
        breaker.probe_started();
        assert_eq!(breaker.admit(later), Admit::Probing);
        assert_eq!(breaker.failed("535".into(), None, 0.0, at(later)), Change::Paused(SECOND * 2));
        breaker.probe_started();
        assert_eq!(breaker.worked(at(later)), Change::Resumed);
        assert_eq!(breaker.admit(later), Admit::All);
        assert_eq!(breaker.reason(), None);
        assert_eq!(breaker.worked(at(later)), Change::None);
    }

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.failed("down".into(), None, 0.0, at(start)), Change::Paused(SECOND));
        for _ in 0..31 {
            assert_eq!(breaker.failed("down".into(), None, 0.0, at(start)), Change::None);
        }
        assert_eq!(breaker.admit(start + SECOND), Admit::One);
    }

    #[test]
    fn waits_as_long_as_it_is_told_to() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.failed("429".into(), Some(SECOND * 600), 0.0, at(start)), Change::Paused(SECOND * 600));
    }

    #[test]
    fn doubt_neither_opens_nor_closes_but_fails_a_probe() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.unproven("no answer".into(), 0.0, at(start)), Change::None);
        assert_eq!(breaker.admit(start), Admit::All);
        let _ = breaker.failed("down".into(), None, 0.0, at(start));
        breaker.probe_started();
        assert_eq!(breaker.unproven("no answer".into(), 0.0, at(start)), Change::Paused(SECOND * 2));
    }

    #[test]
    fn no_pause_is_beyond_what_the_clock_can_count() {
        let mut breaker = breaker();
        assert_eq!(breaker.failed("429".into(), Some(Duration::MAX), 0.0, at(Instant::now())), Change::Paused(LONGEST));
    }

    #[test]
    fn a_probe_that_found_nothing_to_send_leaves_the_way_open() {
        let (mut breaker, start) = (breaker(), Instant::now());
        let _ = breaker.failed("down".into(), None, 0.0, at(start));
        breaker.probe_started();
        breaker.probe_unused();
        assert_eq!(breaker.admit(start + SECOND), Admit::One);
    }
}
