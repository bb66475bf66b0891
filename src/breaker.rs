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

#[derive(Debug)]
pub(crate) struct Breaker {
    backoff: Backoff,
    /// Failures in a row, each after a wait; 0 when closed.
    failures: u32,
    until: Instant,
    probing: bool,
    reason: Option<String>,
}

impl Breaker {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, until: Instant::now(), probing: false, reason: None }
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

    /// The transport failed by its own fault. Calls that were under way together count once.
    pub(crate) fn failed(&mut self, reason: String, asked: Option<Duration>, random: f64, now: Instant) -> Change {
        if self.failures > 0 && !self.probing {
            return Change::None;
        }
        self.failures += 1;
        let pause = asked.unwrap_or_else(|| self.backoff.delay(self.failures, random)).min(LONGEST);
        self.probing = false;
        self.until = now + pause;
        self.reason = Some(reason);
        Change::Paused(pause)
    }

    /// Nobody knows what became of the call: no proof that the transport works, and none that it does not.
    pub(crate) fn unproven(&mut self, reason: String, random: f64, now: Instant) -> Change {
        if self.probing { self.failed(reason, None, random, now) } else { Change::None }
    }

    /// The transport did its work, whatever became of the message.
    pub(crate) fn worked(&mut self) -> Change {
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

    #[test]
    fn opens_probes_and_closes() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.admit(start), Admit::All);
        assert_eq!(breaker.failed("535".into(), None, 0.0, start), Change::Paused(SECOND));
        assert_eq!(breaker.reason(), Some("535"));
        assert_eq!(breaker.admit(start), Admit::NotBefore(start + SECOND));
        let later = start + SECOND;
        assert_eq!(breaker.admit(later), Admit::One);
        breaker.probe_started();
        assert_eq!(breaker.admit(later), Admit::Probing);
        assert_eq!(breaker.failed("535".into(), None, 0.0, later), Change::Paused(SECOND * 2));
        breaker.probe_started();
        assert_eq!(breaker.worked(), Change::Resumed);
        assert_eq!(breaker.admit(later), Admit::All);
        assert_eq!(breaker.reason(), None);
        assert_eq!(breaker.worked(), Change::None);
    }

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.failed("down".into(), None, 0.0, start), Change::Paused(SECOND));
        for _ in 0..31 {
            assert_eq!(breaker.failed("down".into(), None, 0.0, start), Change::None);
        }
        assert_eq!(breaker.admit(start + SECOND), Admit::One);
    }

    #[test]
    fn waits_as_long_as_it_is_told_to() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.failed("429".into(), Some(SECOND * 600), 0.0, start), Change::Paused(SECOND * 600));
    }

    #[test]
    fn doubt_neither_opens_nor_closes_but_fails_a_probe() {
        let (mut breaker, start) = (breaker(), Instant::now());
        assert_eq!(breaker.unproven("no answer".into(), 0.0, start), Change::None);
        assert_eq!(breaker.admit(start), Admit::All);
        let _ = breaker.failed("down".into(), None, 0.0, start);
        breaker.probe_started();
        assert_eq!(breaker.unproven("no answer".into(), 0.0, start), Change::Paused(SECOND * 2));
    }

    #[test]
    fn no_pause_is_beyond_what_the_clock_can_count() {
        let mut breaker = breaker();
        assert_eq!(breaker.failed("429".into(), Some(Duration::MAX), 0.0, Instant::now()), Change::Paused(LONGEST));
    }

    #[test]
    fn a_probe_that_found_nothing_to_send_leaves_the_way_open() {
        let (mut breaker, start) = (breaker(), Instant::now());
        let _ = breaker.failed("down".into(), None, 0.0, start);
        breaker.probe_started();
        breaker.probe_unused();
        assert_eq!(breaker.admit(start + SECOND), Admit::One);
    }
}
