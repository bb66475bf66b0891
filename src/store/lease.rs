//! What a relay asks a store for, and what it gets: claims and leases.

use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient, Scope};

use crate::delivery::Attempt;
use crate::state::{Outcome, WhenInDoubt};

/// The name of one claim, new for each. The store keeps it with what the claim leases, so that a claim whose answer never came can be
/// taken back ([`Store::take_back`](super::Store::take_back)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId(i64);

impl ClaimId {
    /// A new name.
    #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
    pub fn new() -> Self {
        Self(rand::random_range(1..=i64::MAX))
    }

    /// The number that a store keeps: positive, and with some 63 bits of chance unlike any other's.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// What a relay asks for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Claim {
    /// Its name.
    pub id: ClaimId,
    /// How many deliveries at the most.
    pub limit: usize,
    /// How many octets of stored mail ([`Encoded::body`]) at the most, all of them together. One delivery comes in any case, however
    /// large it is. What does not fit stays due.
    pub max_bytes: u64,
    /// How long the lease is to hold.
    pub lease: Duration,
    /// Only what was due by then; what is due now, if not given. A pass that ends asks by the time at which it began, so
    /// that it does not meet again what it has just put off.
    pub due_by: Option<SystemTime>,
}

impl Claim {
    /// Up to `limit` of what is due now, however large.
    pub fn new(limit: usize, lease: Duration) -> Self {
        Self { id: ClaimId::new(), limit, max_bytes: u64::MAX, lease, due_by: None }
    }

    /// Only so many octets of mail, and one mail in any case.
    #[must_use]
    pub fn max_bytes(mut self, octets: u64) -> Self {
        self.max_bytes = octets;
        self
    }

    /// Only what was due by then.
    #[must_use]
    pub fn due_by(mut self, time: SystemTime) -> Self {
        self.due_by = Some(time);
        self
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
    pub has_completed_recipients: bool,
    /// Whether somebody took it in an earlier attempt of this cycle.
    pub any_accepted: bool,
    /// What it was made from.
    pub template_id: Option<String>,
    /// How many attempts were made over its life, a lost one included that this claim has just recorded.
    pub attempts: u32,
    /// Which cycle this is, from 1 on; a resend begins a new one.
    pub cycle: u32,
    /// How many attempts of this cycle count against the budget.
    pub charged_attempts: u32,
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
    pub malformed: Option<String>,
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
            has_completed_recipients: false,
            any_accepted: false,
            template_id: None,
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
