//! Pausing a transport that cannot send for anybody.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::random;
use crate::{Backoff, Failure, Receipt, Scope};

/// Keeps messages from a transport that cannot send for anybody, and finds out when it can again.
///
/// Closed, it lets everything pass. After a failure that the transport is to blame for it is open: nothing passes for a while,
/// then one message as a probe. If the probe fares no better, the wait grows; any other result closes the breaker, except one
/// that proves nothing.
///
/// Who calls a transport asks first with [`admit`](Self::admit), and afterwards says with [`judge`](Self::judge) what came of
/// it. The outbox's relay does so for its transport, and combinators do for each of theirs.
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
/// assert!(matches!(breaker.judge(&result, began), Change::Paused(_)));
/// assert!(matches!(breaker.admit(), Admission::NotBefore(_)));
/// assert_eq!(breaker.reason().as_deref(), Some("421 closing"));
/// ```
///
/// Cheap to clone; clones share the state.
#[derive(Clone)]
pub struct Breaker(Arc<Mutex<State>>);

/// How much may pass now.
#[derive(Debug)]
pub enum Admission {
    /// Everything.
    All,
    /// One message. Nothing else passes until it is judged, or until the [`Probe`] is dropped.
    Probe(Probe),
    /// Nothing before this time.
    NotBefore(Instant),
    /// Nothing before the probe that is under way comes back.
    Probing,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The transport is paused for so long, either anew or after a probe.
    Paused(Duration),
    /// The transport works again.
    Resumed,
}

/// The right to send one message to a paused transport, to see whether it works again. Keep it until the result is
/// [judged](Breaker::judge). Dropped before that, say because the call's future was dropped or no message was there, it gives the
/// right to the next who asks.
pub struct Probe {
    breaker: Breaker,
    number: u64,
}

