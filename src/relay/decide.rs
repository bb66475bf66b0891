//! Decides what follows from a result. No clock, no randomness, no I/O of its own.
//!
//! | Class | Scope, after evidence | Then |
//! |---|---|---|
//! | Permanent, believed | Message | dead letter now |
//! | Permanent, not believed; Transient | Message | retry by policy, at the earliest when the next hop asks; charged, unless nothing is proven |
//! | any | Sender, Transport | wait for the end of the pause, uncharged; never a dead letter |
//! | in doubt | any | `Resend`: retry by policy, charged. `Hold`: the state `in_doubt` |
//!
//! Each recipient is decided alone. An accepted recipient is never mailed again, a permanent refusal is recorded, a transient one is
//! retried. If some accepted and others are left, the others are mailed at once, with a fresh budget. If anyone accepted, the delivery ends
//! as `sent`, with its refusals listed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use postrider_transport::{Breaker, Class, Failure, Receipt, Recipient, Refusal, Scope, mask_addresses};

use crate::retry::RetryPolicy;
use crate::state::{Outcome, RecipientState, WhenInDoubt};
use crate::store::{Lease, Next, RecipientOutcome};

/// What follows from one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// The outcome to record.
    pub(super) outcome: Outcome,
    pub(super) next: Next,
    /// Whether the attempt counts against the budget.
    pub(super) charged: bool,
    /// The charged attempts from now on.
    pub(super) charged_attempts: u32,
    pub(super) recipients: Vec<RecipientOutcome>,
}

/// A result as evidence judged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// Whose condition a failure is.
    pub(super) scope: Scope,
    /// Whether the attempt counts against the budget.
    pub(super) charge: bool,
    /// Whether permanent refusals without a rule are final. Sure ones always are.
    pub(super) believed: bool,
    /// The shortest wait; `None` leaves it to the delivery's own backoff.
    pub(super) wait: Option<Duration>,
}

impl Judged {
    /// The message's own condition, as the transport or this program says.
    pub(super) fn own() -> Self {
        Self { scope: Scope::Message, charge: true, believed: true, wait: None }
    }
}

/// The input of the rules besides the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub(super) lease: &'a Lease,
    pub(super) policy: &'a RetryPolicy,
    /// When the attempt ended, by the database's clock.
    pub(super) now: SystemTime,
    /// From -1 to 1, for the jitter.
    pub(super) random: f64,
}

/// Decides about a delivery whose transport was called.
pub(super) fn decide(result: &Result<Receipt, Failure>, judged: Judged, at: Circumstances<'_>) -> Decision {
    match result {
        Ok(receipt) => accepted(receipt, judged, at),
        Err(failure) => failed(failure, judged, at),
    }
}

/// A receipt in which nobody accepted breaks the transport's contract. It becomes a failure with its refusals.
pub(super) fn honest(result: Result<Receipt, Failure>, recipients: &[Recipient]) -> Result<Receipt, Failure> {
    match result {
        Ok(receipt) if !receipt.refused.is_empty() && !recipients.is_empty() => {
            let refused: HashSet<_> = receipt.refused.iter().map(|refusal| &refusal.recipient).collect();
            if !recipients.iter().all(|recipient| refused.contains(recipient)) {
                return Ok(receipt);
            }
            let error = "every recipient was refused";
            let later = receipt.refused.iter().any(|refusal| refusal.class == Class::Transient);
            let class = if later { Failure::transient } else { Failure::permanent };
            let failure = class(Scope::Message, error);
            let failure = if receipt.refused.iter().all(|refusal| refusal.sure) { failure } else { failure.unsure() };
            Err(failure.with_refused(receipt.refused))
        }
        other => other,
    }
}

/// The end of a delivery that need not be sent any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) next: Next,
    pub(super) recipients: Vec<RecipientOutcome>,
}

/// Decides about a delivery that has just been claimed, before the transport is called: `None` if it may be sent.
pub(super) fn decide_before_sending(at: Circumstances<'_>) -> Option<End> {
    let lease = at.lease;
    let end = |state, reason| {
        let mut recipients = Vec::new();
        let next = given_up(lease, state, reason, &mut recipients);
        Some(End { next, recipients })
    };
    if lease.lost && lease.when_in_doubt == WhenInDoubt::Hold {
        let reason = format!("in doubt: the relay that held attempt {} vanished", lease.attempts);
        return Some(End { next: Next::InDoubt { reason }, recipients: Vec::new() });
    }
    if lease.recipients.is_empty() {
        return end(RecipientState::Dead, "nobody is left to be mailed".to_owned());
    }
    let (state, last) = if lease.lost {
        (RecipientState::InDoubt, ": the last attempt was lost with its relay")
    } else {
        (RecipientState::Dead, "")
    };
    if lease.charged_attempts >= at.policy.max_attempts() {
        return end(state, format!("budget: {} attempts spent{last}", lease.charged_attempts));
    }
    if at.now >= deadline(lease, at.policy) {
        // The last error, if there was one.
        let error = lease.last.as_ref().filter(|last| last.cycle == lease.cycle).and_then(|last| last.error.as_deref());
        return end(
            state,
            match error {
                _ if lease.lost => format!("expired{last}"),
                Some(error) => format!("expired: {error}"),
                None => "expired: it was not sent in time".to_owned(),
            },
        );
    }
    None
}

