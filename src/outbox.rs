//! The outbox: a store and a transport.

use std::fmt;
use std::sync::Arc;

use postrider_transport::{Email, Failure, Message, TraceParent, Transport};

use crate::check_as::{Check, CheckAsError};
use crate::relay::Relay;
use crate::store::Store;

/// Decides which messages an outbox accepts: a [`Transport`], or [`EnqueueOnly`] if another process sends. The trait is sealed.
pub trait AcceptMessages: sealed::Sealed + Send + Sync + 'static {
    /// The type of the messages.
    type Message: Message;

    /// Refuses a message that cannot be carried.
    #[doc(hidden)]
    fn accepts(&self, message: &Self::Message) -> Result<(), Failure>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

impl<T: Transport> sealed::Sealed for T {}

impl<T: Transport> AcceptMessages for T {
    type Message = T::Message;

    fn accepts(&self, message: &Self::Message) -> Result<(), Failure> {
        self.check(message)
    }
}

/// Takes the place of the transport in a process that only enqueues.
///
/// It accepts every message, unless a check is set. What the relay's transport does not support is then refused only when it is sent, and
/// becomes a dead letter. With a check, the caller gets the error:
///
/// ```
/// # #[cfg(feature = "smtp")]
/// # fn demo<S: postrider::Store>(store: S) -> Result<(), postrider::CheckAsError> {
/// use postrider::{EnqueueOnly, Outbox};
///
/// // Another process sends the mail by SMTP.
/// let outbox = Outbox::new(store, EnqueueOnly::new().check_as("smtp")?);
/// # Ok(()) }
/// ```
///
/// [`Outbox::handle`] uses this type too, so that an application need not name the transport's type.
pub struct EnqueueOnly<M = Email> {
    /// A message must pass all of them.
    checks: Vec<Arc<dyn AcceptMessages<Message = M>>>,
}

impl<M: Message> EnqueueOnly<M> {
    /// Accepts all messages of type `M`. Another process sends them.
    pub fn new() -> Self {
        Self { checks: Vec::new() }
    }

    /// Refuses what this transport [does not support](Transport::check), for a transport of your own, a combined one, or one whose settings
    /// matter. It sends nothing. A message must pass each check that is added.
    #[must_use]
    pub fn check_with<T: Transport<Message = M>>(self, transport: T) -> Self {
        self.with(Arc::new(transport))
    }

    fn with(mut self, check: Arc<dyn AcceptMessages<Message = M>>) -> Self {
        self.checks.push(check);
        self
    }
}

impl EnqueueOnly<Email> {
    /// Refuses what the transport of this name does not support: `smtp`, `ses`, `postmark`, and so on, as its feature is called. The
    /// check needs no credentials and no network. A message must pass each check that is added.
    ///
    /// It knows the limits that a transport has by itself. Those of your account and of your server show only when a mail is sent.
    ///
    /// # Errors
    /// If no transport has this name, or this build lacks its feature.
    pub fn check_as(self, transport: &str) -> Result<Self, CheckAsError> {
        Ok(self.with(Arc::new(Check::named(transport)?)))
    }

    #[cfg(feature = "mailbox")]
    pub(crate) fn has_checks(&self) -> bool {
        !self.checks.is_empty()
    }
}

impl<M> Clone for EnqueueOnly<M> {
    fn clone(&self) -> Self {
        Self { checks: self.checks.clone() }
    }
}

impl<M: Message> Default for EnqueueOnly<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> fmt::Debug for EnqueueOnly<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnqueueOnly")
    }
}

impl<M: Message> sealed::Sealed for EnqueueOnly<M> {}

impl<M: Message> AcceptMessages for EnqueueOnly<M> {
    type Message = M;

    fn accepts(&self, message: &M) -> Result<(), Failure> {
        self.checks.iter().try_for_each(|check| check.accepts(message))
    }
}

/// A transactional outbox. It keeps messages in a store `S`, and sends them by a transport `T`.
///
/// Cheap to clone; clones share the store and the transport.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::{Email, MemoryStore, Outbox};
///
/// let store = MemoryStore::new();
/// let outbox = Outbox::enqueue_only(store.clone());
///
/// let mut tx = store.begin();
/// let email = Email::builder().from("hello@example.com").to("ada@example.com").text("Welcome!").build()?;
/// let id = outbox.enqueue_in(&mut tx, email).await?;
/// assert!(outbox.get(id).await?.is_none(), "nothing is there before the commit");
/// tx.commit();
/// assert!(outbox.get(id).await?.is_some());
/// # Ok(()) }
/// ```
pub struct Outbox<S, T = EnqueueOnly<Email>> {
    store: S,
    transport: Arc<T>,
    trace_context: Option<TraceContext>,
}

/// The function of [`Outbox::trace_context`].
type TraceContext = Arc<dyn Fn() -> Option<TraceParent> + Send + Sync>;

impl<S: Store> Outbox<S> {
    /// Creates an outbox that only enqueues. Another process sends the mail. [`EnqueueOnly`] can check what that process's transport
    /// supports.
    pub fn enqueue_only(store: S) -> Self {
        Self::new(store, EnqueueOnly::new())
    }
}

