use std::time::UNIX_EPOCH;

use postrider_transport::{DeliveryId, Encoded};

use super::*;
use crate::store::LeaseKey;

const SECOND: Duration = Duration::from_secs(1);

fn lease(recipients: &[&str]) -> Lease {
    let key = LeaseKey { id: DeliveryId::new(), token: 1 };
    let message = Encoded::new("test/1", "");
    let recipients = recipients.iter().map(|r| Recipient::new(*r)).collect();
    Lease::new(key, UNIX_EPOCH + SECOND * 1000, message, recipients)
}

fn policy() -> RetryPolicy {
    RetryPolicy::default().attempts(3).backoff(SECOND, SECOND * 100).jitter(0.0).max_age(SECOND * 1000)
}

fn at<'a>(lease: &'a Lease, policy: &'a RetryPolicy) -> DecisionInput<'a> {
    DecisionInput { lease, policy, now: lease.claimed_at, random: 0.0 }
}

/// Decides without evidence: the reported scope is taken as it is, and a pause lasts seven seconds.
fn decide(result: &Result<Receipt, Failure>, at: DecisionInput<'_>) -> Decision {
    super::decide(result, as_reported(result), at)
}

fn as_reported(result: &Result<Receipt, Failure>) -> Judged {
    match result {
        Err(failure) if failure.scope() != Scope::Message => Judged {
            scope: failure.scope(),
            charge: failure.in_doubt(),
            unsure_is_final: false,
            wait: Some(SECOND * 7).max(failure.retry_after().map(|wait| wait.min(Breaker::MAX_PAUSE))),
        },
        _ => Judged::own(),
    }
}

fn after(decision: &Decision) -> Duration {
    match decision.next {
        Next::Pending { after } => after,
        ref other => panic!("{other:?}"),
    }
}

