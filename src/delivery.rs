//! The deliveries and attempts that operators read.

use std::fmt;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, Recipient, Scope, TraceParent, mask_addresses};

use crate::state::{Outcome, Priority, RecipientState, State, WhenInDoubt};

/// One delivery with its recipients and its history, without the message.
#[derive(Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// Unique id.
    pub id: DeliveryId,
    /// Current state.
    pub state: State,
    /// The subject. `None` if the message has none.
    pub subject: Option<String>,
    /// The template's name. `None` if the message has none.
    pub template_id: Option<String>,
    /// The tags of the message.
    pub tags: Vec<String>,
    /// The caller's idempotency key. `None` if none was given.
    pub key: Option<String>,
    /// The priority.
    pub priority: Priority,
    /// What to do if the message may have been accepted.
    pub when_in_doubt: WhenInDoubt,
    /// The trace context of the request that enqueued it. `None` if none is stored, or if it is invalid.
    pub traceparent: Option<TraceParent>,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// When it is due, or its lease expires; `None` once it is finished.
    pub due_at: Option<SystemTime>,
    /// When it was sent, became a dead letter, or was held, cancelled or dismissed. `None` until then.
    pub finished_at: Option<SystemTime>,
    /// When it becomes a dead letter if it is not sent by then. `None` if it never expires, and once it is finished.
    pub expires_at: Option<SystemTime>,
    /// The current cycle, from 1. A resend begins a new one.
    pub cycle: u32,
    /// Why it is a dead letter or is held; `None` otherwise.
    pub reason: Option<String>,
    /// Every recipient, with the state of each.
    pub recipients: Vec<RecipientStatus>,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Why the stored row cannot be read. `None` for a valid row. Fields that cannot be read have default values.
    pub malformed: Option<String>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("template_id", &self.template_id)
            .field("tags", &self.tags)
            .field("key", &self.key.as_deref().map(mask_addresses))
            .field("priority", &self.priority)
            .field("when_in_doubt", &self.when_in_doubt)
            .field("traceparent", &self.traceparent)
            .field("created_at", &self.created_at)
            .field("due_at", &self.due_at)
            .field("finished_at", &self.finished_at)
            .field("expires_at", &self.expires_at)
            .field("cycle", &self.cycle)
            .field("reason", &self.reason)
            .field("recipients", &self.recipients)
            .field("attempts", &self.attempts)
            .field("malformed", &self.malformed)
            .finish()
    }
}

/// One recipient of a delivery, with its state and the next hop's reply.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientStatus {
    /// The recipient.
    pub recipient: Recipient,
    /// Current state.
    pub state: RecipientState,
    /// The next hop's last reply for this recipient; `None` if there was none.
    pub reply: Option<String>,
}

impl RecipientStatus {
    /// Creates a status, for authors of stores.
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

/// A delivery in a list. `Debug` does not show the subject.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeliverySummary {
    /// Unique id.
    pub id: DeliveryId,
    /// Current state.
    pub state: State,
    /// The template's name. `None` if the message has none.
    pub template_id: Option<String>,
    /// The subject. `None` if the message has none.
    pub subject: Option<String>,
    /// The first recipient; or, in the result of a search by [`Filter::recipient`](crate::Filter::recipient), one that it found. `None` if
    /// the stored recipients are malformed.
    pub recipient: Option<Recipient>,
    /// The state of this recipient. A delivery is [`Sent`](State::Sent) if the next hop accepted it for some recipients, and this one may
    /// have been refused.
    pub recipient_state: RecipientState,
    /// The number of recipients.
    pub recipients: u32,
    /// How many recipients of a sent delivery did not get it: they were refused, given up, or are in doubt. 0 in the other states.
    pub failed_recipients: u32,
    /// The number of attempts in its history.
    pub attempts: u32,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// When it is due, or its lease expires; `None` once it is finished.
    pub due_at: Option<SystemTime>,
    /// When it was sent, became a dead letter, or was held, cancelled or dismissed. `None` until then.
    pub finished_at: Option<SystemTime>,
    /// Why it is a dead letter or is held; otherwise the error of the last attempt. `None` if there is neither.
    pub last_error: Option<String>,
}

impl fmt::Debug for DeliverySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliverySummary")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("template_id", &self.template_id)
            .field("recipient", &self.recipient)
            .field("recipient_state", &self.recipient_state)
            .field("recipients", &self.recipients)
            .field("failed_recipients", &self.failed_recipients)
            .field("attempts", &self.attempts)
            .field("created_at", &self.created_at)
            .field("due_at", &self.due_at)
            .field("finished_at", &self.finished_at)
            .field("last_error", &self.last_error)
            .finish_non_exhaustive()
    }
}

impl DeliverySummary {
    /// The state of [`recipient`](Self::recipient), if it does not follow from the delivery's: for instance `Refused` in a sent delivery, or
    /// `Sent` in a pending one. `None` if it does.
    pub fn differing_recipient_state(&self) -> Option<RecipientState> {
        let own = self.recipient_state;
        let follows = match self.state {
            State::Pending | State::Leased => own == RecipientState::Pending,
            State::Dead => matches!(own, RecipientState::Dead | RecipientState::Refused),
            state => own.as_str() == state.as_str(),
        };
        (!follows).then_some(own)
    }
}

/// One attempt of a delivery, from its history.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Number over the delivery's whole life, from 1.
    pub number: u32,
    /// The cycle it belongs to.
    pub cycle: u32,
    /// When the transport was called; for a lost attempt, when the delivery was claimed. If the relay had to claim the delivery again
    /// during the call, it records the attempt before as lost, and this one starts with the new claim.
    pub started_at: SystemTime,
    /// When the call ended; for a lost attempt, when the next claim recorded it.
    pub finished_at: SystemTime,
    /// The outcome.
    pub outcome: Outcome,
    /// What the failure affects, as the transport reported it. `None` for `sent` and `lost`.
    pub scope: Option<Scope>,
    /// Whether outcome and scope follow from a documented rule. If not, they are a guess, which evidence may overrule.
    pub sure: bool,
    /// Whether the attempt counts against the budget.
    pub charged: bool,
    /// The relay's reason for its decision. `None` if outcome and scope explain it.
    pub note: Option<String>,
    /// The error, with masked addresses; `None` if there was none.
    pub error: Option<String>,
    /// The next hop's reply, verbatim; `None` if there was none.
    pub reply: Option<String>,
    /// The next hop's id of the message; `None` if it gave none.
    pub provider_id: Option<String>,
    /// The transport's name. `None` for a lost attempt, and if no transport was called because the stored message could not be read.
    ///
    /// The name of an inner transport follows a slash: `failover/ses` (see [`Receipt::via`](crate::transport::Receipt::via)). If several
    /// failed, all are listed (see [`Failure::via`](crate::Failure::via)).
    pub transport: Option<String>,
}

impl Attempt {
    /// Creates a sure and charged attempt. Set the other fields one by one.
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

    /// Whether the attempt is a plain success: sent, sure, charged, and without scope, error and note.
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
