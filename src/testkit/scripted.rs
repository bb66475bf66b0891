//! A transport that returns scripted results.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use postrider_transport::{DeliveryId, Failure, Message, Outgoing, Receipt, Recipient, TraceParent, Transport};

/// One call of a [`ScriptedTransport`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call<M> {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The number of the attempt over the life of the delivery.
    pub attempt: u32,
    /// The recipients to send to.
    pub recipients: Vec<Recipient>,
    /// The idempotency key.
    pub idempotency_key: String,
    /// The trace context of the request that enqueued the message.
    pub traceparent: Option<TraceParent>,
    /// The message.
    pub message: M,
}

type Answer = Pin<Box<dyn Future<Output = Result<Receipt, Failure>> + Send>>;
type Script<M> = Box<dyn FnMut(&Call<M>) -> Answer + Send>;

/// A transport without a network. It returns scripted answers in the order of the calls. Without a script, and after its end, it accepts
/// every message. Clones share the script and the recorded calls.
///
/// ```
/// use postrider::testkit::ScriptedTransport;
/// use postrider::{Email, Failure, Scope};
/// use postrider::transport::Receipt;
///
/// let transport = ScriptedTransport::<Email>::new()
///     .then(Err(Failure::transient(Scope::Message, "busy")))
///     .then(Ok(Receipt::new().with_provider_id("42")));
/// ```
pub struct ScriptedTransport<M> {
    inner: Arc<Mutex<Inner<M>>>,
}

struct Inner<M> {
    answers: VecDeque<Result<Receipt, Failure>>,
    script: Option<Script<M>>,
    calls: Vec<Call<M>>,
    batch: usize,
}

impl<M: Message> ScriptedTransport<M> {
    /// A transport that accepts every message.
    pub fn new() -> Self {
        let inner = Inner { answers: VecDeque::new(), script: None, calls: Vec::new(), batch: 1 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Adds an answer. The first call gets the first answer, and so on.
    #[must_use]
    pub fn then(self, answer: Result<Receipt, Failure>) -> Self {
        self.with(|inner| inner.answers.push_back(answer));
        self
    }

    /// Answers further calls by a function, after all single answers are used. The call waits for the future that the function returns.
    #[must_use]
    pub fn with_handler<F>(self, mut script: impl FnMut(&Call<M>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Receipt, Failure>> + Send + 'static,
    {
        self.with(|inner| inner.script = Some(Box::new(move |call| Box::pin(script(call)))));
        self
    }

    /// Sets the largest number of messages in a batch.
    #[must_use]
    pub fn with_max_batch(self, messages: usize) -> Self {
        self.with(|inner| inner.batch = messages);
        self
    }

    /// Every call so far, oldest first.
    pub fn calls(&self) -> Vec<Call<M>> {
        self.with(|inner| inner.calls.clone())
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner<M>) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<M: Message> Default for ScriptedTransport<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Clone for ScriptedTransport<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M> fmt::Debug for ScriptedTransport<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedTransport").finish_non_exhaustive()
    }
}

impl<M: Message> Transport for ScriptedTransport<M> {
    type Message = M;

    fn name(&self) -> &str {
        "scripted"
    }

    async fn send(&self, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        let call = Call {
            id: outgoing.id(),
            attempt: outgoing.attempt(),
            recipients: outgoing.recipients().to_vec(),
            idempotency_key: outgoing.idempotency_key(),
            traceparent: outgoing.traceparent(),
            message: outgoing.message().clone(),
        };
        let answer = self.with(|inner| {
            inner.calls.push(call.clone());
            match (inner.answers.pop_front(), inner.script.as_mut()) {
                (Some(answer), _) => Ok(answer),
                (None, Some(script)) => Err(script(&call)),
                (None, None) => Ok(Ok(Receipt::new())),
            }
        });
        match answer {
            Ok(answer) => answer,
            Err(answer) => answer.await,
        }
    }

    fn max_batch(&self) -> usize {
        self.with(|inner| inner.batch)
    }
}
