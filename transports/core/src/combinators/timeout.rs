//! A limit on how long a call takes.

use std::fmt;
use std::time::Duration;

use crate::{Class, Classify, Failure, Outgoing, Receipt, Scope, Transport};

/// Ends a call that takes too long. What became of the message is then unknown: the failure is in doubt, transient, and blames the
/// transport.
///
/// ```
/// use std::time::Duration;
/// use postrider_transport::{Email, Timeout, Transport};
/// # fn example(smtp: impl Transport<Message = Email>) {
/// let transport = Timeout::new(smtp, Duration::from_secs(60));
/// # }
/// ```
///
/// The limit is for one call, be it with one message or with a batch, and includes all that the inner transport waits for: put it
/// around each transport of a [`Failover`](crate::Failover), not around the whole, and inside of a `RateLimit`. Needs a tokio
/// runtime with time.
#[derive(Debug, Clone)]
pub struct Timeout<T> {
    inner: T,
    limit: Duration,
}

impl<T: Transport> Timeout<T> {
    /// Limits each call.
    pub fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

/// A call took longer than its [`Timeout`]. The message may have been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut {
    limit: Duration,
}

impl TimedOut {
    /// The limit.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the transport did not answer within {:?}; the message may have been accepted all the same",
            self.limit
        )
    }
}

impl std::error::Error for TimedOut {}

impl Classify for TimedOut {
    fn class(&self) -> Class {
        Class::Transient
    }

    fn scope(&self) -> Scope {
        Scope::Transport
    }

    fn in_doubt(&self) -> bool {
        true
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Timeout<T> {
    type Message = T::Message;

    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn send(&self, outgoing: &Outgoing<T::Message>) -> Result<Receipt, Failure> {
        let result = tokio::time::timeout(self.limit, self.inner.send(outgoing)).await;
        result.unwrap_or_else(|_| Err(TimedOut { limit: self.limit }.into()))
    }

    fn check(&self, message: &T::Message) -> Result<(), Failure> {
        self.inner.check(message)
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<T::Message>]) -> Vec<Result<Receipt, Failure>> {
        let results = tokio::time::timeout(self.limit, self.inner.send_batch(batch)).await;
        results.unwrap_or_else(|_| batch.iter().map(|_| Err(TimedOut { limit: self.limit }.into())).collect())
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.inner.paused()
    }
}
