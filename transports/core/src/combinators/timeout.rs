//! A limit on how long a call takes.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use crate::{Class, Classify, Failure, Outgoing, Receipt, Scope, Transport};

/// Ends a call that takes too long. What became of the message is then unknown: the failure is in doubt, transient, and the
/// transport's condition. A call that only [waited](Outgoing::waiting) until then is not in doubt.
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

    /// Asked while the call still exists, and with it its marks.
    fn timed_out(&self, outgoing: &Outgoing<T::Message>) -> Failure {
        TimedOut { limit: self.limit, waiting: outgoing.is_waiting() }.into()
    }
}

/// A call took longer than its [`Timeout`]. The message may have been accepted, unless the call only waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut {
    limit: Duration,
    waiting: bool,
}

impl TimedOut {
    /// The limit.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.waiting {
            "the message still waited to be sent"
        } else {
            "the message may have been accepted all the same"
        };
        write!(f, "the transport did not answer within {:?}; {rest}", self.limit)
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
        !self.waiting
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Timeout<T> {
    type Message = T::Message;

    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn send(&self, outgoing: &Outgoing<T::Message>) -> Result<Receipt, Failure> {
        let mut call = pin!(self.inner.send(outgoing));
        match tokio::time::timeout(self.limit, &mut call).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(outgoing)),
        }
    }

    fn check(&self, message: &T::Message) -> Result<(), Failure> {
        self.inner.check(message)
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<T::Message>]) -> Vec<Result<Receipt, Failure>> {
        let mut call = pin!(self.inner.send_batch(batch));
        match tokio::time::timeout(self.limit, &mut call).await {
            Ok(results) => results,
            Err(_) => batch.iter().map(|outgoing| Err(self.timed_out(outgoing))).collect(),
        }
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.inner.paused()
    }
}
