//! A message for one attempt.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{DeliveryId, Email, Message, Recipient, TraceParent};

/// A message for one attempt, with its delivery id and recipients.
///
/// Every attempt at a delivery sends the same bytes: [`id`](Self::id) and [`dated_at`](Self::dated_at) never change, and the
/// Message-ID, the Date, the MIME boundaries and the idempotency key derive from them.
#[derive(Clone)]
pub struct Outgoing<M> {
    id: DeliveryId,
    dated_at: SystemTime,
    attempt: u32,
    cycle: u32,
    recipients: Vec<Recipient>,
    partial: bool,
    traceparent: Option<TraceParent>,
    /// The number of [`Waiting`] marks. Clones share it, because they belong to the same call.
    waiting: Arc<AtomicU32>,
    message: M,
}

/// Marks a message as not sent yet, until it is dropped: see [`Outgoing::waiting`].
#[derive(Debug)]
#[must_use = "the mark lasts as long as this value: bind it to a name"]
pub struct Waiting(Arc<AtomicU32>);

/// A mark that is dropped by a panic stays set: the call ended before the message was sent.
impl Drop for Waiting {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<M: Message> Outgoing<M> {
    /// The first attempt at a message, for all its recipients.
    pub fn new(id: DeliveryId, dated_at: SystemTime, message: M) -> Self {
        let recipients = message.recipients();
        Self::for_recipients(id, dated_at, message, recipients, false)
    }

    /// Replaces the recipients of this attempt, for example by those that have not got the message yet.
    #[must_use]
    pub fn with_recipients(mut self, recipients: Vec<Recipient>) -> Self {
        if recipients != self.recipients {
            // The recipients in the store may differ from those in the message, so the counts alone do not show a removal.
            let fewer = recipients.len() < self.recipients.len();
            let before: HashSet<_> = if fewer { self.recipients.iter().collect() } else { HashSet::new() };
            let removed = fewer && recipients.iter().all(|recipient| before.contains(recipient));
            self.partial = removed || recipients.len() != self.message.recipients().len();
            self.recipients = recipients;
        }
        self
    }
}

impl Outgoing<Email> {
    /// The Message-ID with its angle brackets: the delivery id at the domain of From (RFC 5322 section 3.6.4).
    pub fn message_id(&self) -> String {
        format!("<{}@{}>", self.id, self.message.from().address().domain())
    }
}

impl<M> Outgoing<M> {
    /// The first attempt at a message for these recipients, in place of those that the message names.
    ///
    /// `partial`: whether recipients are left out, because they got the message before or were refused permanently.
    pub fn for_recipients(
        id: DeliveryId,
        dated_at: SystemTime,
        message: M,
        recipients: Vec<Recipient>,
        partial: bool,
    ) -> Self {
        Self {
            id,
            dated_at,
            attempt: 1,
            cycle: 1,
            recipients,
            partial,
            traceparent: None,
            waiting: Arc::default(),
            message,
        }
    }

    /// Sets the number of the attempt and of the cycle: see [`attempt`](Self::attempt). Both count from 1; a resend starts a cycle.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, cycle: u32) -> Self {
        (self.attempt, self.cycle) = (attempt, cycle);
        self
    }

    /// Sets the trace context of the request that enqueued the message: see [`traceparent`](Self::traceparent).
    #[must_use]
    pub fn with_traceparent(mut self, parent: Option<TraceParent>) -> Self {
        self.traceparent = parent;
        self
    }

    /// The id of the delivery.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// The time for the Date header: when the delivery was enqueued or, if it was scheduled, when it was first due.
    ///
    /// By the database's clock.
    pub fn dated_at(&self) -> SystemTime {
        self.dated_at
    }

    /// The number of this attempt over the delivery's life. Counts from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The trace context of the request that enqueued the message. `None` if none was stored.
    ///
    /// It is not the context of this attempt. It can be passed on to a next hop of your own, but not to the recipients.
    pub fn traceparent(&self) -> Option<TraceParent> {
        self.traceparent
    }

    /// The recipients of this attempt. A transport sends to these, and not to those in the message's headers.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The recipients of this attempt, by value.
    pub fn into_recipients(self) -> Vec<Recipient> {
        self.recipients
    }

    /// Whether recipients are left out, because they got the message before or were refused permanently.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// Replaces the message, for a transport that rewrites messages.
    pub fn map<N>(self, rewrite: impl FnOnce(M) -> N) -> Outgoing<N> {
        Outgoing {
            id: self.id,
            dated_at: self.dated_at,
            attempt: self.attempt,
            cycle: self.cycle,
            recipients: self.recipients,
            partial: self.partial,
            traceparent: self.traceparent,
            waiting: self.waiting,
            message: rewrite(self.message),
        }
    }

    /// Marks the message as not sent yet, while the call waits for a rate limit or a connection.
    ///
    /// A call that is dropped while the mark is set did not send its message. A relay that stops then returns the message to the queue,
    /// and the attempt does not count. Without a mark, a dropped call is in doubt.
    ///
    /// Drop the mark before the process sends an octet that can make the next hop accept the message, and before it calls another
    /// transport.
    ///
    /// ```
    /// # use postrider_transport::{Email, Outgoing};
    /// # async fn turn() {}
    /// # async fn send(outgoing: &Outgoing<Email>) {
    /// let waiting = outgoing.waiting();
    /// turn().await;
    /// drop(waiting);
    /// // Send the request.
    /// # }
    /// ```
    pub fn waiting(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(Arc::clone(&self.waiting))
    }

    /// Whether the message is marked as [not sent yet](Self::waiting). Read this before you drop the call's future, which holds the
    /// marks.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// A key by which a provider recognises a retry of the same request: at most 96 ASCII characters.
    ///
    /// A resend by an operator gets another key, because it must send the mail again. So does an attempt for other recipients.
    pub fn idempotency_key(&self) -> String {
        let mut key = format!("{}-{}", self.id, self.cycle);
        if self.is_partial() {
            key.push('-');
            key.push_str(&format!("{:016x}", fnv1a(&self.recipients)));
        }
        key
    }

    /// [`dated_at`](Self::dated_at) in seconds since the Unix epoch.
    pub fn dated_unix(&self) -> u64 {
        self.dated_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// FNV-1a with 64 bits. The key must be the same in every process and version; the standard library's hashers do not promise that.
fn fnv1a(recipients: &[Recipient]) -> u64 {
    let mut sorted: Vec<_> = recipients.iter().map(Recipient::as_str).collect();
    sorted.sort_unstable();
    sorted
        .join("\n")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<M> fmt::Debug for Outgoing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("cycle", &self.cycle)
            .field("recipients", &self.recipients.len())
            .finish_non_exhaustive()
    }
}