impl<S: Store, T: AcceptMessages> Outbox<S, T> {
    /// Creates an outbox over a store and a transport.
    pub fn new(store: S, transport: T) -> Self {
        Self { store, transport: Arc::new(transport), trace_context: None }
    }

    /// Sets a function that returns the trace context of the request in progress, or `None` outside of a request. A delivery without a
    /// trace context of its own ([`NewDelivery::traceparent`](crate::NewDelivery::traceparent)) gets this one.
    ///
    /// Each call that enqueues calls the function once, on the caller's task and before it waits for anything, so that the current span of
    /// `tracing` or the current context of OpenTelemetry is the caller's. Clones and [handles](Self::handle) made afterwards have it too.
    /// `docs/monitoring.md` has the function for OpenTelemetry, and [`Relay::link_spans`](crate::Relay::link_spans) is its counterpart.
    ///
    /// ```
    /// use postrider::{MemoryStore, Outbox, TraceParent};
    ///
    /// tokio::task_local! {
    ///     /// The header `traceparent` of the request in progress.
    ///     static TRACE: Option<TraceParent>;
    /// }
    ///
    /// let outbox = Outbox::enqueue_only(MemoryStore::new()).trace_context(|| TRACE.try_get().ok().flatten());
    /// ```
    #[must_use]
    pub fn trace_context(mut self, current: impl Fn() -> Option<TraceParent> + Send + Sync + 'static) -> Self {
        self.trace_context = Some(Arc::new(current));
        self
    }

    /// Notifies the relays of this process that something may be due.
    pub fn wake(&self) {
        self.store.wake();
    }
}

impl<S: Store, T: Transport> Outbox<S, T> {
    /// Returns the same outbox without the transport in its type, for an application's state.
    ///
    /// It has every method except [`relay`](Self::relay). It still refuses messages that the transport does not support.
    ///
    /// ```
    /// # fn demo<T: postrider::Transport<Message = postrider::Email>>(transport: T) {
    /// use postrider::{MemoryStore, Outbox};
    ///
    /// struct App {
    ///     outbox: Outbox<MemoryStore>,
    /// }
    ///
    /// let outbox = Outbox::new(MemoryStore::new(), transport);
    /// let app = App { outbox: outbox.handle() };
    /// let relay = outbox.relay();
    /// # let _ = (app.outbox, relay);
    /// # }
    /// ```
    pub fn handle(&self) -> Outbox<S, EnqueueOnly<T::Message>> {
        let trace_context = self.trace_context.clone();
        let checked = EnqueueOnly::new().with(Arc::clone(&self.transport) as _);
        Outbox { trace_context, ..Outbox::new(self.store.clone(), checked) }
    }

    /// Creates a relay for this outbox. Configure it and run it. Any number of relays may run at once, in any number of processes.
    pub fn relay(&self) -> Relay<S, T> {
        Relay::new(self.store.clone(), Arc::clone(&self.transport))
    }
}

impl<S, T> Outbox<S, T> {
    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The trace context of the caller.
    pub(crate) fn current_trace(&self) -> Option<TraceParent> {
        self.trace_context.as_ref().and_then(|current| current())
    }
}

impl<S: Clone, T> Clone for Outbox<S, T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            transport: Arc::clone(&self.transport),
            trace_context: self.trace_context.clone(),
        }
    }
}

impl<S, T> fmt::Debug for Outbox<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use postrider_transport::{Email, Failure, Outgoing, Receipt, Scope, Transport, Unsupported};

    use super::*;
    use crate::{EnqueueError, MemoryStore};

    /// Carries text, and no HTML.
    struct PlainText;

    impl Transport for PlainText {
        type Message = Email;

        fn name(&self) -> &'static str {
            "plain"
        }

        fn check(&self, email: &Email) -> Result<(), Failure> {
            email.html().map_or(Ok(()), |_| Err(Unsupported::new("HTML").into()))
        }

        async fn send(&self, _: &Outgoing<Email>) -> Result<Receipt, Failure> {
            Ok(Receipt::new())
        }
    }

    #[tokio::test]
    async fn a_handle_enqueues_into_the_same_outbox_and_refuses_what_its_transport_refuses() {
        let outbox = Outbox::new(MemoryStore::new(), PlainText);
        let handle: Outbox<MemoryStore> = outbox.handle();
        let email = || Email::builder().from("shop@example.com").to("ada@example.com");
        let refused = handle.enqueue(email().html("<p>Hello</p>").build().unwrap()).await.unwrap_err();
        assert!(
            matches!(&refused, EnqueueError::Unsupported(failure) if failure.scope() == Scope::Message),
            "{refused}"
        );
        let id = handle.enqueue(email().text("Hello").build().unwrap()).await.unwrap();
        assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
        assert_eq!(handle.get(id).await.unwrap().unwrap().state, crate::State::Sent);
        assert_eq!(handle.stats().await.unwrap().sent, 1);
    }
}
