//! What passes between a relay and a store: new rows, leases, attempts, settlements.

use std::fmt;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient, Scope, mask_addresses};

use crate::state::{Outcome, Priority, RecipientState, WhenInDoubt};

/// A moment, absolute or counted from the database's now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(SystemTime),
    /// So long after the moment at which the database sees it.
    After(Duration),
}

/// One row to be inserted: what a [`Store`](crate::Store) is given for each new delivery.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewRow {
    /// The delivery's name.
    pub id: DeliveryId,
    /// The message.
    pub message: Encoded,
    /// Everyone it is for.
    pub recipients: Vec<Recipient>,
    /// What it was made from.
    pub template_id: Option<String>,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it is due; now, if not given.
    pub due: Option<When>,
    /// When it is no longer worth sending.
    pub expires: Option<When>,
    /// What to do in doubt.
    pub when_in_doubt: WhenInDoubt,
}

impl fmt::Debug for NewRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRow")
            .field("id", &self.id)
            .field("message", &self.message)
            .field("key", &self.key.as_deref().map(mask_addresses))
            .finish_non_exhaustive()
    }
}

impl NewRow {
    /// How many octets a stored message may have: 64 MiB. SQLite and PostgreSQL keep fields of up to 1 GB, but a relay holds what it
    /// sends in memory several times over, MySQL takes 64 MiB in one packet unless it is told otherwise, and MariaDB 16
    /// (`max_allowed_packet`).
    pub const MAX_BODY: usize = 64 << 20;
    /// How many recipients one delivery may have. For more, enqueue several.
    pub const MAX_RECIPIENTS: usize = 10_000;
    /// How many characters a recipient may have: as many as MySQL can index. An address of mail has at most 254 (RFC 5321 section
    /// 4.5.3.1.3, with its erratum 1690).
    pub const MAX_RECIPIENT: usize = 700;
    /// How many characters a template's name may have.
    pub const MAX_TEMPLATE_ID: usize = 255;
    /// How many characters an idempotency key may have.
    pub const MAX_KEY: usize = 255;

    /// What of it is larger than a store takes, if something is.
    pub(crate) fn excess(&self) -> Option<&'static str> {
        let longer = |text: &str, most: usize| text.len() > most && text.chars().count() > most;
        if self.message.body.len() > Self::MAX_BODY {
            return Some("more than 64 MiB, as it is stored");
        }
        if self.recipients.len() > Self::MAX_RECIPIENTS {
            return Some("more than 10,000 recipients");
        }
        if self.recipients.iter().any(|recipient| longer(recipient.as_str(), Self::MAX_RECIPIENT)) {
            return Some("a recipient of more than 700 characters");
        }
        if self.template_id.as_deref().is_some_and(|id| longer(id, Self::MAX_TEMPLATE_ID)) {
            return Some("a template's name of more than 255 characters");
        }
        None
    }

    /// A row due now, with nothing else wished for; the rest can be set field by field.
    pub fn new(id: DeliveryId, message: Encoded, recipients: Vec<Recipient>) -> Self {
        Self {
            id,
            message,
            recipients,
            template_id: None,
            key: None,
            priority: Priority::default(),
            due: None,
            expires: None,
            when_in_doubt: WhenInDoubt::default(),
        }
    }
}

/// The right to settle one delivery: its id, and the number that proves that no other relay took it over since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The delivery.
    pub id: DeliveryId,
    /// Grows with every claim of the delivery, over its whole life.
    pub token: i64,
}

/// One claimed delivery, with all that is needed to send it and to decide what follows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Lease {
    /// The right to settle.
    pub key: LeaseKey,
    /// When it was claimed, by the database's clock.
    pub claimed_at: SystemTime,
    /// What the mail's Date says: when it was enqueued, or, if it was scheduled for later, when it was first to be sent.
    pub dated_at: SystemTime,
    /// The message.
    pub message: Encoded,
    /// Everyone who still wants it: neither mailed nor refused for good in this cycle.
    pub recipients: Vec<Recipient>,
    /// Whether the message has more recipients, who are through.
    pub partial: bool,
    /// Whether somebody took it in an earlier attempt of this cycle.
    pub taken: bool,
    /// What it was made from.
    pub template_id: Option<String>,
    /// How many attempts were made over its life, a lost one included that this claim has just recorded.
    pub attempts: u32,
    /// Which cycle this is, from 1 on; a resend begins a new one.
    pub cycle: u32,
    /// How many attempts of this cycle count against the budget.
    pub spent: u32,
    /// When the cycle began: when the delivery first became due, or was resent.
    pub cycle_started_at: SystemTime,
    /// When it is no longer worth sending.
    pub expires_at: Option<SystemTime>,
    /// What to do in doubt.
    pub when_in_doubt: WhenInDoubt,
    /// The last attempt of this cycle was lost with the relay that made it, and nothing was sent since. Mostly this claim has recorded it.
    pub lost: bool,
    /// The attempt with the highest number; `None` if there is none, or its row was deleted or makes no sense.
    pub last: Option<LastAttempt>,
    /// Why the stored row makes no sense, if it does not: such a delivery becomes a dead letter, and others go on.
    pub unreadable: Option<String>,
}

