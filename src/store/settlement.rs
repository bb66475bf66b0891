//! What a relay has a store write when an attempt is over.

use std::fmt;
use std::time::Duration;

use postrider_transport::Recipient;

use super::lease::LeaseKey;
use crate::delivery::Attempt;
use crate::state::RecipientState;

/// How an attempt ended for one recipient who is through with it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientOutcome {
    /// Who.
    pub recipient: Recipient,
    /// [`Sent`](RecipientState::Sent), [`Refused`](RecipientState::Refused), or, where others have it and this one was given up,
    /// [`InDoubt`](RecipientState::InDoubt) or [`Dead`](RecipientState::Dead).
    pub state: RecipientState,
    /// What the next hop answered for this recipient, or why it was given up.
    pub reply: Option<String>,
}

impl RecipientOutcome {
    /// How it ended for one recipient.
    pub fn new(recipient: Recipient, state: RecipientState, reply: Option<String>) -> Self {
        Self { recipient, state, reply }
    }
}

impl fmt::Debug for RecipientOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.recipient, self.state)
    }
}

/// Where a settled delivery goes. Exhaustive: a store must write each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Done.
    Sent,
    /// Due again after this long, by the database's clock.
    Pending {
        /// From the moment of the settlement; at least a millisecond.
        after: Duration,
    },
    /// Given up.
    Dead {
        /// Why, for the operator.
        reason: String,
    },
    /// Held, since it may have been accepted.
    InDoubt {
        /// Why, for the operator.
        reason: String,
    },
}

/// All that one attempt changes, to be written in one transaction, and only if the lease still holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settlement {
    /// The right to do so.
    pub key: LeaseKey,
    /// The attempt, if the transport was called.
    pub attempt: Option<Attempt>,
    /// How many attempts of this cycle count against the budget from now on: [`Lease::charged_attempts`](super::Lease::charged_attempts), one more, or 0 where the budget begins
    /// anew.
    pub charged_attempts: u32,
    /// The recipients who are through, where their outcome differs from the delivery's.
    pub recipients: Vec<RecipientOutcome>,
    /// What the delivery becomes.
    pub next: Next,
}

impl Settlement {
    /// Without an attempt and without outcomes of single recipients.
    pub fn new(key: LeaseKey, charged_attempts: u32, next: Next) -> Self {
        Self { key, attempt: None, charged_attempts, recipients: Vec::new(), next }
    }

    /// With the attempt that led to it.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// With the outcomes of single recipients.
    #[must_use]
    pub fn with_recipients(mut self, recipients: Vec<RecipientOutcome>) -> Self {
        self.recipients = recipients;
        self
    }

    /// Takes NUL characters out of every text: PostgreSQL cannot store them, and a result must not be lost for what a server
    /// put into its answer.
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

    /// Sent to everybody, by the attempt that it brings: what nearly all settlements are, and what a store may write in a
    /// shorter way.
    pub fn is_plainly_sent(&self) -> bool {
        self.next == Next::Sent
            && self.recipients.is_empty()
            && self.attempt.as_ref().is_some_and(Attempt::is_plainly_sent)
    }
}

/// What came of one settlement or renewal. Exhaustive: a store or a relay without an answer to a new case would be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a lost lease means that nothing was written"]
pub enum Settled {
    /// Written.
    Applied,
    /// The lease had passed to somebody else, or the delivery was settled before: nothing was changed.
    LeaseLost,
}
