//! Clocks: the test clock, and conversions between times and the integers in databases.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock that a test moves. A store with a test clock uses it instead of the database's clock for due times, leases and ages. Clones are
/// the same clock.
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
    time: Arc<Mutex<SystemTime>>,
    /// When it began to follow tokio's clock. `None` if it stands still.
    following_since: Option<Instant>,
}

impl TestClock {
    /// A clock that stands still at 2026-01-01 00:00:00 UTC.
    #[allow(clippy::new_without_default, reason = "a default clock is expected to run")]
    pub fn new() -> Self {
        Self { time: Arc::new(Mutex::new(UNIX_EPOCH + Duration::from_secs(1_767_225_600))), following_since: None }
    }

    /// A clock that starts at the same time and moves with tokio's. In a runtime with paused time (`tokio::time::pause`), store and relay
    /// then share one time, and days pass in an instant.
    pub fn following_tokio() -> Self {
        Self { following_since: Some(Instant::now()), ..Self::new() }
    }

    /// The current time of this clock.
    pub fn now(&self) -> SystemTime {
        let moved = self.following_since.map(|since| since.elapsed()).unwrap_or_default();
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) + moved
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

/// A time in UTC, in whole seconds: `2030-12-31T18:00:00Z` (RFC 3339). Times before 1970 and after 9999 are shown as the nearest in between.
pub(crate) fn utc_text(time: SystemTime) -> String {
    const DAY: u64 = 24 * 3_600;
    const YEARS: std::ops::RangeInclusive<u64> = 1970..=9999;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut days, second) = (seconds / DAY, seconds % DAY);
    for year in YEARS {
        let (year_length, february) = if is_leap(year) { (366, 29) } else { (365, 28) };
        if days >= year_length {
            days -= year_length;
            continue;
        }
        for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
            if days < length {
                let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
                return format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1);
            }
            days -= length;
        }
    }
    format!("{}-12-31T23:59:59Z", YEARS.end())
}

/// Converts a time to microseconds since the Unix epoch, within the range of dates that databases have.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn to_micros(time: SystemTime) -> i64 {
    const EARLIEST: i64 = -6_000 * 365 * 24 * 3_600 * 1_000_000;
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(EARLIEST, |micros| EARLIEST.max(-micros)),
    }
}

/// Converts microseconds since the Unix epoch to a time. Out of range, it returns the epoch.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn from_micros(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Converts a duration to microseconds, rounded up. The limit is 1,000 years, which databases can add to a date.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn micros(duration: Duration) -> i64 {
    const THOUSAND_YEARS: i64 = 1_000 * 366 * 24 * 3_600 * 1_000_000;
    i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(THOUSAND_YEARS).min(THOUSAND_YEARS)
}

/// A store's clock: a test clock, or else the clock of the system or the database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Option<TestClock>);

impl Clock {
    pub(crate) fn test(clock: TestClock) -> Self {
        Self(Some(clock))
    }

    /// The time of the test clock in microseconds. `None` means that the database's clock counts.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn test_micros(&self) -> Option<i64> {
        self.0.as_ref().map(|clock| to_micros(clock.now()))
    }

    /// Whether this is a test clock, which ids do not follow.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_test(&self) -> bool {
        self.0.is_some()
    }

    /// The current time in milliseconds since the Unix epoch.
    pub(crate) fn now_millis(&self) -> i64 {
        to_millis(self.0.as_ref().map_or_else(SystemTime::now, TestClock::now))
    }
}

/// Converts a time to milliseconds since the Unix epoch, or to the nearest value in range.
pub(crate) fn to_millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

/// Converts milliseconds since the Unix epoch to a time. Out of range, it returns the epoch.
pub(crate) fn from_millis(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Converts a duration to milliseconds, rounded up so that no wait is too short.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

#[cfg(all(test, any(feature = "cli", feature = "dashboard")))]
mod tests {
    use super::*;

    /// humantime formats the same.
    #[test]
    fn times_are_formatted_as_rfc_3339() {
        let last = 253_402_300_799;
        // Each day of four centuries at a different second, and the ends of the range.
        let days = (0..146_097).map(|day| day * 86_400 + day % 86_400);
        for seconds in days.chain([0, 68_169_599, 68_169_600, 951_782_400, 4_107_542_400, last]) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(utc_text(time), humantime::format_rfc3339_seconds(time).to_string());
        }
        let year_9999 = UNIX_EPOCH + Duration::from_secs(last);
        assert_eq!(utc_text(year_9999 + Duration::from_secs(1)), utc_text(year_9999));
        assert_eq!(utc_text(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }
}
