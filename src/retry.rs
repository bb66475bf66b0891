//! The retry policy: waits between attempts, and when to give up.

use std::time::Duration;

use postrider_transport::Backoff;

/// Limits the attempts of a delivery and sets the waits between them.
///
/// ```
/// use std::time::Duration;
/// use postrider::RetryPolicy;
///
/// let policy = RetryPolicy::default().attempts(5).backoff(Duration::from_secs(30), Duration::from_secs(3600));
/// assert_eq!(policy.max_attempts(), 5);
/// ```
///
/// The default waits 15 seconds, then twice as long each time, up to 6 hours, ± 20 %. It makes up to 20 attempts, which take more than two
/// days, and gives up after 5 days in any case. (RFC 5321 section 4.5.4.1 recommends giving up after four to five days.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    backoff: Backoff,
    attempts: u32,
    max_age: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            backoff: Backoff::new(Duration::from_secs(15), Duration::from_secs(6 * HOUR)),
            attempts: 20,
            max_age: Duration::from_secs(5 * 24 * HOUR),
        }
    }
}

impl RetryPolicy {
    /// Sets the shortest and the longest wait between two attempts.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.backoff.base, self.backoff.cap) = (base, cap);
        self
    }

    /// Sets the factor by which each wait is longer than the last one. A factor below 1 counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.backoff.factor = factor;
        self
    }

    /// Sets how much a wait varies at random in either direction, as a fraction of the wait from 0 to 1.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.backoff.jitter = jitter;
        self
    }

    /// Sets the number of attempts in a cycle. 0 counts as 1. A cycle lasts until the delivery finishes, and a resend begins a new one.
    ///
    /// An attempt does not count if it failed for the transport's or the sender's condition. A refusal that no rule knows does not count
    /// either, unless other mail proves that it concerns this message. [`max_age`](Self::max_age) ends such deliveries.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets the longest duration of a cycle. A cycle begins when the delivery is first due, or when it is resent.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The number of attempts in a cycle.
    pub fn max_attempts(&self) -> u32 {
        self.attempts
    }

    /// The longest duration of a cycle.
    pub fn age_limit(&self) -> Duration {
        self.max_age
    }

    /// The wait after a number of charged failures, from 1 on. `requested` is the wait that the next hop asked for: the result is never
    /// shorter. `random` is a number from -1 to 1 that sets the jitter.
    pub fn delay(&self, failures: u32, requested: Option<Duration>, random: f64) -> Duration {
        self.backoff.delay(failures, random).max(requested.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_of_zero_is_one_attempt() {
        assert_eq!(RetryPolicy::default().attempts(0).max_attempts(), 1);
    }

    #[test]
    fn the_wait_that_a_next_hop_requests_is_a_lower_bound() {
        let policy = RetryPolicy::default().backoff(SECOND * 5, SECOND * 10);
        assert_eq!(policy.delay(1, Some(SECOND * 90), 0.0), SECOND * 90);
        assert_eq!(policy.delay(1, Some(Duration::ZERO), 0.0), SECOND * 5);
        assert_eq!(policy.delay(9, Some(SECOND), 0.0), SECOND * 10);
    }
}