impl Breaker {
    /// No pause is longer, whatever the next hop asks for: a day, since somebody may have mended it meanwhile.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// A closed breaker, whose pauses last as `backoff` says where the next hop does not.
    pub fn new(backoff: Backoff) -> Self {
        Self(Arc::new(Mutex::new(State::new(backoff))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks how much may pass now.
    pub fn admit(&self) -> Admission {
        match self.state().admit(Instant::now()) {
            Admit::All => Admission::All,
            Admit::One(number) => Admission::Probe(Probe { breaker: self.clone(), number }),
            Admit::NotBefore(time) => Admission::NotBefore(time),
            Admit::Probing => Admission::Probing,
        }
    }

    /// Whether [`admit`](Self::admit) would let a message pass now. Unlike that, it takes no probe.
    pub fn would_admit(&self) -> bool {
        self.state().would_admit(Instant::now())
    }

    /// Takes note of the result of one message, whose call began at the given time and has just ended.
    ///
    /// | The result | Closed | Open |
    /// |---|---|---|
    /// | blames the transport | pauses it, as long as it asks for, or by the backoff | if this was a probe, prolongs the pause |
    /// | is in doubt | nothing | if this was a probe, prolongs the pause: nobody knows whether it works |
    /// | is that the message [cannot be expressed](Failure::is_unsupported) | nothing | nothing: the next message is the probe |
    /// | any other | nothing | resumes: the transport did its work, whatever became of the message |
    ///
    /// Results of calls that began before the present pause change nothing. So calls that fail together count once, and one that
    /// succeeds late does not end a pause.
    pub fn judge(&self, result: &Result<Receipt, Failure>, began: Instant) -> Change {
        let call = Call { began, ended: Instant::now() };
        let mut state = self.state();
        match result {
            Err(failure) if failure.scope() == Scope::Transport => {
                state.failed(failure.to_string(), failure.retry_after(), random(), call)
            }
            Err(failure) if failure.in_doubt() => state.unproven(failure.to_string(), random(), call),
            Err(failure) if failure.is_unsupported() => Change::None,
            _ => state.worked(call),
        }
    }

    /// How long the present pause lasts from now until a probe may pass: zero if one may or is under way, `None` if there is no
    /// pause.
    pub fn remaining(&self) -> Option<Duration> {
        let state = self.state();
        (state.failures > 0).then(|| state.until.saturating_duration_since(Instant::now()))
    }

    /// Why the transport is paused, if it is: the text of the failure, with mail addresses masked.
    pub fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("paused", &self.reason()).field("remaining", &self.remaining()).finish()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.breaker.state().give_back(self.number);
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// When a call of the transport began and ended.
#[derive(Debug, Clone, Copy)]
struct Call {
    began: Instant,
    ended: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Admit {
    All,
    One(u64),
    NotBefore(Instant),
    Probing,
}

/// The breaker without clock, chance and lock.
struct State {
    backoff: Backoff,
    /// Failures in a row, each after a wait; 0 when closed.
    failures: u32,
    until: Instant,
    /// When it was last found not to work. What began before says nothing about now.
    opened: Instant,
    /// The number of the probe that is under way.
    probing: Option<u64>,
    probes: u64,
    reason: Option<String>,
}

impl State {
    fn new(backoff: Backoff) -> Self {
        let now = Instant::now();
        Self { backoff, failures: 0, until: now, opened: now, probing: None, probes: 0, reason: None }
    }

    fn would_admit(&self, now: Instant) -> bool {
        self.failures == 0 || (self.probing.is_none() && now >= self.until)
    }

    fn admit(&mut self, now: Instant) -> Admit {
        match (self.failures, self.probing) {
            (0, _) => Admit::All,
            (_, Some(_)) => Admit::Probing,
            (_, None) if now < self.until => Admit::NotBefore(self.until),
            _ => {
                self.probes += 1;
                self.probing = Some(self.probes);
                Admit::One(self.probes)
            }
        }
    }

    /// Says that a probe came to nothing. One that was judged, or that came before the present one, changes nothing.
    fn give_back(&mut self, number: u64) {
        if self.probing == Some(number) {
            self.probing = None;
        }
    }

    /// Whether a call that began then is older than the present pause.
    fn is_stale(&self, began: Instant) -> bool {
        self.failures > 0 && began < self.opened
    }

    /// The transport failed by its own fault. Calls that were under way together count once.
    fn failed(&mut self, reason: String, asked: Option<Duration>, random: f64, call: Call) -> Change {
        let now = call.ended;
        if self.is_stale(call.began) || (self.failures > 0 && self.probing.is_none()) {
            return Change::None;
        }
        self.failures += 1;
        let pause = asked.unwrap_or_else(|| self.backoff.delay(self.failures, random)).min(Breaker::LONGEST);
        self.probing = None;
        self.opened = now;
        self.until = now + pause;
        self.reason = Some(reason);
        Change::Paused(pause)
    }

    /// Nobody knows what became of the call: no proof that the transport works, and none that it does not.
    fn unproven(&mut self, reason: String, random: f64, call: Call) -> Change {
        if self.probing.is_some() { self.failed(reason, None, random, call) } else { Change::None }
    }

    /// The transport did its work, whatever became of the message.
    fn worked(&mut self, call: Call) -> Change {
        if self.is_stale(call.began) {
            return Change::None;
        }
        self.probing = None;
        self.reason = None;
        if std::mem::take(&mut self.failures) > 0 { Change::Resumed } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unsupported;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> State {
        State::new(Backoff { jitter: 0.0, ..Backoff::new(SECOND, SECOND * 60) })
    }

    /// A call that took no time.
    fn at(now: Instant) -> Call {
        Call { began: now, ended: now }
    }

    #[test]
    fn a_call_that_began_before_the_pause_neither_ends_nor_prolongs_it() {
        let (mut state, start) = (state(), Instant::now());
        let later = start + SECOND;
        let _ = state.failed("429".into(), Some(SECOND * 600), 0.0, at(later));
        let straggler = Call { began: start, ended: later };
        assert_eq!(state.worked(straggler), Change::None);
        assert_eq!(state.admit(later), Admit::NotBefore(later + SECOND * 600));
        assert_eq!(state.admit(later + SECOND * 600), Admit::One(1));
        assert_eq!(state.failed("reset".into(), None, 0.0, straggler), Change::None);
        assert_eq!(state.admit(later + SECOND * 600), Admit::Probing);
    }

    #[test]
    fn opens_probes_and_closes() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.admit(start), Admit::All);
        assert_eq!(state.failed("535".into(), None, 0.0, at(start)), Change::Paused(SECOND));
        assert_eq!(state.reason.as_deref(), Some("535"));
        assert_eq!(state.admit(start), Admit::NotBefore(start + SECOND));
        assert!(!state.would_admit(start));
        let later = start + SECOND;
        assert!(state.would_admit(later));
        assert_eq!(state.admit(later), Admit::One(1));
        assert_eq!(state.admit(later), Admit::Probing);
        assert!(!state.would_admit(later));
        assert_eq!(state.failed("535".into(), None, 0.0, at(later)), Change::Paused(SECOND * 2));
        assert_eq!(state.admit(later + SECOND * 2), Admit::One(2));
        assert_eq!(state.worked(at(later + SECOND * 2)), Change::Resumed);
        assert_eq!(state.admit(later), Admit::All);
        assert_eq!(state.reason, None);
        assert_eq!(state.worked(at(later + SECOND * 2)), Change::None);
    }

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.failed("down".into(), None, 0.0, at(start)), Change::Paused(SECOND));
        for _ in 0..31 {
            assert_eq!(state.failed("down".into(), None, 0.0, at(start)), Change::None);
        }
        assert_eq!(state.admit(start + SECOND), Admit::One(1));
    }

    #[test]
    fn waits_as_long_as_it_is_told_to() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.failed("429".into(), Some(SECOND * 600), 0.0, at(start)), Change::Paused(SECOND * 600));
    }

