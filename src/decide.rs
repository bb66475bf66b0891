//! What to do with a result. Pure: no clock, no randomness, no I/O of its own.
//!
//! | Class | Scope | Then |
//! |---|---|---|
//! | Permanent | Message | dead letter now |
//! | Transient | Message | retry by policy, or as the next hop asks; the budget shrinks by one |
//! | any | Transport | give back unspent; pause the transport; never a dead letter |
//! | in doubt | any | `Resend`: retry, the budget shrinks by one. `Hold`: the state `in_doubt` |
//!
//! Recipients are settled one by one: who took it is never mailed again, who refused for good is recorded, who refused for
//! now is retried alone. The delivery ends `sent`, its refusals listed, if anybody took it.

use std::time::{Duration, SystemTime};

use postrider_transport::{Breaker, Class, Failure, Receipt, Recipient, Refusal, Scope, mask_addresses};

use crate::delivery::{Lease, Next, RecipientOutcome};
use crate::retry::RetryPolicy;
use crate::state::{Outcome, RecipientState, WhenInDoubt};

/// What follows from one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// How the attempt is written down.
    pub(crate) outcome: Outcome,
    pub(crate) next: Next,
    pub(crate) charge: bool,
    pub(crate) recipients: Vec<RecipientOutcome>,
}

/// What the rules look at besides the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) policy: &'a RetryPolicy,
    /// When the attempt ended, by the database's clock.
    pub(crate) now: SystemTime,
    /// From -1 to 1, for the jitter.
    pub(crate) random: f64,
    /// How long the transport is paused, where the relay goes on after the pause.
    pub(crate) pause: Duration,
}

/// Decides about a delivery whose transport was called.
pub(crate) fn decide(result: &Result<Receipt, Failure>, at: Circumstances<'_>) -> Decision {
    match result {
        Ok(receipt) => accepted(receipt, at),
        Err(failure) => failed(failure, at),
    }
}

/// The end of a delivery that need not be sent any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) next: Next,
    pub(crate) recipients: Vec<RecipientOutcome>,
}

/// Decides about a delivery that has just been claimed, before the transport is called: `None` if it may be sent.
pub(crate) fn decide_before_sending(at: Circumstances<'_>) -> Option<End> {
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
    if lease.spent >= at.policy.max_attempts() {
        return end(state, format!("budget: {} attempts spent{last}", lease.spent));
    }
    if at.now >= deadline(lease, at.policy) {
        let why = if lease.lost { last } else { ": it was not sent in time" };
        return end(state, format!("expired{why}"));
    }
    None
}

fn accepted(receipt: &Receipt, at: Circumstances<'_>) -> Decision {
    let sorted = sort(&receipt.refused, &at.lease.recipients);
    if sorted.unnamed.is_empty() && !at.lease.recipients.is_empty() {
        // Accepted for nobody: the transport broke its contract, and its refusals are what really happened.
        let error = "every recipient was refused";
        let failure = if sorted.transient.is_empty() {
            Failure::permanent(Scope::Message, error)
        } else {
            Failure::transient(Scope::Message, error)
        };
        return failed(&failure.with_refused(receipt.refused.clone()), at);
    }
    let mut recipients = refused(&sorted.permanent);
    let next = if sorted.transient.is_empty() {
        Next::Sent
    } else {
        match retry(at, None) {
            Ok(next) => {
                recipients.extend(sorted.unnamed.iter().map(|recipient| RecipientOutcome {
                    recipient: (*recipient).clone(),
                    state: RecipientState::Sent,
                    reply: receipt.reply.clone(),
                }));
                next
            }
            Err(_) => {
                recipients.extend(refused(&sorted.transient));
                Next::Sent
            }
        }
    };
    Decision { outcome: Outcome::Sent, next, charge: true, recipients }
}