fn reason(next: &Next) -> &str {
    match next {
        Next::Dead { reason } | Next::InDoubt { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn states(decision: &Decision) -> Vec<(&str, RecipientState)> {
    decision.recipients.iter().map(|r| (r.recipient.as_str(), r.state)).collect()
}

fn no(recipient: &str, class: Class) -> Refusal {
    Refusal::new(recipient, class, format!("no to {recipient}"))
}

#[test]
fn an_acceptance_for_all_recipients_records_no_outcomes() {
    let (lease, policy) = (lease(&["a", "b"]), policy());
    let decision = decide(&Ok(Receipt::new()), at(&lease, &policy));
    assert_eq!((decision.outcome, &decision.next), (Outcome::Sent, &Next::Sent));
    assert!(decision.recipients.is_empty());
}

#[test]
fn a_permanent_failure_of_the_message_is_a_dead_letter() {
    let (lease, policy) = (lease(&["a"]), policy());
    let decision = decide(&Err(Failure::permanent(Scope::Message, "too large")), at(&lease, &policy));
    assert_eq!(reason(&decision.next), "permanent: too large");
    assert!(decision.charged);
}

#[test]
fn a_transient_failure_of_the_message_is_retried_until_the_budget_is_spent() {
    let (mut lease, policy) = (lease(&["a"]), policy());
    let mut waits = Vec::new();
    loop {
        let decision = decide(&Err(Failure::transient(Scope::Message, "busy")), at(&lease, &policy));
        assert!(decision.charged);
        lease.charged_attempts += 1;
        if let Next::Dead { reason } = &decision.next {
            assert_eq!(reason, "budget: 3 attempts spent: busy");
            break;
        }
        waits.push(after(&decision).as_secs());
    }
    assert_eq!(waits, [1, 2]);
}

#[test]
fn the_requested_wait_is_a_lower_bound() {
    let (lease, policy) = (lease(&["a"]), policy());
    let failure = Failure::transient(Scope::Message, "greylisted").with_retry_after(SECOND * 300);
    assert_eq!(after(&decide(&Err(failure), at(&lease, &policy))), SECOND * 300);
}

#[test]
fn no_wait_is_longer_than_a_day() {
    let (lease, policy) = (lease(&["a"]), policy().max_age(SECOND * 86_400 * 5));
    for scope in [Scope::Message, Scope::Transport] {
        let quota = Failure::transient(scope, "monthly quota").with_retry_after(SECOND * 86_400 * 30);
        assert_eq!(after(&decide(&Err(quota), at(&lease, &policy))), SECOND * 86_400, "{scope:?}");
    }
}

#[test]
fn a_failure_of_the_transport_charges_nothing_and_ends_nothing() {
    let (mut lease, policy) = (lease(&["a"]), policy());
    lease.charged_attempts = 2;
    for failure in [
        Failure::permanent(Scope::Message, "535 wrong password"),
        Failure::transient(Scope::Message, "connection refused"),
    ] {
        let decision = decide(&Err(failure.with_scope(Scope::Transport)), at(&lease, &policy));
        assert_eq!((decision.charged, after(&decision)), (false, SECOND * 7));
    }
    let limited = Failure::transient(Scope::Transport, "429").with_retry_after(SECOND * 60);
    assert_eq!(after(&decide(&Err(limited), at(&lease, &policy))), SECOND * 60);
}

#[test]
fn when_in_doubt_applies_to_every_scope() {
    let (mut lease, policy) = (lease(&["a"]), policy());
    for scope in [Scope::Message, Scope::Transport] {
        let doubt = || Err(Failure::maybe_accepted("no reply").with_scope(scope));
        lease.when_in_doubt = WhenInDoubt::Resend;
        let decision = decide(&doubt(), at(&lease, &policy));
        assert_eq!((decision.outcome, decision.charged), (Outcome::InDoubt, true));
        assert_eq!(after(&decision), if scope == Scope::Message { SECOND } else { SECOND * 7 });
        lease.when_in_doubt = WhenInDoubt::Hold;
        assert_eq!(reason(&decide(&doubt(), at(&lease, &policy)).next), "in doubt: no reply");
    }
    lease.when_in_doubt = WhenInDoubt::Resend;
    lease.charged_attempts = 2;
    let last = decide(&Err(Failure::maybe_accepted("no reply")), at(&lease, &policy));
    assert_eq!(reason(&last.next), "budget: 3 attempts spent; it may have been accepted: no reply");
}

#[test]
fn each_recipient_has_its_own_result() {
    let (lease, policy) = (lease(&["a", "b", "c"]), policy());
    let receipt = Receipt::new().with_refused(vec![no("b", Class::Permanent), no("c", Class::Transient)]);
    let decision = decide(&Ok(receipt), at(&lease, &policy));
    assert_eq!(after(&decision), Duration::ZERO, "a partial acceptance is no failure");
    assert_eq!(states(&decision), [("b", RecipientState::Refused), ("a", RecipientState::Sent)]);
}

#[test]
fn a_delivery_with_an_accepted_recipient_ends_as_sent() {
    let (mut lease, policy) = (lease(&["c"]), policy());
    (lease.any_accepted, lease.charged_attempts) = (true, 2);
    let refused = Failure::transient(Scope::Message, "busy").with_refused(vec![no("c", Class::Transient)]);
    let decision = decide(&Err(refused), at(&lease, &policy));
    assert_eq!(decision.next, Next::Sent);
    assert_eq!(states(&decision), [("c", RecipientState::Refused)]);
    let unnamed = decide(&Err(Failure::permanent(Scope::Message, "gone")), at(&lease, &policy));
    assert_eq!((states(&unnamed), unnamed.next.clone()), (vec![("c", RecipientState::Refused)], Next::Sent));
}

#[test]
fn after_a_partial_acceptance_the_rest_is_due_at_once_with_a_fresh_budget() {
    let (mut lease, policy) = (lease(&["a", "b"]), policy());
    lease.charged_attempts = 2;
    let receipt = || Ok(Receipt::new().with_refused(vec![no("b", Class::Transient)]));
    let decision = decide(&receipt(), at(&lease, &policy));
    assert_eq!(
        (after(&decision), decision.charged_attempts, states(&decision)),
        (Duration::ZERO, 0, vec![("a", RecipientState::Sent)])
    );
    lease.expires_at = Some(lease.claimed_at);
    let decision = decide(&receipt(), at(&lease, &policy));
    assert_eq!((states(&decision), decision.next.clone()), (vec![("b", RecipientState::Refused)], Next::Sent));
}

#[test]
fn an_unknown_refusal_of_a_recipient_is_retried() {
    let (lease, policy) = (lease(&["a", "b"]), policy());
    let receipt = || Ok(Receipt::new().with_refused(vec![no("b", Class::Permanent).unsure()]));
    let first = super::decide(&receipt(), Judged { unsure_is_final: false, ..Judged::own() }, at(&lease, &policy));
    assert_eq!((after(&first), states(&first)), (Duration::ZERO, vec![("a", RecipientState::Sent)]));
    let second = super::decide(&receipt(), Judged::own(), at(&lease, &policy));
    assert_eq!((&second.next, states(&second)), (&Next::Sent, vec![("b", RecipientState::Refused)]));
}

#[test]
fn a_refusal_that_is_not_final_is_retried_with_or_without_a_charge() {
    let (mut lease, policy) = (lease(&["a"]), policy());
    lease.attempts = 3;
    let refused = || Err(Failure::permanent(Scope::Message, "what").unsure());
    for (charge, charged_attempts, wait) in [(true, 1, SECOND), (false, 0, SECOND * 8)] {
        let judged = Judged { unsure_is_final: false, charge, ..Judged::own() };
        let decision = super::decide(&refused(), judged, at(&lease, &policy));
        assert_eq!(
            (decision.outcome, decision.charged, decision.charged_attempts),
            (Outcome::Permanent, charge, charged_attempts)
        );
        assert_eq!(after(&decision), wait);
    }
    let last = super::decide(&refused(), Judged::own(), at(&lease, &policy));
    assert_eq!(reason(&last.next), "permanent: what");
    // If only evidence shows that the message is at fault, the failure is retried.
    let own = super::decide(&Err(Failure::permanent(Scope::Transport, "535")), Judged::own(), at(&lease, &policy));
    assert_eq!((own.charged, after(&own)), (true, SECOND));
}

#[test]
fn a_decision_about_many_recipients_takes_linear_time() {
    let many: Vec<String> = (0..100_000).map(|n| format!("r{n}")).collect();
    let recipients: Vec<&str> = many.iter().map(String::as_str).collect();
    let (mut lease, policy) = (lease(&recipients), policy());
    let refused: Vec<_> = recipients[1..].iter().map(|recipient| no(recipient, Class::Permanent)).collect();
    let decision = decide(&Ok(Receipt::new().with_refused(refused.clone())), at(&lease, &policy));
    assert_eq!((decision.recipients.len(), decision.next), (99_999, Next::Sent));
    lease.any_accepted = true;
    lease.charged_attempts = 2;
    let failure = Failure::transient(Scope::Message, "no").with_refused(refused);
    assert_eq!(decide(&Err(failure), at(&lease, &policy)).recipients.len(), 100_000);
}

#[test]
fn a_refusal_of_every_recipient_is_a_failure() {
    let (lease, policy) = (lease(&["a", "b"]), policy());
    let all = |class_of_b| vec![no("a", Class::Permanent), no("b", class_of_b)];
    let dead = decide(
        &Err(Failure::permanent(Scope::Message, "none").with_refused(all(Class::Permanent))),
        at(&lease, &policy),
    );
    assert_eq!(reason(&dead.next), "permanent: none");
    assert_eq!(dead.recipients.len(), 2);
    let again = decide(
        &Err(Failure::transient(Scope::Message, "none").with_refused(all(Class::Transient))),
        at(&lease, &policy),
    );
    assert_eq!((after(&again), states(&again)), (SECOND, vec![("a", RecipientState::Refused)]));
    // A receipt that refuses every recipient becomes a failure.
    let converted = reject_empty_receipt(Ok(Receipt::new().with_refused(all(Class::Permanent))), &lease.recipients);
    assert!(matches!(decide(&converted, at(&lease, &policy)).next, Next::Dead { .. }));
    // One recipient has a transient refusal, and the failure is permanent: only this recipient is retried.
    let one = Failure::permanent(Scope::Message, "none").with_refused(vec![no("b", Class::Transient)]);
    let some = decide(&Err(one), at(&lease, &policy));
    assert_eq!((after(&some), states(&some)), (SECOND, vec![("a", RecipientState::Refused)]));
}

#[test]
fn the_age_limit_ends_a_delivery() {
    let (mut lease, policy) = (lease(&["a"]), policy());
    lease.expires_at = Some(lease.claimed_at + SECOND);
    let late = decide(&Err(Failure::transient(Scope::Message, "busy")), at(&lease, &policy));
    assert_eq!(reason(&late.next), "expired: the next attempt would come too late: busy");
    lease.expires_at = None;
    lease.cycle_started_at = lease.claimed_at - SECOND * 1000;
    let old = decide_before_sending(at(&lease, &policy)).unwrap();
    assert_eq!(reason(&old.next), "expired: it was not sent in time");
    let now = lease.claimed_at;
    let mut failed = crate::delivery::Attempt::new(1, 1, now, now, Outcome::Transient);
    failed.error = Some("550 the sender is not verified".to_owned());
    lease.last = Some((&failed).into());
    let with_its_reason = decide_before_sending(at(&lease, &policy)).unwrap();
    assert_eq!(reason(&with_its_reason.next), "expired: 550 the sender is not verified");
    let blamed = Failure::transient(Scope::Transport, "down");
    assert_eq!(reason(&decide(&Err(blamed), at(&lease, &policy)).next), "expired: down");
}

#[test]
fn a_lost_attempt_is_held_retried_or_ends_the_delivery() {
    let (mut lease, policy) = (lease(&["a"]), policy());
    (lease.lost, lease.attempts, lease.charged_attempts) = (true, 1, 1);
    assert_eq!(decide_before_sending(at(&lease, &policy)), None);
    lease.charged_attempts = 3;
    let over_budget = decide_before_sending(at(&lease, &policy)).unwrap();
    assert_eq!(reason(&over_budget.next), "budget: 3 attempts spent: the last attempt was lost with its relay");
    (lease.charged_attempts, lease.expires_at) = (1, Some(lease.claimed_at));
    let late = decide_before_sending(at(&lease, &policy)).unwrap();
    assert_eq!(reason(&late.next), "expired: the last attempt was lost with its relay");
    lease.any_accepted = true;
    let partly_accepted = decide_before_sending(at(&lease, &policy)).unwrap();
    assert_eq!((partly_accepted.next, partly_accepted.recipients[0].state), (Next::Sent, RecipientState::InDoubt));
    lease.any_accepted = false;
    lease.when_in_doubt = WhenInDoubt::Hold;
    assert!(reason(&decide_before_sending(at(&lease, &policy)).unwrap().next).starts_with("in doubt: "));
}

#[test]
fn open_recipients_are_recorded_if_others_have_the_mail() {
    let (mut lease, policy) = (lease(&["b", "c"]), policy());
    (lease.any_accepted, lease.charged_attempts) = (true, 2);
    let spent = decide(&Err(Failure::transient(Scope::Message, "busy")), at(&lease, &policy));
    assert_eq!(spent.next, Next::Sent);
    assert_eq!(states(&spent), [("b", RecipientState::Dead), ("c", RecipientState::Dead)]);
    let doubt = decide(&Err(Failure::maybe_accepted("no reply")), at(&lease, &policy));
    assert_eq!(states(&doubt), [("b", RecipientState::InDoubt), ("c", RecipientState::InDoubt)]);
    let mixed = Failure::transient(Scope::Message, "busy").with_refused(vec![no("c", Class::Permanent)]);
    let mixed = decide(&Err(mixed), at(&lease, &policy));
    assert_eq!(states(&mixed), [("c", RecipientState::Refused), ("b", RecipientState::Dead)]);
    lease.cycle_started_at = lease.claimed_at - SECOND * 1000;
    let old = decide_before_sending(at(&lease, &policy)).unwrap();
    assert_eq!((old.next, old.recipients.len()), (Next::Sent, 2));
}

#[test]
fn a_pause_delays_no_delivery_beyond_its_age_limit() {
    let (lease, policy) = (lease(&["a"]), policy());
    let limited = Failure::transient(Scope::Transport, "429").with_retry_after(Duration::MAX);
    assert_eq!(after(&decide(&Err(limited), at(&lease, &policy))), SECOND * 1000);
}