    #[test]
    fn doubt_neither_opens_nor_closes_but_fails_a_probe() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.unproven("no answer".into(), 0.0, at(start)), Change::None);
        assert_eq!(state.admit(start), Admit::All);
        let _ = state.failed("down".into(), None, 0.0, at(start));
        assert_eq!(state.admit(start + SECOND), Admit::One(1));
        assert_eq!(state.unproven("no answer".into(), 0.0, at(start + SECOND)), Change::Paused(SECOND * 2));
    }

    #[test]
    fn no_pause_is_beyond_what_the_clock_can_count() {
        let mut state = state();
        assert_eq!(
            state.failed("429".into(), Some(Duration::MAX), 0.0, at(Instant::now())),
            Change::Paused(Breaker::LONGEST)
        );
    }

    #[test]
    fn a_probe_that_found_nothing_to_send_leaves_the_way_open() {
        let (mut state, start) = (state(), Instant::now());
        let _ = state.failed("down".into(), None, 0.0, at(start));
        assert_eq!(state.admit(start + SECOND), Admit::One(1));
        state.give_back(1);
        assert_eq!(state.admit(start + SECOND), Admit::One(2));
        state.give_back(1);
        assert_eq!(state.admit(start + SECOND), Admit::Probing, "an old probe took a new one's place");
    }

    fn down() -> Result<Receipt, Failure> {
        Err(Failure::transient(Scope::Transport, "down").with_retry_after(Duration::ZERO))
    }

    #[test]
    fn a_dropped_probe_is_the_next_ones() {
        let breaker = Breaker::new(Backoff::new(SECOND, SECOND));
        assert_eq!(breaker.judge(&down(), Instant::now()), Change::Paused(Duration::ZERO));
        let Admission::Probe(probe) = breaker.admit() else { panic!("no probe") };
        assert!(matches!(breaker.admit(), Admission::Probing));
        drop(probe);
        let Admission::Probe(probe) = breaker.admit() else { panic!("the dropped probe is still waited for") };
        assert_eq!(breaker.judge(&down(), Instant::now()), Change::Paused(Duration::ZERO));
        let Admission::Probe(_next) = breaker.admit() else { panic!("no further probe") };
        drop(probe);
        assert!(matches!(breaker.admit(), Admission::Probing), "a judged probe gave the next one's right away");
    }

    #[test]
    fn what_was_never_sent_proves_nothing() {
        let breaker = Breaker::new(Backoff::new(SECOND, SECOND));
        let _ = breaker.judge(&down(), Instant::now());
        let Admission::Probe(probe) = breaker.admit() else { panic!("no probe") };
        let unsupported = Err(Unsupported::new("attachments").into());
        assert_eq!(breaker.judge(&unsupported, Instant::now()), Change::None);
        drop(probe);
        assert!(matches!(breaker.admit(), Admission::Probe(_)));
        assert_eq!(breaker.judge(&Ok(Receipt::new()), Instant::now()), Change::Resumed);
        assert!(matches!(breaker.admit(), Admission::All));
        assert_eq!((breaker.reason(), breaker.remaining()), (None, None));
    }
}
