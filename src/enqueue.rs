//! Enqueueing: a message with its options, and the calls that put it into the outbox.

use std::fmt;
use std::time::{Duration, SystemTime};

use postrider_transport::{CodecError, DeliveryId, Failure, Message, TraceParent, mask_addresses};

use crate::outbox::{AcceptMessages, Outbox};
use crate::state::{Priority, WhenInDoubt};
use crate::store::{NewRow, Store, StoreError, When};

/// A message with the options of its delivery. A bare message has the default options.
///
/// ```
/// use std::time::Duration;
/// use postrider::{Email, NewDelivery, Priority, WhenInDoubt};
///
/// # fn demo() -> Result<(), postrider::EmailError> {
/// let email = Email::builder().from("bank@example.com").to("ada@example.com").text("Your code is 123456").build()?;
/// let delivery = NewDelivery::new(email)
///     .key("login-code-8f14e45f")
///     .expires_in(Duration::from_secs(600))
///     .priority(Priority::URGENT)
///     .when_in_doubt(WhenInDoubt::Hold);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct NewDelivery<M> {
    pub(crate) message: M,
    key: Option<String>,
    priority: Priority,
    due: Option<When>,
    expires: Option<When>,
    when_in_doubt: WhenInDoubt,
    traceparent: Option<TraceParent>,
}

impl<M: Message> NewDelivery<M> {
    /// Creates a delivery with the default options: due now, no expiry of its own, normal priority, and sent again if in doubt.
    pub fn new(message: M) -> Self {
        Self {
            message,
            key: None,
            priority: Priority::default(),
            due: None,
            expires: None,
            when_in_doubt: WhenInDoubt::default(),
            traceparent: None,
        }
    }

    /// Sets an idempotency key of 1 to 255 characters, unique in the outbox.
    ///
    /// While the key is taken, enqueueing another delivery with it adds nothing and returns the id of the first. The key is taken until the
    /// delivery is deleted, or for as long as [`Prune::keep_keys`](crate::Prune::keep_keys) says.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the earliest time to send, by the database's clock.
    #[must_use]
    pub fn send_at(mut self, time: SystemTime) -> Self {
        self.due = Some(When::At(time));
        self
    }

    /// Sets how long to wait before the first attempt.
    #[must_use]
    pub fn send_in(mut self, wait: Duration) -> Self {
        self.due = Some(When::After(wait));
        self
    }

    /// Sets the latest time to send, by the database's clock. A delivery that was not sent by then becomes a dead letter.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires = Some(When::At(time));
        self
    }

    /// Sets the latest time to send, as a duration from now.
    #[must_use]
    pub fn expires_in(mut self, age: Duration) -> Self {
        self.expires = Some(When::After(age));
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets what to do if the message may have been accepted. Default: [`WhenInDoubt::Resend`].
    #[must_use]
    pub fn when_in_doubt(mut self, policy: WhenInDoubt) -> Self {
        self.when_in_doubt = policy;
        self
    }

    /// Sets the trace context of the request that enqueues the message, so that a trace shows the request together with the attempts to
    /// send the message. Default: none, or that of [`Outbox::trace_context`].
    ///
    /// An invalid header must be ignored: pass `header.parse::<TraceParent>().ok()`.
    #[must_use]
    pub fn traceparent(mut self, parent: impl Into<Option<TraceParent>>) -> Self {
        self.traceparent = parent.into();
        self
    }

    /// The row that the store inserts. `current` is the trace context of a delivery that has none of its own.
    pub(crate) fn into_row(self, current: Option<TraceParent>) -> Result<NewRow, EnqueueError> {
        if let Some(key) = &self.key {
            let length = key.chars().count();
            if length == 0 || length > NewRow::MAX_KEY || key.contains('\0') {
                return Err(EnqueueError::Key);
            }
        }
        let recipients = self.message.recipients();
        if recipients.is_empty() {
            return Err(EnqueueError::NoRecipient);
        }
        let template_id = self.message.template_id().map(str::to_owned);
        let summary = self.message.summary();
        let message = self.message.encode().map_err(EnqueueError::Encode)?;
        let row = NewRow {
            summary,
            template_id,
            key: self.key,
            priority: self.priority,
            due: self.due,
            expires: self.expires,
            when_in_doubt: self.when_in_doubt,
            traceparent: self.traceparent.or(current),
            ..NewRow::new(DeliveryId::new(), message, recipients)
        };
        match row.excess() {
            Some(what) => Err(EnqueueError::TooLarge(what)),
            None => Ok(row),
        }
    }
}

