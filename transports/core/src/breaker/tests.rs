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
    let _ = state.record_failure("429".into(), Some(SECOND * 600), 0.0, at(later));
    let straggler = CallTime { began: start, ended: later };
    assert!(!state.record_success(straggler));
    assert_eq!(state.admit(later), Admit::NotBefore(later + SECOND * 600));
    assert_eq!(state.admit(later + SECOND * 600), Admit::Probe(1));
    assert_eq!(state.record_failure("reset".into(), None, 0.0, straggler), None);
    assert_eq!(state.admit(later + SECOND * 600), Admit::Probing);
}

#[test]
fn a_breaker_opens_probes_and_closes() {
    let (mut state, start) = (state(), Instant::now());
    assert_eq!(state.admit(start), Admit::All);
    assert_eq!(state.record_failure("535".into(), None, 0.0, at(start)), Some(SECOND));
    assert_eq!(state.reason(), Some("535"));
    assert_eq!(state.admit(start), Admit::NotBefore(start + SECOND));
    assert!(!state.would_admit(start));
    let later = start + SECOND;
    assert!(state.would_admit(later));
    assert_eq!(state.admit(later), Admit::Probe(1));
    assert_eq!(state.admit(later), Admit::Probing);
    assert!(!state.would_admit(later));
    assert_eq!(state.record_failure("535".into(), None, 0.0, at(later)), Some(SECOND * 2));
    assert_eq!(state.admit(later + SECOND * 2), Admit::Probe(2));
    assert!(state.record_success(at(later + SECOND * 2)));
    assert_eq!(state.admit(later), Admit::All);
    assert_eq!(state.reason(), None);
    assert!(!state.record_success(at(later + SECOND * 2)));
}

#[test]
fn calls_that_fail_together_count_once() {
    let (mut state, start) = (state(), Instant::now());
    assert_eq!(state.record_failure("down".into(), None, 0.0, at(start)), Some(SECOND));
    for _ in 0..31 {
        assert_eq!(state.record_failure("down".into(), None, 0.0, at(start)), None);
    }
    assert_eq!(state.admit(start + SECOND), Admit::Probe(1));
}

#[test]
fn a_pause_is_as_long_as_the_next_hop_asks() {
    let (mut state, start) = (state(), Instant::now());
    assert_eq!(state.record_failure("429".into(), Some(SECOND * 600), 0.0, at(start)), Some(SECOND * 600));
}

#[test]
fn a_pause_is_never_shorter_than_the_backoff() {
    let (mut state, start) = (state(), Instant::now());
    assert_eq!(state.record_failure("429".into(), Some(Duration::ZERO), 0.0, at(start)), Some(SECOND));
    assert_eq!(state.admit(start + SECOND), Admit::Probe(1));
    assert_eq!(state.record_failure("429".into(), Some(Duration::ZERO), 0.0, at(start + SECOND)), Some(SECOND * 2));
}

#[test]
fn an_early_probe_excludes_a_second_one() {
    let (mut state, start) = (state(), Instant::now());
    assert_eq!(state.admit_early(), Admit::All);
    let _ = state.record_failure("down".into(), None, 0.0, at(start));
    assert_eq!(state.admit_early(), Admit::Probe(1));
    assert_eq!(state.admit_early(), Admit::Probing);
}

#[test]
fn a_pause_lasts_at_most_a_day() {
    let mut state = state();
    assert_eq!(
        state.record_failure("429".into(), Some(Duration::MAX), 0.0, at(Instant::now())),
        Some(Breaker::MAX_PAUSE)
    );
}

#[test]
fn a_released_probe_can_be_taken_again() {
    let (mut state, start) = (state(), Instant::now());
    let _ = state.record_failure("down".into(), None, 0.0, at(start));
    assert_eq!(state.admit(start + SECOND), Admit::Probe(1));
    state.release_probe(1);
    assert_eq!(state.admit(start + SECOND), Admit::Probe(2));
    state.release_probe(1);
    assert_eq!(state.admit(start + SECOND), Admit::Probing, "an old probe released the new one");
}

fn down() -> Result<Receipt, Failure> {
    Err(Failure::transient(Scope::Transport, "down"))
}

#[test]
fn a_dropped_probe_can_be_taken_again() {
    let breaker = Breaker::new(Backoff::new(Duration::ZERO, Duration::ZERO));
    assert_eq!(breaker.record(&down(), Instant::now()), Change::Paused(Duration::ZERO));
    let Admission::Probe(probe) = breaker.admit() else { panic!("no probe") };
    assert!(matches!(breaker.admit(), Admission::Probing));
    drop(probe);
    let Admission::Probe(probe) = breaker.admit() else { panic!("the dropped probe still counts as running") };
    assert_eq!(breaker.record(&down(), Instant::now()), Change::Paused(Duration::ZERO));
    let Admission::Probe(_next) = breaker.admit() else { panic!("no second probe") };
    drop(probe);
    assert!(matches!(breaker.admit(), Admission::Probing), "a recorded probe released the next one");
}

#[test]
fn an_unsupported_message_does_not_end_the_pause() {
    let breaker = Breaker::new(Backoff::new(Duration::ZERO, Duration::ZERO));
    let _ = breaker.record(&down(), Instant::now());
    let Admission::Probe(probe) = breaker.admit() else { panic!("no probe") };
    let unsupported = Err(Unsupported::new("attachments").into());
    assert_eq!(breaker.record(&unsupported, Instant::now()), Change::None);
    drop(probe);
    assert!(matches!(breaker.admit(), Admission::Probe(_)));
    assert_eq!(breaker.record(&Ok(Receipt::new()), Instant::now()), Change::Resumed);
    assert!(matches!(breaker.admit(), Admission::All));
    assert_eq!((breaker.reason(), breaker.remaining()), (None, None));
}
