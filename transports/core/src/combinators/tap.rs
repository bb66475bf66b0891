//! Calls a function for each message.

use std::fmt;

use crate::{Failure, Outgoing, Receipt, Transport};

/// Calls a function with each message and its result, for tests and metrics.
///
/// ```
/// use postrider_transport::{Email, Tap, Transport};
/// # fn example(smtp: impl Transport<Message = Email>) {
/// let transport = Tap::new(smtp, |outgoing, result| println!("{}: {}", outgoing.id(), result.is_ok()));
/// # }
/// ```
///
/// The function runs in the sending task after each call, so it must be quick. If it panics, the call panics. It does not run for a
/// call whose future is dropped.
pub struct Tap<T, F> {
    inner: T,
    inspect: F,
}

impl<T, F> Tap<T, F>
where
    T: Transport,
    F: Fn(&Outgoing<T::Message>, &Result<Receipt, Failure>) + Send + Sync + 'static,
{
    /// Wraps a transport.
    pub fn new(inner: T, inspect: F) -> Self {
        Self { inner, inspect }
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
        (self.inspect)(outgoing, &result);
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
            (self.inspect)(outgoing, result);
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