impl<M: fmt::Debug> fmt::Debug for NewDelivery<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDelivery")
            .field("message", &self.message)
            .field("key", &self.key.as_deref().map(mask_addresses))
            .field("priority", &self.priority)
            .field("due", &self.due)
            .field("expires", &self.expires)
            .field("when_in_doubt", &self.when_in_doubt)
            .field("traceparent", &self.traceparent)
            .finish()
    }
}

impl<M: Message> From<M> for NewDelivery<M> {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}

impl<S: Store, T: AcceptMessages> Outbox<S, T> {
    /// Enqueues a message in a transaction of its own. To commit it together with your own data, use [`enqueue_in`](Self::enqueue_in).
    ///
    /// # Errors
    /// If the transport does not support the message, the message cannot be stored, or the database fails. Then nothing was added.
    ///
    /// # Cancel safety
    /// If the future is dropped, the message may have been added or not. With an idempotency key, the call can be repeated safely.
    pub async fn enqueue(&self, delivery: impl Into<NewDelivery<T::Message>>) -> Result<DeliveryId, EnqueueError> {
        let row = self.row(delivery.into(), self.current_trace())?;
        let id = row.id;
        let ids = self.store().insert(vec![row]).await?;
        Ok(ids.first().copied().unwrap_or(id))
    }

    /// Enqueues a message in the caller's transaction. The message exists if and only if that transaction commits.
    ///
    /// The type of `connection` depends on the store: for a `SqliteStore`, pass `&mut tx` of an sqlx transaction. Relays of this process
    /// poll several times in the next second. To wake them at once, call [`wake`](Self::wake) after the commit.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue). After an error of the database, roll the transaction back.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back.
    pub async fn enqueue_in(
        &self,
        connection: &mut S::Connection,
        delivery: impl Into<NewDelivery<T::Message>>,
    ) -> Result<DeliveryId, EnqueueError> {
        let row = self.row(delivery.into(), self.current_trace())?;
        let id = row.id;
        let ids = self.store().insert_in(connection, vec![row]).await?;
        Ok(ids.first().copied().unwrap_or(id))
    }

    /// Enqueues many messages, all or none, much faster than one by one. Returns the id of each, in order.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), for the first message that is refused.
    ///
    /// # Cancel safety
    /// As [`enqueue`](Self::enqueue): all messages may have been added, or none.
    pub async fn enqueue_all<I>(&self, deliveries: I) -> Result<Vec<DeliveryId>, EnqueueError>
    where
        I: IntoIterator<Item: Into<NewDelivery<T::Message>>>,
    {
        let rows = self.rows(deliveries)?;
        Ok(self.store().insert(rows).await?)
    }

    /// Enqueues many messages in the caller's transaction, all or none. Returns the id of each, in order.
    ///
    /// # Errors
    /// As [`enqueue_in`](Self::enqueue_in), for the first message that is refused.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back.
    pub async fn enqueue_all_in<I>(
        &self,
        connection: &mut S::Connection,
        deliveries: I,
    ) -> Result<Vec<DeliveryId>, EnqueueError>
    where
        I: IntoIterator<Item: Into<NewDelivery<T::Message>>>,
    {
        let rows = self.rows(deliveries)?;
        Ok(self.store().insert_in(connection, rows).await?)
    }

    fn rows<I>(&self, deliveries: I) -> Result<Vec<NewRow>, EnqueueError>
    where
        I: IntoIterator<Item: Into<NewDelivery<T::Message>>>,
    {
        let current = self.current_trace();
        deliveries.into_iter().map(|delivery| self.row(delivery.into(), current)).collect()
    }