impl Lease {
    /// A lease as a store would hand it out for a first attempt; the rest can be set field by field.
    pub fn new(key: LeaseKey, claimed_at: SystemTime, message: Encoded, recipients: Vec<Recipient>) -> Self {
        Self {
            key,
            claimed_at,
            dated_at: claimed_at,
            message,
            recipients,
            partial: false,
            taken: false,
            template_id: None,
            attempts: 0,
            cycle: 1,
            spent: 0,
            cycle_started_at: claimed_at,
            expires_at: None,
            when_in_doubt: WhenInDoubt::default(),
            lost: false,
            last: None,
            unreadable: None,
        }
    }
}

impl Lease {
    /// Adds the last attempt. One that was lost is told also where it was an earlier claim that recorded it, and then gave the delivery
    /// back without a call.
    pub(crate) fn with_last(mut self, last: Option<LastAttempt>) -> Self {
        self.lost |= last.as_ref().is_some_and(|last| last.outcome == Outcome::Lost && last.cycle == self.cycle);
        self.last = last;
        self
    }
}

/// What a claim tells of the last attempt, so that the next decision can weigh it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastAttempt {
    /// The cycle it belongs to.
    pub cycle: u32,
    /// When it ended, by the database's clock.
    pub finished_at: SystemTime,
    /// What came of it.
    pub outcome: Outcome,
    /// Whose condition it failed for; `None` for `sent` and `lost`.
    pub scope: Option<Scope>,
    /// Whether a rule, or the transport's author, stood behind that.
    pub sure: bool,
    /// What went wrong, with addresses masked; it may be cut short after 1,000 characters.
    pub error: Option<String>,
}

impl From<&Attempt> for LastAttempt {
    fn from(attempt: &Attempt) -> Self {
        let Attempt { cycle, finished_at, outcome, scope, sure, .. } = *attempt;
        Self { cycle, finished_at, outcome, scope, sure, error: attempt.error.clone() }
    }
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
    /// slash, as in `failover/ses` (see [`Receipt::via`](crate::Receipt::via)), or those of all that failed in turn (see
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
    fn is_plainly_sent(&self) -> bool {
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

/// How an attempt ended for one recipient who is through with it.
#[derive(Clone, PartialEq, Eq)]
pub struct RecipientOutcome {
    /// Who.
    pub recipient: Recipient,
    /// [`Sent`](RecipientState::Sent), [`Refused`](RecipientState::Refused), or, where others have it and this one was given up,
    /// [`InDoubt`](RecipientState::InDoubt) or [`Dead`](RecipientState::Dead).
    pub state: RecipientState,
    /// What the next hop answered for this recipient, or why it was given up.
    pub reply: Option<String>,
}

impl fmt::Debug for RecipientOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.recipient, self.state)
    }
}

/// Where a settled delivery goes.
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
pub struct Settlement {
    /// The right to do so.
    pub key: LeaseKey,
    /// The attempt, if the transport was called.
    pub attempt: Option<Attempt>,
    /// How many attempts of this cycle count against the budget from now on: [`Lease::spent`], one more, or 0 where the budget begins
    /// anew.
    pub spent: u32,
    /// The recipients who are through, where their outcome differs from the delivery's.
    pub recipients: Vec<RecipientOutcome>,
    /// What the delivery becomes.
    pub next: Next,
}

impl Settlement {
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

/// What came of one settlement or renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a lost lease means that nothing was written"]
pub enum Settled {
    /// Written.
    Done,
    /// The lease had passed to somebody else, or the delivery was settled before: nothing was changed.
    LeaseLost,
}
