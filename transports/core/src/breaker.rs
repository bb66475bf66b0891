//! Pausing a transport that cannot send for anybody.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::random;
use crate::{Backoff, Failure, Receipt, Scope};

/// Keeps messages from a transport that cannot send for anybody, and finds out when it can again.
///
/// Closed, it lets everything pass. After a failure of [`Scope::Transport`] it is open: nothing passes for a while, then one message as
/// a probe. If the probe fares no better, the wait grows; an acceptance closes the breaker; anything else proves nothing, and the next
/// message is the probe.
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
pub struct Breaker(Arc<Mutex<BreakerState>>);

/// How much may pass now.
#[derive(Debug)]
#[non_exhaustive]
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
#[non_exhaustive]
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
        Self(Arc::new(Mutex::new(BreakerState::new(backoff, Instant::now()))))
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks how much may pass now.
    pub fn admit(&self) -> Admission {
        match self.state().admit(Instant::now()) {
            Admit::All => Admission::All,
            Admit::Probe(number) => Admission::Probe(Probe { breaker: self.clone(), number }),
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
    /// | accepted | nothing | resumes |
    /// | the transport's condition | pauses it, by the backoff and at least as long as it asks for | if this was a probe, prolongs the pause |
    /// | the message's or the sender's condition, or [cannot be expressed](Failure::is_unsupported) | nothing | nothing: it proves nothing about others, and the next message is the probe |
    ///
    /// Results of calls that began before the present pause change nothing. So calls that fail together count once, and one that
    /// succeeds late does not end a pause.
    pub fn judge(&self, result: &Result<Receipt, Failure>, began: Instant) -> Change {
        let call = CallTime { began, ended: Instant::now() };
        let mut state = self.state();
        match result {
            Ok(_) => {
                if state.worked(call) {
                    Change::Resumed
                } else {
                    Change::None
                }
            }
            Err(failure) if failure.scope() == Scope::Transport => {
                let pause = state.failed(failure.to_string(), failure.retry_after(), random(), call);
                pause.map_or(Change::None, Change::Paused)
            }
            Err(_) => Change::None,
        }
    }

    /// How long the present pause lasts from now until a probe may pass: zero if one may or is under way, `None` if there is no
    /// pause.
    pub fn remaining(&self) -> Option<Duration> {
        self.state().remaining(Instant::now())
    }

    /// Why the transport is paused, if it is: the text of the failure, with mail addresses masked.
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
        self.breaker.state().give_back(self.number);
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// When a call began and when it ended.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "a call has a beginning and an end")]
pub struct CallTime {
    /// When it was made.
    pub began: Instant,
    /// When its result was there.
    pub ended: Instant,
}

/// How much a [`BreakerState`] lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Everything.
    All,
    /// A probe, of this number.
    Probe(u64),
    /// Nothing before this time.
    NotBefore(Instant),
    /// Nothing before the probe that is under way comes back.
    Probing,
}

/// A [`Breaker`] without clock, lock and classification, for whoever keeps time by another clock or weighs more than one result.
#[derive(Debug)]
pub struct BreakerState {
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

impl BreakerState {
    /// A closed one.
    pub fn new(backoff: Backoff, now: Instant) -> Self {
        Self { backoff, failures: 0, until: now, opened: now, probing: None, probes: 0, reason: None }
    }

    /// Whether it is open.
    pub fn is_paused(&self) -> bool {
        self.failures > 0
    }

    /// Why it is open.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// How long until a probe may pass: zero if one may or is under way, `None` when closed.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.is_paused().then(|| self.until.saturating_duration_since(now))
    }

    /// Whether [`admit`](Self::admit) would let something pass. Unlike that, it takes no probe.
    pub fn would_admit(&self, now: Instant) -> bool {
        !self.is_paused() || (self.probing.is_none() && now >= self.until)
    }

    /// Asks how much may pass. A probe is to be [judged](Self::failed) or [given back](Self::give_back).
    pub fn admit(&mut self, now: Instant) -> Admit {
        match (self.failures, self.probing) {
            (0, _) => Admit::All,
            (_, Some(_)) => Admit::Probing,
            (_, None) if now < self.until => Admit::NotBefore(self.until),
            _ => self.probe(),
        }
    }

    /// A probe before its time, where one is wanted at once and none is under way.
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

    /// Says that a probe came to nothing. One that was judged, or that came before the present one, changes nothing.
    pub fn give_back(&mut self, number: u64) {
        if self.probing == Some(number) {
            self.probing = None;
        }
    }

    /// Whether a call that began then is older than the present pause, and so says nothing about now.
    pub fn is_stale(&self, began: Instant) -> bool {
        self.is_paused() && began < self.opened
    }

    /// How long the next pause is: by the backoff, and at least as long as the next hop asks; a day at the most. `random` is a number
    /// from -1 to 1.
    pub fn next_pause(&self, asked: Option<Duration>, random: f64) -> Duration {
        let own = self.backoff.delay(self.failures.saturating_add(1), random);
        own.max(asked.unwrap_or_default()).min(Breaker::LONGEST)
    }

    /// A call failed by the condition that this watches: pauses, or prolongs the pause if the call was a probe. Calls that were under
    /// way together count once. `Some` is the pause that begins.
    pub fn failed(&mut self, reason: String, asked: Option<Duration>, random: f64, call: CallTime) -> Option<Duration> {
        self.failed_for(reason, self.next_pause(asked, random), call)
    }

    /// The same with a pause of a given length: [`next_pause`](Self::next_pause) knows how long it should be.
    pub fn failed_for(&mut self, reason: String, pause: Duration, call: CallTime) -> Option<Duration> {
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

    /// A call proved that the condition is over. `true` if that ends a pause.
    pub fn worked(&mut self, call: CallTime) -> bool {
        if self.is_stale(call.began) {
            return false;
        }
        self.probing = None;
        self.reason = None;
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unsupported;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> BreakerState {
        BreakerState::new(Backoff { jitter: 0.0, ..Backoff::new(SECOND, SECOND * 60) }, Instant::now())
    }

    /// A call that took no time.
    fn at(now: Instant) -> CallTime {
        CallTime { began: now, ended: now }
    }

    #[test]
    fn a_call_that_began_before_the_pause_neither_ends_nor_prolongs_it() {
        let (mut state, start) = (state(), Instant::now());
        let later = start + SECOND;
        let _ = state.failed("429".into(), Some(SECOND * 600), 0.0, at(later));
        let straggler = CallTime { began: start, ended: later };
        assert!(!state.worked(straggler));
        assert_eq!(state.admit(later), Admit::NotBefore(later + SECOND * 600));
        assert_eq!(state.admit(later + SECOND * 600), Admit::Probe(1));
        assert_eq!(state.failed("reset".into(), None, 0.0, straggler), None);
        assert_eq!(state.admit(later + SECOND * 600), Admit::Probing);
    }

    #[test]
    fn opens_probes_and_closes() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.admit(start), Admit::All);
        assert_eq!(state.failed("535".into(), None, 0.0, at(start)), Some(SECOND));
        assert_eq!(state.reason(), Some("535"));
        assert_eq!(state.admit(start), Admit::NotBefore(start + SECOND));
        assert!(!state.would_admit(start));
        let later = start + SECOND;
        assert!(state.would_admit(later));
        assert_eq!(state.admit(later), Admit::Probe(1));
        assert_eq!(state.admit(later), Admit::Probing);
        assert!(!state.would_admit(later));
        assert_eq!(state.failed("535".into(), None, 0.0, at(later)), Some(SECOND * 2));
        assert_eq!(state.admit(later + SECOND * 2), Admit::Probe(2));
        assert!(state.worked(at(later + SECOND * 2)));
        assert_eq!(state.admit(later), Admit::All);
        assert_eq!(state.reason(), None);
        assert!(!state.worked(at(later + SECOND * 2)));
    }

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.failed("down".into(), None, 0.0, at(start)), Some(SECOND));
        for _ in 0..31 {
            assert_eq!(state.failed("down".into(), None, 0.0, at(start)), None);
        }
        assert_eq!(state.admit(start + SECOND), Admit::Probe(1));
    }

    #[test]
    fn waits_as_long_as_it_is_told_to() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.failed("429".into(), Some(SECOND * 600), 0.0, at(start)), Some(SECOND * 600));
    }

    #[test]
    fn what_the_next_hop_asks_is_a_lower_bound_of_the_pause() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.failed("429".into(), Some(Duration::ZERO), 0.0, at(start)), Some(SECOND));
        assert_eq!(state.admit(start + SECOND), Admit::Probe(1));
        assert_eq!(state.failed("429".into(), Some(Duration::ZERO), 0.0, at(start + SECOND)), Some(SECOND * 2));
    }

    #[test]
    fn a_probe_before_its_time_leaves_no_second_one() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.admit_early(), Admit::All);
        let _ = state.failed("down".into(), None, 0.0, at(start));
        assert_eq!(state.admit_early(), Admit::Probe(1));
        assert_eq!(state.admit_early(), Admit::Probing);
    }

    #[test]
    fn no_pause_is_beyond_what_the_clock_can_count() {
        let mut state = state();
        assert_eq!(state.failed("429".into(), Some(Duration::MAX), 0.0, at(Instant::now())), Some(Breaker::LONGEST));
    }

    #[test]
    fn a_probe_that_found_nothing_to_send_leaves_the_way_open() {
        let (mut state, start) = (state(), Instant::now());
        let _ = state.failed("down".into(), None, 0.0, at(start));
        assert_eq!(state.admit(start + SECOND), Admit::Probe(1));
        state.give_back(1);
        assert_eq!(state.admit(start + SECOND), Admit::Probe(2));
        state.give_back(1);
        assert_eq!(state.admit(start + SECOND), Admit::Probing, "an old probe took a new one's place");
    }

    fn down() -> Result<Receipt, Failure> {
        Err(Failure::transient(Scope::Transport, "down"))
    }

    #[test]
    fn a_dropped_probe_is_the_next_ones() {
        let breaker = Breaker::new(Backoff::new(Duration::ZERO, Duration::ZERO));
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
        let breaker = Breaker::new(Backoff::new(Duration::ZERO, Duration::ZERO));
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