    fn row(&self, delivery: NewDelivery<T::Message>, current: Option<TraceParent>) -> Result<NewRow, EnqueueError> {
        self.transport().accepts(&delivery.message).map_err(EnqueueError::Unsupported)?;
        delivery.into_row(current)
    }
}

/// Why messages were not enqueued. The call has enqueued none of them.
#[derive(Debug)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The transport cannot carry such a message. Change the message.
    Unsupported(Failure),
    /// The message cannot be encoded for the store. Change the message.
    Encode(CodecError),
    /// The message has no recipient.
    NoRecipient,
    /// The idempotency key is empty, longer than 255 characters, or contains NUL (U+0000).
    Key,
    /// The message exceeds a limit of the stores, which the text names. The limits are [`NewRow::MAX_BODY`] and the constants beside it.
    TooLarge(&'static str),
    /// The database failed. Roll back a transaction of your own.
    Store(StoreError),
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(failure) => write!(f, "the transport cannot carry this message: {failure}"),
            Self::Encode(error) => write!(f, "the message cannot be stored: {error}"),
            Self::NoRecipient => f.write_str("the message has no recipient"),
            Self::Key => f.write_str("an idempotency key must have 1 to 255 characters, and no NUL"),
            Self::TooLarge(what) => write!(f, "the message has {what}"),
            Self::Store(error) => write!(f, "the message could not be enqueued: {error}"),
        }
    }
}

impl std::error::Error for EnqueueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unsupported(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::NoRecipient | Self::Key | Self::TooLarge(_) => None,
        }
    }
}

impl From<StoreError> for EnqueueError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use postrider_transport::{Encoded, Recipient};

    use super::*;
    use crate::MemoryStore;
    use crate::state::State;

    /// A message of any size, template and recipients.
    #[derive(Clone)]
    struct Sized {
        bytes: usize,
        recipients: Vec<String>,
        template_id: String,
    }

    impl Message for Sized {
        fn encode(&self) -> Result<Encoded, CodecError> {
            Ok(Encoded::new("sized/1", "x".repeat(self.bytes)))
        }

        fn decode(_: &Encoded) -> Result<Self, CodecError> {
            Err(CodecError::new("it is only enqueued"))
        }

        fn recipients(&self) -> Vec<Recipient> {
            self.recipients.iter().map(Recipient::new).collect()
        }

        fn template_id(&self) -> Option<&str> {
            Some(&self.template_id)
        }
    }

    #[tokio::test]
    async fn a_message_beyond_a_limit_of_the_stores_is_refused() {
        let outbox = Outbox::new(MemoryStore::new(), crate::EnqueueOnly::<Sized>::new());
        let largest = Sized {
            bytes: NewRow::MAX_BODY,
            recipients: vec!["é".repeat(NewRow::MAX_RECIPIENT); NewRow::MAX_RECIPIENTS],
            template_id: "é".repeat(NewRow::MAX_TEMPLATE_ID),
        };
        let id = outbox.enqueue(largest.clone()).await.expect("it fits");
        assert_eq!(outbox.get(id).await.expect("it is there").map(|delivery| delivery.state), Some(State::Pending));
        let larger = [
            Sized { bytes: NewRow::MAX_BODY + 1, ..largest.clone() },
            Sized { recipients: vec!["a".to_owned(); NewRow::MAX_RECIPIENTS + 1], ..largest.clone() },
            Sized { recipients: vec!["é".repeat(NewRow::MAX_RECIPIENT + 1)], ..largest.clone() },
            Sized { template_id: "é".repeat(NewRow::MAX_TEMPLATE_ID + 1), ..largest },
        ];
        for larger in larger {
            let error = outbox.enqueue(larger).await.expect_err("it is too large");
            assert!(matches!(error, EnqueueError::TooLarge(_)), "{error}");
        }
        assert_eq!(outbox.stats().await.expect("counting works").pending, 1);
    }
}
