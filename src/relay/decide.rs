//! Decides the next state of a delivery from a result.
//!
//! This code does no I/O, and gets the time and random numbers as arguments.
//!
//! | Class | Scope, after evidence | Next |
//! |---|---|---|
//! | Permanent, final | Message | dead letter |
//! | Permanent, not final; Transient | Message | retry by the policy, after the wait that the next hop asks for; charged if the failure is sure or evidence shows that the message is at fault |
//! | any | Sender, Transport | wait for the end of the pause, uncharged; a dead letter only at the age limit |
//! | in doubt | any | `Resend`: retry by the policy, charged. `Hold`: the state `in_doubt` |
//!
//! Each recipient has its own result. A recipient that was accepted gets no more attempts in this cycle. A permanent refusal is recorded. A
//! transient refusal is retried. If some recipients were accepted, the next attempt for the others is due at once, with a fresh budget. A
//! delivery that was accepted for a recipient ends as `sent`, with its refusals listed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use postrider_transport::{Breaker, Class, Failure, Receipt, Recipient, Refusal, Scope, mask_addresses};

use crate::retry::RetryPolicy;
use crate::state::{Outcome, RecipientState, WhenInDoubt};
use crate::store::{Lease, Next, RecipientOutcome};

/// The changes that follow from one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// The outcome to record.
    pub(super) outcome: Outcome,
    pub(super) next: Next,
    /// Whether the attempt counts against the budget.
    pub(super) charged: bool,
    /// The new number of charged attempts.
    pub(super) charged_attempts: u32,
    pub(super) recipients: Vec<RecipientOutcome>,
}

/// The judgement of a result by evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// Whose condition a failure is.
    pub(super) scope: Scope,
    /// Whether the attempt counts against the budget.
    pub(super) charge: bool,
    /// Whether permanent refusals that are not sure are final. Sure ones always are.
    pub(super) unsure_is_final: bool,
    /// The shortest wait. `None` leaves it to the delivery's own backoff.
    pub(super) wait: Option<Duration>,
}

impl Judged {
    /// The message's own condition, charged and final.
    pub(super) fn own() -> Self {
        Self { scope: Scope::Message, charge: true, unsure_is_final: true, wait: None }
    }
}

/// The input of a decision, besides the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecisionInput<'a> {
    pub(super) lease: &'a Lease,
    pub(super) policy: &'a RetryPolicy,
    /// When the attempt ended, by the database's clock.
    pub(super) now: SystemTime,
    /// A number from -1 to 1 that sets the jitter.
    pub(super) random: f64,
}

/// Decides after an attempt.
pub(super) fn decide(result: &Result<Receipt, Failure>, judged: Judged, at: DecisionInput<'_>) -> Decision {
    match result {
        Ok(receipt) => accepted(receipt, judged, at),
        Err(failure) => failed(failure, judged, at),
    }
}

/// Converts a receipt that refuses every recipient into a failure with these refusals. Such a receipt violates the transport's contract.
pub(super) fn reject_empty_receipt(
    result: Result<Receipt, Failure>,
    recipients: &[Recipient],
) -> Result<Receipt, Failure> {
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

/// The end of a delivery that must not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) next: Next,
    pub(super) recipients: Vec<RecipientOutcome>,
}

/// Decides after a claim, before the transport is called. `None` if the delivery may be sent.
pub(super) fn decide_before_sending(at: DecisionInput<'_>) -> Option<End> {
    let lease = at.lease;
    let end = |state, reason| {
        let mut recipients = Vec::new();
        let next = give_up(lease, state, reason, &mut recipients);
        Some(End { next, recipients })
    };
    if lease.lost && lease.when_in_doubt == WhenInDoubt::Hold {
        let reason = format!("in doubt: attempt {} was lost with its relay", lease.attempts);
        return Some(End { next: Next::InDoubt { reason }, recipients: Vec::new() });
    }
    if lease.recipients.is_empty() {
        return end(RecipientState::Dead, "no recipient is left".to_owned());
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
        // The error of the last attempt in this cycle.
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

fn accepted(receipt: &Receipt, judged: Judged, at: DecisionInput<'_>) -> Decision {
    let grouped = group(&receipt.refused, &at.lease.recipients, judged.unsure_is_final);
    let mut recipients = refused(&grouped.permanent);
    let decision = |next, charged_attempts, recipients| Decision {
        outcome: Outcome::Sent,
        next,
        charged: true,
        charged_attempts,
        recipients,
    };
    if grouped.transient.is_empty() {
        return decision(Next::Sent, at.lease.charged_attempts.saturating_add(1), recipients);
    }
    if at.now >= deadline(at.lease, at.policy) {
        recipients.extend(refused(&grouped.transient));
        return decision(Next::Sent, at.lease.charged_attempts.saturating_add(1), recipients);
    }
    // The next attempt is due at once, because recipients were accepted. Each such attempt leaves fewer recipients, so this ends.
    recipients.extend(grouped.unnamed.iter().map(|recipient| RecipientOutcome {
        recipient: (*recipient).clone(),
        state: RecipientState::Sent,
        reply: receipt.reply.clone(),
    }));
    decision(Next::Pending { after: Duration::ZERO }, 0, recipients)
}

fn failed(failure: &Failure, judged: Judged, at: DecisionInput<'_>) -> Decision {
    let lease = at.lease;
    let is_final = judged.unsure_is_final || failure.is_sure();
    let grouped = group(failure.refused(), &lease.recipients, judged.unsure_is_final);
    let mut recipients = refused(&grouped.permanent);
    let retriable = grouped.transient.len() + grouped.unnamed.len();
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
                give_up(lease, RecipientState::InDoubt, reason, &mut recipients)
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
            give_up(lease, RecipientState::Dead, format!("expired: {failure}"), &mut recipients)
        } else {
            let wait = judged.wait.unwrap_or_else(|| backoff_wait(failure, judged, at));
            // The last attempt is at the age limit, if the pause is longer. Another relay may be able to send by then.
            Next::Pending { after: wait.min(left) }
        };
        return decision(outcome, next, recipients);
    }
    // A permanent failure applies to the recipients that it does not name. Transient refusals are retried. If only evidence shows that the
    // message is at fault, the failure is retried until the budget is spent.
    let unnamed_is_final = failure.class() == Class::Permanent && failure.scope() == Scope::Message && is_final;
    let retry_some = !grouped.transient.is_empty() || (!unnamed_is_final && !grouped.unnamed.is_empty());
    let next = if retry_some {
        if unnamed_is_final {
            recipients.extend(grouped.unnamed.iter().map(|r| refusal_of(r, failure)));
        }
        match retry(failure, judged, at) {
            Ok(next) => next,
            Err(why) => {
                recipients.extend(refused(&grouped.transient));
                give_up(lease, RecipientState::Dead, format!("{why}: {failure}"), &mut recipients)
            }
        }
    } else {
        if lease.any_accepted {
            recipients.extend(grouped.unnamed.iter().map(|r| refusal_of(r, failure)));
        }
        give_up(lease, RecipientState::Dead, format!("permanent: {failure}"), &mut recipients)
    };
    decision(outcome, next, recipients)
}