fn accepted(receipt: &Receipt, judged: Judged, at: Circumstances<'_>) -> Decision {
    let sorted = sort(&receipt.refused, &at.lease.recipients, judged.believed);
    let mut recipients = refused(&sorted.permanent);
    let decision = |next, charged_attempts, recipients| Decision {
        outcome: Outcome::Sent,
        next,
        charged: true,
        charged_attempts,
        recipients,
    };
    if sorted.transient.is_empty() {
        return decision(Next::Sent, at.lease.charged_attempts.saturating_add(1), recipients);
    }
    if at.now >= deadline(at.lease, at.policy) {
        recipients.extend(refused(&sorted.transient));
        return decision(Next::Sent, at.lease.charged_attempts.saturating_add(1), recipients);
    }
    // Progress is not failure. Each such attempt leaves fewer recipients, so there is an end.
    recipients.extend(sorted.unnamed.iter().map(|recipient| RecipientOutcome {
        recipient: (*recipient).clone(),
        state: RecipientState::Sent,
        reply: receipt.reply.clone(),
    }));
    decision(Next::Pending { after: Duration::ZERO }, 0, recipients)
}

fn failed(failure: &Failure, judged: Judged, at: Circumstances<'_>) -> Decision {
    let lease = at.lease;
    let believed = judged.believed || failure.is_sure();
    let sorted = sort(failure.refused(), &lease.recipients, judged.believed);
    let mut recipients = refused(&sorted.permanent);
    let retriable = sorted.transient.len() + sorted.unnamed.len();
    let nobody_left = retriable == 0 && !lease.recipients.is_empty();
    let charged_attempts = lease.charged_attempts.saturating_add(u32::from(judged.charge));
    let decision =
        |outcome, next, recipients| Decision { outcome, next, charged: judged.charge, charged_attempts, recipients };

    if failure.in_doubt() && !nobody_left {
        let error = failure.to_string();
        let next = match lease.when_in_doubt {
            WhenInDoubt::Hold => Next::InDoubt { reason: format!("in doubt: {error}") },
            WhenInDoubt::Resend => retry(failure, judged, at).unwrap_or_else(|why| {
                let reason = format!("{why}; it may have been accepted: {error}");
                given_up(lease, RecipientState::InDoubt, reason, &mut recipients)
            }),
        };
        return decision(Outcome::InDoubt, next, recipients);
    }
    let outcome = match failure.class() {
        Class::Permanent => Outcome::Permanent,
        Class::Transient => Outcome::Transient,
    };
    if judged.scope != Scope::Message && !nobody_left {
        let left = deadline(lease, at.policy).duration_since(at.now).unwrap_or_default();
        let next = if left.is_zero() {
            given_up(lease, RecipientState::Dead, format!("expired: {failure}"), &mut recipients)
        } else {
            let wait = judged.wait.unwrap_or_else(|| own_wait(failure, judged, at));
            // One more try at the end of its time, in case another relay can send.
            Next::Pending { after: wait.min(left) }
        };
        return decision(outcome, next, recipients);
    }
    // A permanent failure counts for the recipients that it does not name; transient refusals are retried. A failure that only evidence
    // makes the message's own is tried until the budget ends it.
    let unnamed_is_over = failure.class() == Class::Permanent && failure.scope() == Scope::Message && believed;
    let retry_some = !sorted.transient.is_empty() || (!unnamed_is_over && !sorted.unnamed.is_empty());
    let next = if retry_some {
        if unnamed_is_over {
            recipients.extend(sorted.unnamed.iter().map(|r| refusal_of(r, failure)));
        }
        match retry(failure, judged, at) {
            Ok(next) => next,
            Err(why) => {
                recipients.extend(refused(&sorted.transient));
                given_up(lease, RecipientState::Dead, format!("{why}: {failure}"), &mut recipients)
            }
        }
    } else {
        if lease.any_accepted {
            recipients.extend(sorted.unnamed.iter().map(|r| refusal_of(r, failure)));
        }
        given_up(lease, RecipientState::Dead, format!("permanent: {failure}"), &mut recipients)
    };
    decision(outcome, next, recipients)
}

