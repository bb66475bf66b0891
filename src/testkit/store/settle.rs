//! Tests of settlements.

use postrider_transport::Scope;

use super::{
    LEASE, SECOND, StoreUnderTest, claim, claim_one, dead, get, insert_one, recipient_outcome, recipient_states, retry,
    row, row_for, sent, settle, settlement,
};
use crate::state::{Outcome, RecipientState};
use crate::store::{Next, Settled, Settlement, TestClock};
use crate::{AdminStore, Filter, State, Store};

/// A retry is due after its wait and no earlier. Its attempt is in the history, and is charged. Invariant 4.
pub async fn a_retry_waits_and_is_charged<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let enqueued = clock.now();
    let id = insert_one(&store, row()).await;
    for n in 0..3 {
        let lease = claim_one(&store).await;
        assert_eq!((lease.attempts, lease.charged_attempts, lease.lost), (n, n, false));
        assert_eq!((lease.dated_at, lease.cycle_started_at), (enqueued, enqueued), "a retry is not another mail");
        assert_eq!(settle(&store, retry(&lease, SECOND * 30)).await, Settled::Applied);
        assert_eq!(get(&store, id).await.state, State::Pending);
        clock.advance(SECOND * 29);
        assert!(claim(&store, 1).await.is_empty(), "it was due too early");
        clock.advance(SECOND);
    }
    let history = get(&store, id).await.attempts;
    let numbers: Vec<_> = history.iter().map(|a| (a.number, a.cycle, a.outcome)).collect();
    assert_eq!(numbers, [1, 2, 3].map(|n| (n, 1, Outcome::Transient)));
    assert_eq!(history[1].error.as_deref(), Some("error 2"));
    assert_eq!(history[1].reply.as_deref(), Some("reply 2"));
    assert_eq!(history[1].transport.as_deref(), Some("failover/smtp 2"));
    assert_eq!(history[1].finished_at.duration_since(history[1].started_at).ok(), Some(SECOND));
}

/// An attempt that failed for the transport's condition is in the history, and is not charged.
pub async fn an_uncharged_attempt_costs_no_budget<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    let mut uncharged = Settlement { charged_attempts: lease.charged_attempts, ..retry(&lease, SECOND) };
    if let Some(attempt) = uncharged.attempt.as_mut() {
        (attempt.scope, attempt.charged) = (Some(Scope::Transport), false);
        attempt.transport = None;
    }
    assert_eq!(settle(&store, uncharged).await, Settled::Applied);
    clock.advance(SECOND);
    let again = claim_one(&store).await;
    assert_eq!((again.attempts, again.charged_attempts), (1, 0));
    let history = get(&store, id).await.attempts;
    assert_eq!((history[0].scope, history[0].charged), (Some(Scope::Transport), false));
    assert_eq!(history[0].transport, None, "the attempt had no transport");
    // Released without a call, it records no attempt.
    let untouched = Settlement { attempt: None, charged_attempts: again.charged_attempts, ..retry(&again, SECOND) };
    assert_eq!(settle(&store, untouched).await, Settled::Applied);
    clock.advance(SECOND);
    assert_eq!((claim_one(&store).await.attempts, get(&store, id).await.attempts.len()), (1, 1));
}

/// The history has the scope of each attempt, whether that is sure, whether it was charged, and why the relay decided so. This applies to a
/// sent mail as well.
pub async fn the_classification_of_an_attempt_is_stored<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let scopes = [None, Some(Scope::Message), Some(Scope::Sender), Some(Scope::Transport)];
    let mut expected = Vec::new();
    for (n, scope) in (0..).zip(scopes.into_iter().chain([None])) {
        let lease = claim_one(&store).await;
        let mut settlement = if n == 4 { sent(&lease) } else { retry(&lease, SECOND) };
        let attempt = settlement.attempt.as_mut().expect("it was called");
        attempt.scope = scope;
        (attempt.sure, attempt.charged) = (n % 2 == 0, n < 2);
        attempt.note = (n > 0).then(|| format!("note ✓ {n}"));
        expected.extend(settlement.attempt.clone());
        assert_eq!(settle(&store, settlement).await, Settled::Applied);
        clock.advance(SECOND);
    }
    assert_eq!(get(&store, id).await.attempts, expected);
}

