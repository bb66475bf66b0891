//! Claims and leases.

use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient, Scope, TraceParent};

use super::RelayId;
use crate::delivery::Attempt;
use crate::state::{Outcome, WhenInDoubt};

/// The id of one claim.
///
/// The store keeps it with each delivery that the claim leases. A claim whose answer is lost can then be released
/// ([`Store::release_claims`](super::Store::release_claims)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId(i64);

impl ClaimId {
    /// A new, random id.
    #[allow(clippy::new_without_default, reason = "a default must be the same each time")]
    pub fn new() -> Self {
        Self(rand::random_range(1..=i64::MAX))
    }

    /// A new id for a claim of this relay: the last 24 bits of the relay's id, and 39 random bits.
    ///
    /// An operator sees in the database which relay holds a delivery.
    pub fn of(relay: RelayId) -> Self {
        Self(relay.tail() << 39 | rand::random_range(1..1 << 39))
    }

    /// The number that a store keeps. It is positive, with 63 bits.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// A request to lease due deliveries.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Claim {
    /// Unique id.
    pub id: ClaimId,
    /// The largest number of deliveries.
    pub limit: usize,
    /// The limit for the stored messages ([`Encoded::size`]) together, in bytes. A claim returns one delivery even if it is larger.
    /// Deliveries that do not fit stay due.
    pub max_bytes: u64,
    /// The duration of the lease.
    pub lease: Duration,
    /// Takes only deliveries that were due by this time. `None` means now. A pass (`drain` or `tick`) sets the time of its start, so that
    /// it does not claim a delivery twice.
    pub due_by: Option<SystemTime>,
}

impl Claim {
    /// A claim for up to `limit` deliveries that are due now, of any size.
    pub fn new(limit: usize, lease: Duration) -> Self {
        Self { id: ClaimId::new(), limit, max_bytes: u64::MAX, lease, due_by: None }
    }

    /// Gives the claim an id that shows the relay ([`ClaimId::of`]).
    #[must_use]
    pub fn by(mut self, relay: RelayId) -> Self {
        self.id = ClaimId::of(relay);
        self
    }

    /// Limits the stored messages to this many bytes together. One delivery comes in any case.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Takes only deliveries that were due by this time.
    #[must_use]
    pub fn due_by(mut self, time: SystemTime) -> Self {
        self.due_by = Some(time);
        self
    }
}

/// The right to settle one delivery: its id and the token of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The fencing token. It grows with every claim of the delivery, over its whole life.
    pub token: i64,
}

/// One claimed delivery, with the data to send it and to decide what follows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Lease {
    /// The id and the token, which settle the delivery.
    pub key: LeaseKey,
    /// When it was claimed, by the database's clock.
    pub claimed_at: SystemTime,
    /// The time for the message's Date field: when it was enqueued or, if it was scheduled for later, when it was first due.
    pub dated_at: SystemTime,
    /// The message.
    pub message: Encoded,
    /// The recipients to send to: those without an outcome in this cycle.
    pub recipients: Vec<Recipient>,
    /// Whether the message has more recipients, whose outcomes are recorded.
    pub has_completed_recipients: bool,
    /// Whether an earlier attempt of this cycle was accepted for a recipient.
    pub any_accepted: bool,
    /// The id of the template of the message. `None` without a template.
    pub template_id: Option<String>,
    /// The trace context of the request that enqueued it. `None` if none is stored, or if it is invalid.
    pub traceparent: Option<TraceParent>,
    /// The number of attempts over the whole life of the delivery. It includes a lost attempt that this claim has recorded.
    pub attempts: u32,
    /// The number of the cycle, from 1 on. A resend begins a new cycle.
    pub cycle: u32,
    /// The number of attempts of this cycle that count against the budget.
    pub charged_attempts: u32,
    /// When the cycle began: the delivery was first due, or was resent.
    pub cycle_started_at: SystemTime,
    /// The time from which on the delivery must not be sent. `None` leaves it to the retry policy.
    pub expires_at: Option<SystemTime>,
    /// What to do if the message may have been accepted.
    pub when_in_doubt: WhenInDoubt,
    /// Whether the last attempt of this cycle was lost with its relay. This claim or an earlier one has recorded it.
    pub lost: bool,
    /// The attempt with the highest number. `None` if there is none, or if its row was deleted or is malformed.
    pub last: Option<LastAttempt>,
    /// Why the stored row cannot be read. `None` for a valid row. The relay makes a malformed delivery a dead letter.
    pub malformed: Option<String>,
}

impl Lease {
    /// A lease for a first attempt. Set the other fields one by one.
    pub fn new(key: LeaseKey, claimed_at: SystemTime, message: Encoded, recipients: Vec<Recipient>) -> Self {
        Self {
            key,
            claimed_at,
            dated_at: claimed_at,
            message,
            recipients,
            has_completed_recipients: false,
            any_accepted: false,
            template_id: None,
            traceparent: None,
            attempts: 0,
            cycle: 1,
            charged_attempts: 0,
            cycle_started_at: claimed_at,
            expires_at: None,
            when_in_doubt: WhenInDoubt::default(),
            lost: false,
            last: None,
            malformed: None,
        }
    }

    /// Adds the last attempt, and sets `lost` if that attempt was lost in this cycle. An earlier claim may have recorded the loss and
    /// then released the delivery without a call.
    pub(crate) fn with_last(mut self, last: Option<LastAttempt>) -> Self {
        self.lost |= last.as_ref().is_some_and(|last| last.outcome == Outcome::Lost && last.cycle == self.cycle);
        self.last = last;
        self
    }
}

/// The last attempt of a claimed delivery. The relay uses it as evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastAttempt {
    /// The cycle of the attempt.
    pub cycle: u32,
    /// When it ended, by the database's clock.
    pub finished_at: SystemTime,
    /// The outcome.
    pub outcome: Outcome,
    /// What the failure affects, as the transport reported it. `None` for `sent` and `lost`.
    pub scope: Option<Scope>,
    /// Whether outcome and scope follow from a documented rule.
    pub sure: bool,
    /// The error with masked addresses, or its first 1,000 characters. `None` if there was no error.
    pub error: Option<String>,
}

impl From<&Attempt> for LastAttempt {
    fn from(attempt: &Attempt) -> Self {
        let Attempt { cycle, finished_at, outcome, scope, sure, .. } = *attempt;
        Self { cycle, finished_at, outcome, scope, sure, error: attempt.error.clone() }
    }
}
