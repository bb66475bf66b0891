//! A delivery as its readers see it.

use std::fmt;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, Recipient, Scope, mask_addresses};

use crate::state::{Outcome, Priority, RecipientState, State, WhenInDoubt};

/// One delivery, with all that is known of it but the message itself.
#[derive(Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: State,
    /// What it was made from.
    pub template_id: Option<String>,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// What to do in doubt.
    pub when_in_doubt: WhenInDoubt,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// When it is due, or its lease runs out; `None` once it is finished.
    pub due_at: Option<SystemTime>,
    /// When it is no longer worth sending; `None` if it never expires, and once it is finished.
    pub expires_at: Option<SystemTime>,
    /// Which cycle it is in, from 1 on; a resend begins a new one.
    pub cycle: u32,
    /// Why it was given up or is held.
    pub reason: Option<String>,
    /// Everyone it is for, and how it stands with each.
    pub recipients: Vec<RecipientStatus>,
    /// Its history, oldest first.
    pub attempts: Vec<Attempt>,
    /// What of the stored row makes no sense, if something does not. In its place stands what is usual, or nothing.
    pub malformed: Option<String>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("template_id", &self.template_id)
            .field("key", &self.key.as_deref().map(mask_addresses))
            .field("priority", &self.priority)
            .field("when_in_doubt", &self.when_in_doubt)
            .field("created_at", &self.created_at)
            .field("due_at", &self.due_at)
            .field("expires_at", &self.expires_at)
            .field("cycle", &self.cycle)
            .field("reason", &self.reason)
            .field("recipients", &self.recipients)
            .field("attempts", &self.attempts)
            .field("malformed", &self.malformed)
            .finish()
    }
}

/// How it stands with one recipient.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientStatus {
    /// Who.
    pub recipient: Recipient,
    /// How it stands.
    pub state: RecipientState,
    /// What the next hop answered last, where it answered.
    pub reply: Option<String>,
}

impl RecipientStatus {
    /// A recipient with its state, for stores of your own.
    pub fn new(recipient: Recipient, state: RecipientState, reply: Option<String>) -> Self {
        Self { recipient, state, reply }
    }
}

impl fmt::Debug for RecipientStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reply = self.reply.as_deref().map(mask_addresses);
        write!(f, "{:?}: {} ({reply:?})", self.recipient, self.state)
    }
}

/// One line of a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliverySummary {
    /// The delivery.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: State,
    /// What it was made from.
    pub template_id: Option<String>,
    /// How many attempts its history holds.
    pub attempts: u32,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// When it is due, or its lease runs out; `None` once it is finished.
    pub due_at: Option<SystemTime>,
    /// Why it was given up or is held, or else what went wrong last.
    pub last_error: Option<String>,
}

/// One call of a transport, as history keeps it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Counts over the delivery's whole life, from 1 on.
    pub number: u32,
    /// The cycle it belongs to.
    pub cycle: u32,
    /// When the transport was called; for a lost attempt, when the delivery was claimed.
    pub started_at: SystemTime,
    /// When it answered; for a lost attempt, when the loss was noticed.
    pub finished_at: SystemTime,
    /// What came of it.
    pub outcome: Outcome,
    /// Whose condition it failed for; `None` for `sent` and `lost`.
    pub scope: Option<Scope>,
    /// Whether a rule, or the transport's author, stands behind outcome and scope. `false`: they are a guess, and evidence may
    /// overrule them.
    pub sure: bool,
    /// Whether it counts against the budget.
    pub charged: bool,
    /// Why the relay decided as it did, for the operator, where the outcome alone does not say.
    pub note: Option<String>,
    /// What went wrong, with addresses masked.
    pub error: Option<String>,
    /// What the next hop answered, to the letter.
    pub reply: Option<String>,
    /// The next hop's name for the message.
    pub provider_id: Option<String>,
    /// The transport's name, and so where to look the message up. Where it chooses among others, the chosen one's follows after a
    /// slash, as in `failover/ses` (see [`Receipt::via`](crate::transport::Receipt::via)), or those of all that failed in turn (see
    /// [`Failure::via`](crate::Failure::via)), or nothing, if it did not come to say. `None` where no transport was called, since
    /// the stored message could not be read, and for a lost attempt, of which nothing is known.
    pub transport: Option<String>,
}

impl Attempt {
    /// An attempt of which no more is known than this: sure, and charged.
    pub fn new(number: u32, cycle: u32, started_at: SystemTime, finished_at: SystemTime, outcome: Outcome) -> Self {
        Self {
            number,
            cycle,
            started_at,
            finished_at,
            outcome,
            scope: None,
            sure: true,
            charged: true,
            note: None,
            error: None,
            reply: None,
            provider_id: None,
            transport: None,
        }
    }
}

impl Attempt {
    /// Sent, and nothing else to say of it.
    pub(crate) fn is_plainly_sent(&self) -> bool {
        let nothing_to_say = self.scope.is_none() && self.error.is_none() && self.note.is_none();
        self.outcome == Outcome::Sent && self.sure && self.charged && nothing_to_say
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number)
            .field("cycle", &self.cycle)
            .field("outcome", &self.outcome)
            .field("scope", &self.scope)
            .field("sure", &self.sure)
            .field("charged", &self.charged)
            .field("transport", &self.transport)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
