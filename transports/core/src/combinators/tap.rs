//! Seeing what passes.

use std::fmt;

use crate::{Failure, Outgoing, Receipt, Transport};

/// Shows a function every message that a transport was given, with what came of it, after each call. For tests, and for whoever
/// counts.
///
/// ```
/// use postrider_transport::{Email, Tap, Transport};
/// # fn example(smtp: impl Transport<Message = Email>) {
/// let transport = Tap::new(smtp, |outgoing, result| println!("{}: {}", outgoing.id(), result.is_ok()));
/// # }
/// ```
///
/// The function is called in the task that sends: it should be quick, and what it panics with is the call's own panic. It sees
/// nothing of a call whose future is dropped.
pub struct Tap<T, F> {
    inner: T,
    see: F,
}

impl<T, F> Tap<T, F>
where
    T: Transport,
    F: Fn(&Outgoing<T::Message>, &Result<Receipt, Failure>) + Send + Sync + 'static,
{
    /// Taps a transport.
    pub fn new(inner: T, see: F) -> Self {
        Self { inner, see }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T, F> Transport for Tap<T, F>
where
    T: Transport,
    F: Fn(&Outgoing<T::Message>, &Result<Receipt, Failure>) + Send + Sync + 'static,
{
    type Message = T::Message;

    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn send(&self, outgoing: &Outgoing<T::Message>) -> Result<Receipt, Failure> {
        let result = self.inner.send(outgoing).await;
        (self.see)(outgoing, &result);
        result
    }

    fn check(&self, message: &T::Message) -> Result<(), Failure> {
        self.inner.check(message)
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<T::Message>]) -> Vec<Result<Receipt, Failure>> {
        let results = self.inner.send_batch(batch).await;
        for (outgoing, result) in batch.iter().zip(&results) {
            (self.see)(outgoing, result);
        }
        results
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.inner.paused()
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Tap<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tap").field(&self.inner).finish()
    }
}
