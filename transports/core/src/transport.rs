//! The trait of all transports.

use std::future::Future;
use std::sync::Arc;

use crate::{Failure, Message, Outgoing, Receipt};

/// Carries messages to the next hop.
///
/// Each call makes **one** attempt. The relay decides whether and when to try again. Three items are required:
///
/// ```
/// use postrider_transport::{Email, Failure, Outgoing, Receipt, Transport};
///
/// struct Printer;
///
/// impl Transport for Printer {
///     type Message = Email;
///
///     fn name(&self) -> &str { "printer" }
///
///     async fn send(&self, mail: &Outgoing<Email>) -> Result<Receipt, Failure> {
///         println!("{} has {} recipients", mail.id(), mail.recipients().len());
///         Ok(Receipt::new())
///     }
/// }
/// ```
///
/// # Cancel safety
/// The future of a call may be dropped at any point: when the process stops, or at a time limit. The relay then treats the message as
/// in doubt, unless it is marked as [waiting](Outgoing::waiting). The transport must stay usable: it must not take the answer to a
/// dropped call for the answer to another one.
pub trait Transport: Send + Sync + 'static {
    /// The type of the messages.
    type Message: Message;

    /// The name in logs and in the history: `smtp`, `ses`. It must not hold secrets.
    fn name(&self) -> &str;

    /// Sends the message once, to the recipients in `outgoing` and no others.
    ///
    /// `Ok` means that the next hop accepted the message for at least one recipient, and for every recipient that is not in
    /// [`Receipt::refused`].
    ///
    /// # Errors
    /// [`Failure`] if the next hop accepted it for nobody, or if the outcome is unknown ([`Failure::in_doubt`]).
    fn send(&self, outgoing: &Outgoing<Self::Message>) -> impl Future<Output = Result<Receipt, Failure>> + Send;

    /// Checks whether this transport supports the message. It must not do I/O. Default: `Ok`.
    ///
    /// An outbox that has a transport calls this before it enqueues a message, so that the caller gets the error.
    ///
    /// # Errors
    /// Usually [`Unsupported`](crate::Unsupported).
    fn check(&self, message: &Self::Message) -> Result<(), Failure> {
        let _ = message;
        Ok(())
    }

    /// The largest batch that [`send_batch`](Self::send_batch) takes, in messages. At least 1, the default.
    ///
    /// A transport with batches overrides both methods.
    fn max_batch(&self) -> usize {
        1
    }

    /// Sends at most [`max_batch`](Self::max_batch) messages. Returns one result per message, in the same order.
    ///
    /// The default sends one message after the other.
    fn send_batch(
        &self,
        batch: &[Outgoing<Self::Message>],
    ) -> impl Future<Output = Vec<Result<Receipt, Failure>>> + Send {
        async move {
            let mut results = Vec::with_capacity(batch.len());
            let marks: Vec<_> = batch.iter().map(Outgoing::waiting).collect();
            for (outgoing, mark) in batch.iter().zip(marks) {
                drop(mark);
                results.push(self.send(outgoing).await);
            }
            results
        }
    }

    /// The inner transports that are paused: each name with the reason. Default: none.
    ///
    /// Names of nested transports are separated by a slash: `round-robin/ses`. The relay reports them to the operator while other
    /// transports carry the mail. They must not hold secrets or whole addresses. A transport that wraps another returns the inner list.
    fn paused(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Arc<T> {
    type Message = T::Message;

    fn name(&self) -> &str {
        (**self).name()
    }

    async fn send(&self, outgoing: &Outgoing<Self::Message>) -> Result<Receipt, Failure> {
        (**self).send(outgoing).await
    }

    fn check(&self, message: &Self::Message) -> Result<(), Failure> {
        (**self).check(message)
    }

    fn max_batch(&self) -> usize {
        (**self).max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<Self::Message>]) -> Vec<Result<Receipt, Failure>> {
        (**self).send_batch(batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        (**self).paused()
    }
}