fn failed(failure: &Failure, at: Circumstances<'_>) -> Decision {
    let lease = at.lease;
    let sorted = sort(failure.refused(), &lease.recipients);
    let mut recipients = refused(&sorted.permanent);
    let retriable = sorted.transient.len() + sorted.unnamed.len();
    let nobody_left = retriable == 0 && !lease.recipients.is_empty();

    if failure.in_doubt() && !nobody_left {
        let error = failure.to_string();
        let next = match lease.when_in_doubt {
            WhenInDoubt::Hold => Next::InDoubt { reason: format!("in doubt: {error}") },
            WhenInDoubt::Resend => retry(at, asked(failure)).unwrap_or_else(|why| {
                let reason = format!("{why}; it may have been accepted: {error}");
                given_up(lease, RecipientState::InDoubt, reason, &mut recipients)
            }),
        };
        return Decision { outcome: Outcome::InDoubt, next, charge: true, recipients };
    }
    let outcome = match failure.class() {
        Class::Permanent => Outcome::Permanent,
        Class::Transient => Outcome::Transient,
    };
    if failure.scope() != Scope::Message && !nobody_left {
        let left = deadline(lease, at.policy).duration_since(at.now).unwrap_or_default();
        // Away for longer than the pause, so that another message is the next to prove the transport, however urgent this one is.
        let away = asked(failure).unwrap_or_default().max(at.pause.saturating_mul(2));
        let next = if left.is_zero() {
            given_up(lease, RecipientState::Dead, format!("expired: {failure}"), &mut recipients)
        } else {
            Next::Pending { after: away.min(left) }
        };
        return Decision { outcome, next, charge: false, recipients };
    }
    // A permanent failure speaks for the recipients that it does not name; those refused only for now are retried.
    let unnamed_is_over = failure.class() == Class::Permanent;
    let retry_some = !sorted.transient.is_empty() || (!unnamed_is_over && !sorted.unnamed.is_empty());
    let next = if retry_some {
        if unnamed_is_over {
            recipients.extend(sorted.unnamed.iter().map(|r| refusal_of(r, failure)));
        }
        match retry(at, asked(failure)) {
            Ok(next) => next,
            Err(why) => {
                recipients.extend(refused(&sorted.transient));
                given_up(lease, RecipientState::Dead, format!("{why}: {failure}"), &mut recipients)
            }
        }
    } else {
        if lease.taken {
            recipients.extend(sorted.unnamed.iter().map(|r| refusal_of(r, failure)));
        }
        given_up(lease, RecipientState::Dead, format!("permanent: {failure}"), &mut recipients)
    };
    Decision { outcome, next, charge: true, recipients }
}

/// How long the next hop asks to wait. A day at the most, as for the transport's pause: a wait beyond the delivery's time would be
/// its end, and what is to be paid or mended is so before.
fn asked(failure: &Failure) -> Option<Duration> {
    failure.retry_after().map(|wait| wait.min(Breaker::LONGEST))
}

/// The next try, or why there is none.
fn retry(at: Circumstances<'_>, asked: Option<Duration>) -> Result<Next, String> {
    let spent = at.lease.spent.saturating_add(1);
    if spent >= at.policy.max_attempts() {
        return Err(format!("budget: {spent} attempts spent"));
    }
    let after = at.policy.delay(spent, asked, at.random);
    match at.now.checked_add(after) {
        Some(due) if due < deadline(at.lease, at.policy) => Ok(Next::Pending { after }),
        _ => Err("expired: the next attempt would come too late".to_owned()),
    }
}

/// The end of a delivery that can go no further. If somebody took it, it ends `sent`, and everybody who is still open goes on
/// record in the given state: who is not on record counts as having it.
fn given_up(lease: &Lease, state: RecipientState, reason: String, recipients: &mut Vec<RecipientOutcome>) -> Next {
    if !lease.taken {
        return Next::Dead { reason };
    }
    let open = |recipient: &&Recipient| !recipients.iter().any(|outcome| outcome.recipient == **recipient);
    let open: Vec<_> = lease.recipients.iter().filter(open).cloned().collect();
    recipients.extend(open.into_iter().map(|recipient| RecipientOutcome {
        recipient,
        state,
        reply: Some(reason.clone()),
    }));
    Next::Sent
}

fn deadline(lease: &Lease, policy: &RetryPolicy) -> SystemTime {
    // Beyond what a clock can show means never; the budget still ends it.
    let never = || lease.claimed_at + Duration::from_secs(100 * 365 * 24 * 3600);
    let oldest = lease.cycle_started_at.checked_add(policy.longest()).unwrap_or_else(never);
    lease.expires_at.map_or(oldest, |expires| expires.min(oldest))
}

/// The recipients of a lease by what the next hop said of them.
struct Sorted<'a> {
    permanent: Vec<&'a Refusal>,
    transient: Vec<&'a Refusal>,
    unnamed: Vec<&'a Recipient>,
}

fn sort<'a>(refusals: &'a [Refusal], recipients: &'a [Recipient]) -> Sorted<'a> {
    let mut sorted = Sorted { permanent: Vec::new(), transient: Vec::new(), unnamed: Vec::new() };
    for recipient in recipients {
        match refusals.iter().find(|refusal| refusal.recipient == *recipient) {
            Some(refusal) if refusal.class == Class::Permanent => sorted.permanent.push(refusal),
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
