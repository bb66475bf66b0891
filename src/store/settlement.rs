//! Settlements: what a store writes after an attempt.

use std::fmt;
use std::time::Duration;

use postrider_transport::Recipient;

use super::lease::LeaseKey;
use crate::delivery::Attempt;
use crate::state::RecipientState;

/// The recorded outcome for one recipient, who gets no further attempt in this cycle.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientOutcome {
    /// The recipient.
    pub recipient: Recipient,
    /// [`Sent`](RecipientState::Sent) or [`Refused`](RecipientState::Refused). If other recipients have the mail and this one was given up:
    /// [`InDoubt`](RecipientState::InDoubt) or [`Dead`](RecipientState::Dead).
    pub state: RecipientState,
    /// The reply of the next hop for this recipient, or why the recipient was given up. `None` without a reply.
    pub reply: Option<String>,
}

impl RecipientOutcome {
    /// Creates an outcome.
    pub fn new(recipient: Recipient, state: RecipientState, reply: Option<String>) -> Self {
        Self { recipient, state, reply }
    }
}

impl fmt::Debug for RecipientOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.recipient, self.state)
    }
}

/// The next state of a settled delivery. The enum is exhaustive, since a store must write each state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Sent: the delivery ends.
    Sent,
    /// Due again after a wait.
    Pending {
        /// The wait from the time of the settlement by the database's clock: at least a millisecond.
        after: Duration,
    },
    /// Given up.
    Dead {
        /// The reason, for the operator.
        reason: String,
    },
    /// Held because the message may have been accepted.
    InDoubt {
        /// The reason, for the operator.
        reason: String,
    },
}

/// The result of one attempt. A store writes it in one transaction, and only if the lease is valid.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settlement {
    /// The id and the token of the lease.
    pub key: LeaseKey,
    /// The attempt. `None` if the transport was not called.
    pub attempt: Option<Attempt>,
    /// The new number of attempts of this cycle that count against the budget. It is
    /// [`Lease::charged_attempts`](super::Lease::charged_attempts), one more, or 0 if the budget begins anew.
    pub charged_attempts: u32,
    /// The recipients whose outcome differs from the delivery's.
    pub recipients: Vec<RecipientOutcome>,
    /// The next state of the delivery.
    pub next: Next,
}

impl Settlement {
    /// A settlement without an attempt and without outcomes of single recipients.
    pub fn new(key: LeaseKey, charged_attempts: u32, next: Next) -> Self {
        Self { key, attempt: None, charged_attempts, recipients: Vec::new(), next }
    }

    /// Adds the attempt.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// Adds the outcomes of single recipients.
    #[must_use]
    pub fn with_recipients(mut self, recipients: Vec<RecipientOutcome>) -> Self {
        self.recipients = recipients;
        self
    }

    /// Removes NUL characters from every text. PostgreSQL cannot store them, and a NUL in a reply must not prevent a result from being
    /// written.
    pub(crate) fn make_storable(&mut self) {
        let clean = |text: &mut String| {
            if text.contains('\0') {
                text.retain(|c| c != '\0');
            }
        };
        if let Next::Dead { reason } | Next::InDoubt { reason } = &mut self.next {
            clean(reason);
        }
        if let Some(attempt) = &mut self.attempt {
            let Attempt { error, reply, provider_id, transport, note, .. } = attempt;
            [error, reply, provider_id, transport, note].into_iter().flatten().for_each(clean);
        }
        self.recipients.iter_mut().filter_map(|outcome| outcome.reply.as_mut()).for_each(clean);
    }

    /// Whether this settlement records a plain success: the attempt sent the message to everybody, is sure and charged, and has no scope,
    /// error or note. Nearly all settlements are like that, and a store may write them in a shorter way.
    pub fn is_plainly_sent(&self) -> bool {
        self.next == Next::Sent
            && self.recipients.is_empty()
            && self.attempt.as_ref().is_some_and(Attempt::is_plainly_sent)
    }
}

/// The result of one settlement or renewal. The enum is exhaustive, since stores and relays must handle each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a lost lease means that nothing was written"]
pub enum Settled {
    /// Written.
    Applied,
    /// Nothing was changed: another relay has claimed the delivery, or it was settled before.
    LeaseLost,
}
