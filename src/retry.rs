//! When to try again.

use std::time::Duration;

use postrider_transport::Backoff;

/// How often and how long a delivery is tried.
///
/// ```
/// use std::time::Duration;
/// use postrider::RetryPolicy;
///
/// let policy = RetryPolicy::default().attempts(5).backoff(Duration::from_secs(30), Duration::from_secs(3600));
/// assert_eq!(policy.max_attempts(), 5);
/// ```
///
/// The default: waits from 15 seconds to 6 hours, doubling, ± 20 %; 20 attempts, which reach over two and a half days; and
/// no more than 5 days in all (RFC 5321 section 4.5.4.1 advises to give up after four to five days).
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
    /// The shortest and the longest wait between two attempts.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.backoff.base, self.backoff.cap) = (base, cap);
        self
    }

    /// By how much each wait is longer than the one before. Less than 1 counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.backoff.factor = factor;
        self
    }

    /// How far a wait strays to either side, from 0 to 1 of itself.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.backoff.jitter = jitter;
        self
    }

    /// How many attempts a cycle has; 0 counts as 1. Attempts that failed for the transport's or the sender's condition do not count, nor
    /// do refusals that no rule knows and that other mail does not prove to be the message's own. [`max_age`](Self::max_age) ends those.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// How long a cycle lasts at the most, from the time at which the delivery was first due, or was resent.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The attempts of a cycle.
    pub fn max_attempts(&self) -> u32 {
        self.attempts
    }

    /// The longest that a cycle lasts.
    pub fn longest(&self) -> Duration {
        self.max_age
    }

    /// The wait after the `failures`th failure that counts, from 1 on. `asked` is what the next hop asked for: a lower bound of the
    /// backoff, never its replacement. `random` is a number from -1 to 1.
    pub fn delay(&self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        self.backoff.delay(failures, random).max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_of_nothing_is_one_attempt() {
        assert_eq!(RetryPolicy::default().attempts(0).max_attempts(), 1);
    }

    #[test]
    fn what_the_next_hop_asks_is_a_lower_bound() {
        let policy = RetryPolicy::default().backoff(SECOND * 5, SECOND * 10);
        assert_eq!(policy.delay(1, Some(SECOND * 90), 0.0), SECOND * 90);
        assert_eq!(policy.delay(1, Some(Duration::ZERO), 0.0), SECOND * 5);
        assert_eq!(policy.delay(9, Some(SECOND), 0.0), SECOND * 10);
    }
}
