//! The wait between attempts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The wait between attempts: exponential, with bounds and jitter.
///
/// ```
/// use std::time::Duration;
/// use postrider_transport::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// backoff.jitter = 0.0;
/// assert_eq!(backoff.delay(3, 0.0), Duration::from_secs(4));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// The first wait and the lower bound, jitter included.
    pub base: Duration,
    /// The ratio of each wait to the one before. Values below 1 count as 1.
    pub factor: f64,
    /// The upper bound, jitter included.
    pub cap: Duration,
    /// The random part of a wait, from 0 to 1: 0.2 is ± 20 %. It separates retries of messages that failed together.
    pub jitter: f64,
}

impl Backoff {
    /// Waits that start at `base`, double up to `cap`, and have a jitter of 0.2.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, factor: 2.0, cap, jitter: 0.2 }
    }

    /// The wait after this many failures in a row. `random` is a number from -1 to 1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let base = self.base.as_secs_f64();
        let cap = self.cap.as_secs_f64().max(base);
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = (base * self.factor.max(1.0).powi(exponent)).min(cap);
        let jittered = grown * (1.0 + self.jitter.clamp(0.0, 1.0) * random.clamp(-1.0, 1.0));
        // The upper bound for NaN, and for a cap that does not fit into a Duration.
        Duration::try_from_secs_f64(jittered.clamp(base, cap)).unwrap_or(self.cap.max(self.base))
    }
}

/// A number from -1 to 1 for jitter. The random seeds of the standard library's hashers are random enough for that.
pub(crate) fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::new(SECOND, SECOND * 10) };
        let waits: Vec<u64> = (1..=6).map(|n| backoff.delay(n, 0.7).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.delay(u32::MAX, 0.0), SECOND * 10);
    }

    #[test]
    fn jitter_stays_within_the_bounds() {
        let backoff = Backoff { jitter: 0.5, ..Backoff::new(SECOND, SECOND * 10) };
        assert_eq!(backoff.delay(3, -1.0), SECOND * 2);
        assert_eq!(backoff.delay(3, 1.0), SECOND * 6);
        assert_eq!(backoff.delay(1, -1.0), SECOND, "below the base");
        assert_eq!(backoff.delay(9, 1.0), SECOND * 10, "above the cap");
    }

    #[test]
    fn nan_and_huge_settings_are_safe() {
        let backoff = Backoff { factor: f64::NAN, jitter: f64::NAN, ..Backoff::new(SECOND * 5, SECOND) };
        assert_eq!(backoff.delay(7, f64::NAN), SECOND * 5);
        let endless = Backoff::new(SECOND, Duration::MAX);
        assert_eq!(endless.delay(5_000, 1.0), Duration::MAX);
    }

    #[test]
    fn random_numbers_lie_between_minus_one_and_one() {
        let drawn: Vec<f64> = (0..1_000).map(|_| random()).collect();
        assert!(drawn.iter().all(|number| (-1.0..=1.0).contains(number)));
        assert!(drawn.iter().any(|number| *number < -0.5) && drawn.iter().any(|number| *number > 0.5));
    }
}
