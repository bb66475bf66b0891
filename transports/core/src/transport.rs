//! The one trait that everything which carries messages implements.

use std::future::Future;
use std::sync::Arc;

use crate::{Failure, Message, Outgoing, Receipt};

/// Carries messages to the next hop.
///
/// A transport makes **one** try at each call and tells the truth about it; when to try again, and whether, is the
/// outbox's business. Only the first two items must be written:
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
/// The future of a call may be dropped at any point: when the process stops, or when a time limit around it is reached. The
/// call's outcome is then unknown to the outbox, which treats it as in doubt. The transport must stay usable: whatever a
/// dropped call left half-spoken must not be taken for another call's answer.
pub trait Transport: Send + Sync + 'static {
    /// What it carries.
    type Message: Message;

    /// What an operator sees in logs and in the history: `smtp`, `ses`. It must not hold secrets.
    fn name(&self) -> &str;

    /// One call, one attempt, for the recipients in `outgoing` and no others.
    ///
    /// `Ok` says that the next hop accepted the message for everyone not listed in [`Receipt::refused`], and for at least
    /// one.
    ///
    /// # Errors
    /// Nobody got it, or nobody knows ([`Failure::in_doubt`]). What is to happen next follows from
    /// [`class`](Failure::class), [`scope`](Failure::scope) and [`retry_after`](Failure::retry_after).
    fn send(&self, outgoing: &Outgoing<Self::Message>) -> impl Future<Output = Result<Receipt, Failure>> + Send;

    /// Can this transport express the message at all? Asked when a message is enqueued where the outbox has its transport, so
    /// that the caller learns of it at once. It must not do I/O.
    ///
    /// # Errors
    /// Usually [`Unsupported`](crate::Unsupported).
    fn check(&self, message: &Self::Message) -> Result<(), Failure> {
        let _ = message;
        Ok(())
    }

    /// How many messages [`send_batch`](Self::send_batch) takes at once; at least 1. A transport with a batch call
    /// overrides the pair.
    fn max_batch(&self) -> usize {
        1
    }

    /// Sends several messages, at most [`max_batch`](Self::max_batch). The result has one entry for each of them, in their
    /// order. Unless overridden, it sends them one after the other.
    fn send_batch(
        &self,
        batch: &[Outgoing<Self::Message>],
    ) -> impl Future<Output = Vec<Result<Receipt, Failure>>> + Send {
        async move {
            let mut results = Vec::with_capacity(batch.len());
            let turns: Vec<_> = batch.iter().map(Outgoing::waiting).collect();
            for (outgoing, turn) in batch.iter().zip(turns) {
                drop(turn);
                results.push(self.send(outgoing).await);
            }
            results
        }
    }

    /// Of the transports that this one is made of, those that are paused, each with the reason: `ses`, or `round-robin/ses` where it
    /// is deeper within, and what it said. For an operator to see while the others carry the mail; it must hold no secrets and no whole
    /// addresses. Empty unless overridden; one that wraps another passes on what that says.
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
