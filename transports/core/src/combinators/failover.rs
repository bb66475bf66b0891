//! One transport after the other.

use std::fmt;

use super::children::{Children, Order};
use crate::{Backoff, Failure, Message, Outgoing, Receipt, Transport};

/// Asks a first transport, and the next one where that cannot carry a message.
///
/// ```
/// use postrider_transport::{Email, Failover, Transport};
/// # fn example(smtp: impl Transport<Message = Email>, ses: impl Transport<Message = Email>) {
/// let transport = Failover::new(smtp).or(ses);
/// # }
/// ```
///
/// | A transport says | Then |
/// |---|---|
/// | accepted, be it with refused recipients | that is the result |
/// | its own condition: outage, wrong password, quota | the next is asked, and this one is paused |
/// | the sender's condition: not verified there, throttled there | the next is asked |
/// | it [cannot express](Failure::is_unsupported) the message | the next is asked |
/// | in doubt | that is the result: to ask the next could send twice |
/// | the message's condition | that is the result: the next would find no better one |
///
/// A paused transport is passed over, and once its pause is over, one message finds out whether it works again (see
/// [`Breaker`](crate::Breaker)). When all are paused, nobody is called: the failure is the transport's condition, transient, and asks to
/// wait until the first may be tried. One transport that is up is enough for the outbox to go on, save for a message that it
/// cannot express: that failure pauses the relay for as long as the relay's own backoff says.
///
/// A transport that fails by its own condition after it refused some recipients by name leaves the next one the others; those refused are
/// in the result.
///
/// [`Receipt::via`] and [`Failure::via`] name the transport. A failure after more than one of them says what each said
/// ([`AllFailed`](crate::AllFailed)). A transport whose name is taken is called `NAME#2`, and so on.
///
/// [`check`](Transport::check) is asked of each transport again before a message is sent, where it costs what it costs there.
///
/// # Batches
/// It takes as many messages as the largest of its transports. For one that takes fewer, a batch is divided, and the parts go out side
/// by side. What may move on is sent by the next one. The results come together, when the last of them is known.
///
/// # Cancel safety
/// A dropped call changes no pause, save by the parts of a batch that were through before. If it was the message that was to find out
/// whether a transport works again, the next message is. The outcome of a dropped batch is unknown for all its messages.
pub struct Failover<M> {
    children: Children<M>,
}

impl<M: Message> Failover<M> {
    /// Begins with the transport to be preferred.
    pub fn new(first: impl Transport<Message = M>) -> Self {
        Self { children: Children::new() }.or(first)
    }

    /// Adds the transport to be asked after those that are here.
    #[must_use]
    pub fn or(mut self, next: impl Transport<Message = M>) -> Self {
        self.children.add(next);
        self
    }

    /// How long a transport is paused after a failure of its own condition, and then after each message that finds it no
    /// better. What the next hop asks for is a lower bound. Default: from 1 s to 5 min.
    #[must_use]
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.children.set_backoff(backoff);
        self
    }
}

/// The first that can.
struct InTurn;

impl Order for InTurn {
    fn pick(&self, able: &[usize]) -> usize {
        able.first().copied().unwrap_or_default()
    }

    fn joins(&self, able: &[usize], picked: usize) -> bool {
        able.first() == Some(&picked)
    }

    fn joined(&self, _able: &[usize], _picked: usize, _more: usize) {}
}

#[deny(clippy::missing_trait_methods)]
impl<M: Message> Transport for Failover<M> {
    type Message = M;

    fn name(&self) -> &str {
        "failover"
    }

    async fn send(&self, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        self.children.send(&InTurn, outgoing).await
    }

    /// One transport that can express the message is enough.
    fn check(&self, message: &M) -> Result<(), Failure> {
        self.children.check(message)
    }

    fn max_batch(&self) -> usize {
        self.children.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<M>]) -> Vec<Result<Receipt, Failure>> {
        self.children.carry(&InTurn, batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.children.paused()
    }
}

impl<M> fmt::Debug for Failover<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failover").field(&self.children).finish()
    }
}