/// The wait that the next hop asks for, at most a day, as for a pause. A longer wait could exceed the delivery's age limit.
fn requested_wait(failure: &Failure) -> Option<Duration> {
    failure.retry_after().map(|wait| wait.min(Breaker::MAX_PAUSE))
}

/// Schedules the next attempt. The error is the reason if there is none.
fn retry(failure: &Failure, judged: Judged, at: DecisionInput<'_>) -> Result<Next, String> {
    let charged_attempts = at.lease.charged_attempts.saturating_add(u32::from(judged.charge));
    if charged_attempts >= at.policy.max_attempts() {
        return Err(format!("budget: {charged_attempts} attempts spent"));
    }
    let after = backoff_wait(failure, judged, at).max(judged.wait.unwrap_or_default());
    match at.now.checked_add(after) {
        Some(due) if due < deadline(at.lease, at.policy) => Ok(Next::Pending { after }),
        _ => Err("expired: the next attempt would come too late".to_owned()),
    }
}

/// The wait by the backoff, at least as long as the next hop asks. It grows with the number of charged attempts, or of all attempts if this
/// one is not charged.
fn backoff_wait(failure: &Failure, judged: Judged, at: DecisionInput<'_>) -> Duration {
    let failures = if judged.charge { at.lease.charged_attempts } else { at.lease.attempts };
    at.policy.delay(failures.saturating_add(1), requested_wait(failure), at.random)
}

/// Ends a delivery without another attempt. If it was accepted for a recipient, it ends as `sent`, and every open recipient gets an outcome
/// with this state. A recipient without a recorded outcome would count as delivered.
fn give_up(lease: &Lease, state: RecipientState, reason: String, recipients: &mut Vec<RecipientOutcome>) -> Next {
    if !lease.any_accepted {
        return Next::Dead { reason };
    }
    let recorded: HashSet<_> = recipients.iter().map(|outcome| &outcome.recipient).collect();
    let open: Vec<_> = lease.recipients.iter().filter(|recipient| !recorded.contains(recipient)).cloned().collect();
    recipients.extend(open.into_iter().map(|recipient| RecipientOutcome {
        recipient,
        state,
        reply: Some(reason.clone()),
    }));
    Next::Sent
}

/// The age limit of the policy, or the expiry of the delivery if that is earlier.
fn deadline(lease: &Lease, policy: &RetryPolicy) -> SystemTime {
    // A time beyond the clock's range means no age limit.
    let never = || lease.claimed_at + Duration::from_secs(100 * 365 * 24 * 3600);
    let oldest = lease.cycle_started_at.checked_add(policy.age_limit()).unwrap_or_else(never);
    lease.expires_at.map_or(oldest, |expires| expires.min(oldest))
}

/// The recipients of a lease, grouped by the next hop's replies.
struct GroupedRecipients<'a> {
    permanent: Vec<&'a Refusal>,
    transient: Vec<&'a Refusal>,
    unnamed: Vec<&'a Recipient>,
}

/// Groups the recipients by their refusals. A refusal is final if it is permanent, and sure or `unsure_is_final`.
fn group<'a>(refusals: &'a [Refusal], recipients: &'a [Recipient], unsure_is_final: bool) -> GroupedRecipients<'a> {
    let mut grouped = GroupedRecipients { permanent: Vec::new(), transient: Vec::new(), unnamed: Vec::new() };
    if refusals.is_empty() {
        grouped.unnamed.extend(recipients);
        return grouped;
    }
    let mut named = HashMap::with_capacity(refusals.len());
    for refusal in refusals {
        named.entry(&refusal.recipient).or_insert(refusal);
    }
    for recipient in recipients {
        match named.get(recipient) {
            Some(refusal) if refusal.class == Class::Permanent && (refusal.sure || unsure_is_final) => {
                grouped.permanent.push(refusal);
            }
            Some(refusal) => grouped.transient.push(refusal),
            None => grouped.unnamed.push(recipient),
        }
    }
    grouped
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
