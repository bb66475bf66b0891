//! A transport of any type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{Failure, Message, Outgoing, Receipt, Transport};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The methods of [`Transport`] in a form that `dyn` supports.
trait DynTransport<M>: Send + Sync {
    fn name(&self) -> &str;
    fn send<'a>(&'a self, outgoing: &'a Outgoing<M>) -> BoxFuture<'a, Result<Receipt, Failure>>;
    fn check(&self, message: &M) -> Result<(), Failure>;
    fn max_batch(&self) -> usize;
    fn send_batch<'a>(&'a self, batch: &'a [Outgoing<M>]) -> BoxFuture<'a, Vec<Result<Receipt, Failure>>>;
    fn paused(&self) -> Vec<(String, String)>;
}

impl<T: Transport> DynTransport<T::Message> for T {
    fn name(&self) -> &str {
        Transport::name(self)
    }

    fn send<'a>(&'a self, outgoing: &'a Outgoing<T::Message>) -> BoxFuture<'a, Result<Receipt, Failure>> {
        Box::pin(Transport::send(self, outgoing))
    }

    fn check(&self, message: &T::Message) -> Result<(), Failure> {
        Transport::check(self, message)
    }

    fn max_batch(&self) -> usize {
        Transport::max_batch(self)
    }

    fn send_batch<'a>(&'a self, batch: &'a [Outgoing<T::Message>]) -> BoxFuture<'a, Vec<Result<Receipt, Failure>>> {
        Box::pin(Transport::send_batch(self, batch))
    }

    fn paused(&self) -> Vec<(String, String)> {
        Transport::paused(self)
    }
}

/// Any transport for messages of type `M`, for a choice at run time.
///
/// Cheap to clone; clones share the transport. Each call costs one allocation.
///
/// ```
/// # use postrider_transport::{BoxTransport, Email, Failure, Outgoing, Receipt, Transport};
/// # struct Printer;
/// # impl Transport for Printer {
/// #     type Message = Email;
/// #     fn name(&self) -> &str { "printer" }
/// #     async fn send(&self, _: &Outgoing<Email>) -> Result<Receipt, Failure> { Ok(Receipt::new()) }
/// # }
/// let transport: BoxTransport<Email> = BoxTransport::new(Printer);
/// assert_eq!(transport.name(), "printer");
/// ```
pub struct BoxTransport<M>(Arc<dyn DynTransport<M>>);

impl<M: Message> BoxTransport<M> {
    /// Erases the type of a transport.
    pub fn new<T: Transport<Message = M>>(transport: T) -> Self {
        Self(Arc::new(transport))
    }
}

#[deny(clippy::missing_trait_methods)]
impl<M: Message> Transport for BoxTransport<M> {
    type Message = M;

    fn name(&self) -> &str {
        self.0.name()
    }

    async fn send(&self, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        self.0.send(outgoing).await
    }

    fn check(&self, message: &M) -> Result<(), Failure> {
        self.0.check(message)
    }

    fn max_batch(&self) -> usize {
        self.0.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<M>]) -> Vec<Result<Receipt, Failure>> {
        self.0.send_batch(batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.0.paused()
    }
}

impl<M> Clone for BoxTransport<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for BoxTransport<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoxTransport({})", self.0.name())
    }
}
