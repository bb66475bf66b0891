//! Tries several transports in order.

use std::fmt;

use super::routes::{Policy, Routes};
use crate::{Backoff, Failure, Message, Outgoing, Receipt, Transport};

/// Sends through the first transport that works, in order of preference.
///
/// ```
/// use postrider_transport::{Email, Failover, Transport};
/// # fn example(smtp: impl Transport<Message = Email>, ses: impl Transport<Message = Email>) {
/// let transport = Failover::new(smtp).or(ses);
/// # }
/// ```
///
/// | Result of a transport | What follows |
/// |---|---|
/// | accepted, for all or some recipients | this is the result |
/// | [`Scope::Transport`](crate::Scope::Transport): outage, wrong password, quota | this transport is paused, and the next one is tried |
/// | [`Scope::Sender`](crate::Scope::Sender): not verified there, throttled there | the next one is tried |
/// | [unsupported](Failure::is_unsupported) | the next one is tried |
/// | [in doubt](Failure::in_doubt) | this is the result: the next one could send a second copy |
/// | [`Scope::Message`](crate::Scope::Message) | this is the result: the next one would refuse the message too |
///
/// A paused transport is skipped. After its pause, one message probes it (see [`Breaker`](crate::Breaker)). When all transports are
/// paused, none is called: the failure is transient, has [`Scope::Transport`](crate::Scope::Transport), and asks the relay to wait
/// for the first probe. The relay continues while one transport works. If that transport does not support a message, the failure
/// still pauses the relay, for the time of the relay's own backoff.
///
/// If a transport refuses some recipients individually and then fails, the next one gets the other recipients. The result includes the
/// refusals.
///
/// [`Receipt::via`] and [`Failure::via`] name the transport. A failure of several transports is an [`AllFailed`](crate::AllFailed). A
/// transport whose name is taken gets the name `NAME#2`, and so on.
///
/// Each call runs [`check`](Transport::check) of the transports again. Its cost depends on the transport.
///
/// # Batches
/// The largest batch is that of the transport with the largest one. For a transport with a smaller limit, the batch is split, and
/// the parts are sent concurrently. All results are returned together, after the last one.
///
/// # Cancel safety
/// A dropped call changes no pause, except for the parts of a batch that ended before. If its message was a probe, the next message
/// is the probe. The outcome of a dropped batch is unknown for all its messages.
pub struct Failover<M> {
    routes: Routes<M>,
}

impl<M: Message> Failover<M> {
    /// Starts with the preferred transport.
    pub fn new(first: impl Transport<Message = M>) -> Self {
        Self { routes: Routes::new() }.or(first)
    }

    /// Adds a transport to the end of the order.
    #[must_use]
    pub fn or(mut self, next: impl Transport<Message = M>) -> Self {
        self.routes.add(next);
        self
    }

    /// Sets how long a transport is paused after a failure and after each failed probe. Default: 1 s to 5 min.
    ///
    /// A pause is at least as long as the next hop asks.
    #[must_use]
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.routes.set_backoff(backoff);
        self
    }
}

/// Picks the first candidate.
struct InOrder;

impl Policy for InOrder {
    fn pick(&self, candidates: &[usize]) -> usize {
        candidates.first().copied().unwrap_or_default()
    }

    fn accepts(&self, candidates: &[usize], picked: usize) -> bool {
        candidates.first() == Some(&picked)
    }

    fn added(&self, _candidates: &[usize], _picked: usize, _more: usize) {}
}

#[deny(clippy::missing_trait_methods)]
impl<M: Message> Transport for Failover<M> {
    type Message = M;

    fn name(&self) -> &str {
        "failover"
    }

    async fn send(&self, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        self.routes.send(&InOrder, outgoing).await
    }

    /// Succeeds if one transport supports the message.
    fn check(&self, message: &M) -> Result<(), Failure> {
        self.routes.check(message)
    }

    fn max_batch(&self) -> usize {
        self.routes.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<M>]) -> Vec<Result<Receipt, Failure>> {
        self.routes.send_batch(&InOrder, batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.routes.paused()
    }
}

impl<M> fmt::Debug for Failover<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failover").field(&self.routes).finish()
    }
}
