//! The time that decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock that a test moves, alone or with tokio's. A store that is given one uses it in place of the database's clock, for
/// due times, leases and retention alike. Clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// use postrider::store::TestClock;
///
/// let clock = TestClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().duration_since(before)?, Duration::from_secs(60));
/// # Ok::<(), std::time::SystemTimeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TestClock {
    shows: Arc<Mutex<SystemTime>>,
    /// Since when it moves by itself.
    follows: Option<Instant>,
}

impl TestClock {
    /// A clock that shows 2026-01-01 00:00:00 UTC, and stands still.
    #[allow(clippy::new_without_default, reason = "a default clock would not be expected to stand still")]
    pub fn new() -> Self {
        Self { shows: Arc::new(Mutex::new(UNIX_EPOCH + Duration::from_secs(1_767_225_600))), follows: None }
    }

    /// A clock that begins at the same time and moves as tokio's does. In a runtime whose time is paused (`tokio::time::pause`),
    /// store and relay then live in the same time, and days pass in an instant.
    pub fn following_tokio() -> Self {
        Self { follows: Some(Instant::now()), ..Self::new() }
    }

    /// What it shows.
    pub fn now(&self) -> SystemTime {
        let moved = self.follows.map(|since| since.elapsed()).unwrap_or_default();
        *self.shows.lock().unwrap_or_else(PoisonError::into_inner) + moved
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        *self.shows.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

/// Microseconds since the Unix epoch; times beyond what databases can date become the nearest that they can.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn to_micros(time: SystemTime) -> i64 {
    const DAWN: i64 = -6_000 * 365 * 24 * 3_600 * 1_000_000;
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(DAWN, |micros| DAWN.max(-micros)),
    }
}

/// The time of a number of microseconds since the Unix epoch; out of range, the epoch itself.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn from_micros(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A duration in microseconds, rounded up, and no longer than databases can add to a date.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn micros(duration: Duration) -> i64 {
    const THOUSAND_YEARS: i64 = 1_000 * 366 * 24 * 3_600 * 1_000_000;
    i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(THOUSAND_YEARS).min(THOUSAND_YEARS)
}

/// The clock of a store that lives in this process: the system's, or a test's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Option<TestClock>);

impl Clock {
    pub(crate) fn test(clock: TestClock) -> Self {
        Self(Some(clock))
    }

    /// What a test's clock shows, in microseconds; `None` leaves it to the database.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn test_micros(&self) -> Option<i64> {
        self.0.as_ref().map(|clock| to_micros(clock.now()))
    }

    /// Now, in milliseconds since the Unix epoch, the unit in which stores keep time.
    pub(crate) fn now_millis(&self) -> i64 {
        to_millis(self.0.as_ref().map_or_else(SystemTime::now, TestClock::now))
    }
}

/// Milliseconds since the Unix epoch; times out of range become the nearest in range.
pub(crate) fn to_millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

/// The time of a number of milliseconds since the Unix epoch; out of range, the epoch itself.
pub(crate) fn from_millis(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A duration in milliseconds, rounded up so that a wait is never shorter than asked.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
