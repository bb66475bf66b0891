//! One message on its way, with what identifies it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Email, Message, Recipient};

/// The name of a delivery, for its whole life: a UUID of version 7 (RFC 9562), so that ids sort by the time of enqueueing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// A new id.
    #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The UUID.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for DeliveryId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for DeliveryId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One message for one call of a transport.
///
/// The same delivery yields the same bytes at each attempt: [`id`](Self::id) and [`dated_at`](Self::dated_at) never
/// change, and everything that identifies the message (Message-ID, Date, MIME boundaries, idempotency keys) derives from them.
#[derive(Clone)]
pub struct Outgoing<M> {
    id: DeliveryId,
    dated_at: SystemTime,
    attempt: u32,
    cycle: u32,
    recipients: Vec<Recipient>,
    partial: bool,
    /// How many [`Waiting`] marks are set. Clones share them, since they are the same call.
    waiting: Arc<AtomicU32>,
    message: M,
}

/// While this lives, a call only waits, and its message has certainly not been sent: see [`Outgoing::waiting`].
#[derive(Debug)]
#[must_use = "the mark lasts as long as this value: bind it to a name"]
pub struct Waiting(Arc<AtomicU32>);

/// A mark that a panic takes down with it stays: the call ended while its message waited.
impl Drop for Waiting {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<M: Message> Outgoing<M> {
    /// A first attempt at a message, for everyone it names.
    pub fn new(id: DeliveryId, dated_at: SystemTime, message: M) -> Self {
        let recipients = message.recipients();
        Self::addressed(id, dated_at, message, recipients, false)
    }

    /// Narrows the message to the recipients that still want it. Those who took it in an earlier attempt are not in the list.
    #[must_use]
    pub fn with_recipients(mut self, recipients: Vec<Recipient>) -> Self {
        if recipients != self.recipients {
            // The store may have named others than the message does, so that those who are left may be as many as it names.
            let fewer = recipients.len() < self.recipients.len();
            let narrowed = fewer && recipients.iter().all(|recipient| self.recipients.contains(recipient));
            self.partial = narrowed || recipients.len() != self.message.recipients().len();
            self.recipients = recipients;
        }
        self
    }
}

impl Outgoing<Email> {
    /// The mail's Message-ID (RFC 5322 section 3.6.4), with its angle brackets: the delivery's id at the sender's domain.
    pub fn message_id(&self) -> String {
        format!("<{}@{}>", self.id, self.message.from().address().domain())
    }
}

impl<M> Outgoing<M> {
    /// A first attempt at a message for those whom the store names, whatever the message itself does; `partial` says whether others
    /// are left out, because they took it before or were refused for good.
    pub fn addressed(
        id: DeliveryId,
        dated_at: SystemTime,
        message: M,
        recipients: Vec<Recipient>,
        partial: bool,
    ) -> Self {
        Self { id, dated_at, attempt: 1, cycle: 1, recipients, partial, waiting: Arc::default(), message }
    }

    /// Says which attempt over the delivery's life this is, from 1 on, and in which cycle (a resend begins a new one).
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, cycle: u32) -> Self {
        (self.attempt, self.cycle) = (attempt, cycle);
        self
    }

    /// The delivery.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// What the message's Date says: when the delivery was enqueued, or, if it was scheduled for later, when it was first to be
    /// sent; by the database's clock.
    pub fn dated_at(&self) -> SystemTime {
        self.dated_at
    }

    /// Which attempt over the delivery's life this is, from 1 on.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Who is to get the message in this attempt. A transport addresses these, whatever the message's own headers name.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The same, when the message is no longer needed.
    pub fn into_recipients(self) -> Vec<Recipient> {
        self.recipients
    }

    /// Whether some of the message's recipients are left out, because they took it before or were refused for good.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The same delivery with another message, for transports that rewrite what passes through them.
    pub fn map<N>(self, rewrite: impl FnOnce(M) -> N) -> Outgoing<N> {
        Outgoing {
            id: self.id,
            dated_at: self.dated_at,
            attempt: self.attempt,
            cycle: self.cycle,
            recipients: self.recipients,
            partial: self.partial,
            waiting: self.waiting,
            message: rewrite(self.message),
        }
    }

    /// Marks that the call only waits for now: for its turn under a rate limit, for a connection, for whatever comes before the
    /// request itself. Whoever makes the call may drop it meanwhile and know that the message was not sent; a relay that stops or
    /// has lost its lease gives such a message back uncharged. Without a mark, a dropped call is in doubt.
    ///
    /// Drop the mark **before** the first octet that could make the next hop accept the message leaves this process, and before
    /// another transport is called.
    ///
    /// ```
    /// # use postrider_transport::{Email, Outgoing};
    /// # async fn turn() {}
    /// # async fn send(outgoing: &Outgoing<Email>) {
    /// let waiting = outgoing.waiting();
    /// turn().await;
    /// drop(waiting);
    /// // … the request begins.
    /// # }
    /// ```
    pub fn waiting(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(Arc::clone(&self.waiting))
    }

    /// Whether the call only [waits](Self::waiting). Ask before you drop the call's future: with it go its marks.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// A key under which a provider can recognise a retry of this very request: at most 96 ASCII characters.
    ///
    /// It differs between cycles, since an operator who resends wants the mail sent, and between sets of recipients, since a
    /// retry for the one who was busy is another request than the first one for all.
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

/// FNV-1a, 64 bits: the key must be the same in every process and version, which the standard library's hashers do not promise.
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