/// A mail to 10,000 recipients is claimed, settled in part, claimed for the rest, given up and resent.
pub async fn ten_thousand_recipients_are_settled<F: StoreUnderTest>(fixture: &F) {
    const ALL: usize = 10_000;
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let names: Vec<String> = (0..ALL).map(|n| format!("r{n}@example.com")).collect();
    let id = insert_one(&store, row_for(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let lease = claim_one(&store).await;
    let outcomes_of =
        |part: &[String], state| part.iter().map(|name| recipient_outcome(name, state)).collect::<Vec<_>>();
    let partial =
        Settlement { recipients: outcomes_of(&names[..ALL / 2], RecipientState::Sent), ..retry(&lease, SECOND) };
    assert_eq!(settle(&store, partial).await, Settled::Applied);
    clock.advance(SECOND);
    let rest = claim_one(&store).await;
    assert_eq!((rest.recipients.len(), rest.any_accepted, rest.has_completed_recipients), (ALL / 2, true, true));
    let refused = outcomes_of(&names[ALL / 2..ALL - 1], RecipientState::Refused);
    assert_eq!(settle(&store, Settlement { recipients: refused, ..dead(&rest) }).await, Settled::Applied);
    let count =
        |delivery: &crate::Delivery, state| recipient_states(delivery).iter().filter(|(_, is)| *is == state).count();
    let shown = get(&store, id).await;
    let ends = [RecipientState::Sent, RecipientState::Refused, RecipientState::Dead];
    assert_eq!(ends.map(|state| count(&shown, state)), [ALL / 2, ALL / 2 - 1, 1]);
    assert_eq!(store.resend(id).await.expect("resending works"), crate::UpdateOutcome::Updated);
    assert_eq!(claim_one(&store).await.recipients.len(), ALL / 2);
}

/// Sent, dead and in doubt are final: the delivery is no longer due, and its reason is stored.
pub async fn each_final_state_is_stored_with_its_reason<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    store.insert(vec![row(), row(), row()]).await.expect("inserting works");
    let leases = claim(&store, 3).await;
    let doubt = Next::InDoubt { reason: "in doubt: no answer".to_owned() };
    let mut first = sent(&leases[0]);
    if let Some(attempt) = first.attempt.as_mut() {
        attempt.provider_id = Some("queue-id-1".to_owned());
    }
    let settlements = [first, dead(&leases[1]), settlement(&leases[2], Outcome::InDoubt, doubt)];
    let results = store.settle(&settlements).await.expect("settling works");
    assert_eq!(results, [Settled::Applied; 3]);
    clock.advance(LEASE * 100);
    assert!(claim(&store, 3).await.is_empty(), "an ended delivery was claimed");
    assert_eq!(store.next_due().await.expect("asking works"), None);

    let expected = [
        (State::Sent, None, RecipientState::Sent),
        (State::Dead, Some("permanent: no"), RecipientState::Dead),
        (State::InDoubt, Some("in doubt: no answer"), RecipientState::InDoubt),
    ];
    for (lease, (state, reason, recipient)) in leases.iter().zip(expected) {
        let shown = get(&store, lease.key.id).await;
        assert_eq!((shown.state, shown.reason.as_deref()), (state, reason));
        assert_eq!((shown.due_at, shown.recipients[0].state), (None, recipient));
        assert_eq!(shown.recipients[0].reply.as_deref(), Some("reply 1"));
        assert_eq!(shown.attempts[0].transport.as_deref(), Some("failover/smtp 1"), "{state}");
        let listed = store.list(&Filter::new().state(state)).await.expect("listing works");
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id, listed[0].attempts), (lease.key.id, 1));
        assert_eq!(listed[0].last_error.as_deref(), reason);
    }
    assert_eq!(get(&store, leases[0].key.id).await.attempts[0].provider_id.as_deref(), Some("queue-id-1"));
}