/// The wait that the next hop asks for, a day at most, as for a pause. A longer wait could exceed the delivery's age and end it.
fn asked(failure: &Failure) -> Option<Duration> {
    failure.retry_after().map(|wait| wait.min(Breaker::MAX_PAUSE))
}

/// The wait before the next try, or why there is none.
fn retry(failure: &Failure, judged: Judged, at: Circumstances<'_>) -> Result<Next, String> {
    let charged_attempts = at.lease.charged_attempts.saturating_add(u32::from(judged.charge));
    if charged_attempts >= at.policy.max_attempts() {
        return Err(format!("budget: {charged_attempts} attempts spent"));
    }
    let after = own_wait(failure, judged, at).max(judged.wait.unwrap_or_default());
    match at.now.checked_add(after) {
        Some(due) if due < deadline(at.lease, at.policy) => Ok(Next::Pending { after }),
        _ => Err("expired: the next attempt would come too late".to_owned()),
    }
}

/// The backoff, and at least the wait that the next hop asks for. Without charges it grows with the number of attempts.
fn own_wait(failure: &Failure, judged: Judged, at: Circumstances<'_>) -> Duration {
    let failures = if judged.charge { at.lease.charged_attempts } else { at.lease.attempts };
    at.policy.delay(failures.saturating_add(1), asked(failure), at.random)
}

/// The end of a delivery without further tries. If anyone accepted, it ends as `sent`, and every open recipient is recorded in the given
/// state. A recipient without a recorded outcome counts as delivered.
fn given_up(lease: &Lease, state: RecipientState, reason: String, recipients: &mut Vec<RecipientOutcome>) -> Next {
    if !lease.any_accepted {
        return Next::Dead { reason };
    }
    let through: HashSet<_> = recipients.iter().map(|outcome| &outcome.recipient).collect();
    let open: Vec<_> = lease.recipients.iter().filter(|recipient| !through.contains(recipient)).cloned().collect();
    recipients.extend(open.into_iter().map(|recipient| RecipientOutcome {
        recipient,
        state,
        reply: Some(reason.clone()),
    }));
    Next::Sent
}

fn deadline(lease: &Lease, policy: &RetryPolicy) -> SystemTime {
    // A time beyond the clock's range means never; the budget still ends it.
    let never = || lease.claimed_at + Duration::from_secs(100 * 365 * 24 * 3600);
    let oldest = lease.cycle_started_at.checked_add(policy.age_limit()).unwrap_or_else(never);
    lease.expires_at.map_or(oldest, |expires| expires.min(oldest))
}

/// The recipients of a lease, grouped by the next hop's replies.
struct Sorted<'a> {
    permanent: Vec<&'a Refusal>,
    transient: Vec<&'a Refusal>,
    unnamed: Vec<&'a Recipient>,
}

/// Whether a refusal is final: permanent, and sure or believed.
fn sort<'a>(refusals: &'a [Refusal], recipients: &'a [Recipient], believed: bool) -> Sorted<'a> {
    let mut sorted = Sorted { permanent: Vec::new(), transient: Vec::new(), unnamed: Vec::new() };
    if refusals.is_empty() {
        sorted.unnamed.extend(recipients);
        return sorted;
    }
    let mut named = HashMap::with_capacity(refusals.len());
    for refusal in refusals {
        named.entry(&refusal.recipient).or_insert(refusal);
    }
    for recipient in recipients {
        match named.get(recipient) {
            Some(refusal) if refusal.class == Class::Permanent && (refusal.sure || believed) => {
                sorted.permanent.push(refusal);
            }
            Some(refusal) => sorted.transient.push(refusal),
            None => sorted.unnamed.push(recipient),
        }
    }
    sorted
}

fn refused(refusals: &[&Refusal]) -> Vec<RecipientOutcome> {
    let outcome = |refusal: &&Refusal| RecipientOutcome {
        recipient: refusal.recipient.clone(),
        state: RecipientState::Refused,
        reply: Some(refusal.reply.clone()),
    };
    refusals.iter().map(outcome).collect()
}

fn refusal_of(recipient: &Recipient, failure: &Failure) -> RecipientOutcome {
    let reply = failure.reply().map_or_else(|| mask_addresses(&failure.to_string()).into_owned(), str::to_owned);
    RecipientOutcome { recipient: recipient.clone(), state: RecipientState::Refused, reply: Some(reply) }
}

#[cfg(test)]
mod tests;
