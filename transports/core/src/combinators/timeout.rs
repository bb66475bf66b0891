//! A time limit for calls.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use crate::{Class, Classify, Failure, Outgoing, Receipt, Scope, Transport};

/// Limits the time of a call.
///
/// A call that exceeds the limit is dropped. Its failure is transient, has [`Scope::Transport`], and is in doubt. It is not in doubt if
/// the message was still marked as [waiting](Outgoing::waiting).
///
/// ```
/// use std::time::Duration;
/// use postrider_transport::{Email, Timeout, Transport};
/// # fn example(smtp: impl Transport<Message = Email>) {
/// let transport = Timeout::new(smtp, Duration::from_secs(60));
/// # }
/// ```
///
/// The limit is for one call, with one message or a batch, and includes all waits of the inner transport. Put it around each
/// transport of a [`Failover`](crate::Failover), not around the failover, and inside a `RateLimit`.
///
/// Needs a tokio runtime with time.
#[derive(Debug, Clone)]
pub struct Timeout<T> {
    inner: T,
    limit: Duration,
}

impl<T: Transport> Timeout<T> {
    /// Limits each call of `inner`.
    pub fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit }
    }

    /// Must run before the call is dropped, which removes the marks.
    fn timed_out(&self, outgoing: &Outgoing<T::Message>) -> Failure {
        TimedOut { limit: self.limit, waiting: outgoing.is_waiting() }.into()
    }
}

/// A call exceeded its [`Timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut {
    limit: Duration,
    waiting: bool,
}

impl TimedOut {
    /// The limit that was exceeded.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.waiting { "the message was not sent yet" } else { "the message may have been accepted" };
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