/// Deliveries that are settled together each keep their own history: the number of the attempt, the transport and the reply.
pub async fn deliveries_settled_together_keep_their_own_history<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let again = insert_one(&store, row()).await;
    assert_eq!(settle(&store, retry(&claim_one(&store).await, SECOND)).await, Settled::Applied);
    clock.advance(SECOND);
    store.insert(vec![row(), row()]).await.expect("inserting works");
    let mut settlements: Vec<_> = claim(&store, 3).await.iter().map(sent).collect();
    assert_eq!(settlements.len(), 3);
    // The last one has no transport and no reply.
    let last = settlements[2].attempt.as_mut().expect("it was called");
    (last.transport, last.reply) = (None, None);
    assert_eq!(store.settle(&settlements).await.expect("settling works"), [Settled::Applied; 3]);
    for settlement in &settlements {
        let history = get(&store, settlement.key.id).await.attempts;
        assert_eq!(history.last(), settlement.attempt.as_ref());
        assert_eq!(history.len(), if settlement.key.id == again { 2 } else { 1 });
    }
}

/// Recipients with an outcome keep it, and the next claim returns only the others.
pub async fn each_recipient_keeps_its_own_outcome<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row_for(&["a@example.com", "b@example.com", "c@example.com"])).await;
    let lease = claim_one(&store).await;
    assert!(!lease.has_completed_recipients, "no recipient has an outcome");
    let outcomes = vec![
        recipient_outcome("a@example.com", RecipientState::Sent),
        recipient_outcome("b@example.com", RecipientState::Refused),
    ];
    let partial = Settlement { recipients: outcomes, ..retry(&lease, SECOND) };
    assert_eq!(settle(&store, partial).await, Settled::Applied);
    clock.advance(SECOND);
    let rest = claim_one(&store).await;
    assert!(rest.any_accepted, "it was accepted for a recipient");
    assert!(rest.has_completed_recipients, "two recipients have outcomes");
    assert_eq!(rest.recipients.iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["c@example.com"]);
    let while_leased = get(&store, id).await;
    assert_eq!(
        recipient_states(&while_leased),
        [
            ("a@example.com", RecipientState::Sent),
            ("b@example.com", RecipientState::Refused),
            ("c@example.com", RecipientState::Pending)
        ]
    );
    assert_eq!(while_leased.recipients[1].reply.as_deref(), Some("reply to b@example.com"));
    assert_eq!(settle(&store, sent(&rest)).await, Settled::Applied);
    let done = get(&store, id).await;
    assert_eq!(done.state, State::Sent);
    let transports: Vec<_> = done.attempts.iter().map(|a| a.transport.as_deref()).collect();
    assert_eq!(transports, [Some("failover/smtp 1"), Some("failover/smtp 2")]);
    assert_eq!(
        recipient_states(&done)[1..],
        [("b@example.com", RecipientState::Refused), ("c@example.com", RecipientState::Sent)]
    );
}

/// In a batch, each settlement succeeds or fails by itself. Invariant 2.
pub async fn a_lost_lease_does_not_affect_other_settlements<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    store.insert(vec![row(), row(), row()]).await.expect("inserting works");
    let old = claim(&store, 1).await.remove(0);
    clock.advance(LEASE + SECOND);
    let leases = claim(&store, 3).await;
    assert_eq!(leases.len(), 3);
    let mut settlements: Vec<_> = leases.iter().map(sent).collect();
    let index = leases.iter().position(|lease| lease.key.id == old.key.id).expect("it was taken over");
    settlements[index] = sent(&old);
    let mut expected = [Settled::Applied; 3];
    expected[index] = Settled::LeaseLost;
    assert_eq!(store.settle(&settlements).await.expect("settling works"), expected);
    assert_eq!(get(&store, old.key.id).await.state, State::Leased);
    assert!(store.settle(&[]).await.expect("settling nothing works").is_empty());
}
