//! Tests of the operator methods.

use std::time::Duration;

use postrider_transport::DeliveryId;

use super::{
    LEASE, SECOND, StoreUnderTest, claim, claim_one, dead, get, insert_one, recipient_outcome, recipient_states, retry,
    row, row_for, sent, settle,
};
use crate::state::RecipientState;
use crate::store::{NewRow, Next, RelayId, RelayReport, Settled, Settlement, TestClock, When};
use crate::{AdminStore, Filter, Prune, State, Store, UpdateOutcome};

/// A resend makes an ended delivery pending again, with a fresh budget, a new cycle and no expiry. Attempt numbers and tokens continue.
/// Invariant 2.
pub async fn a_resend_resets_the_budget_and_continues_the_numbers<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let ends: [fn(&crate::store::Lease) -> Settlement; 4] = [
        sent,
        dead,
        |lease| {
            let doubt = Next::InDoubt { reason: "in doubt".to_owned() };
            super::settlement(lease, crate::Outcome::InDoubt, doubt)
        },
        // Given up without a call, after an attempt that was accepted for a recipient: the delivery ends as sent.
        |lease| Settlement { attempt: None, charged_attempts: lease.charged_attempts, ..sent(lease) },
    ];
    for end in ends {
        let expires = Some(When::After(LEASE * 5));
        let id = insert_one(&store, NewRow { expires, ..row() }).await;
        let first = claim_one(&store).await;
        assert_eq!(settle(&store, retry(&first, SECOND)).await, Settled::Applied);
        clock.advance(SECOND);
        let second = claim_one(&store).await;
        assert_eq!(settle(&store, end(&second)).await, Settled::Applied);
        clock.advance(LEASE * 10);

        let history = get(&store, id).await.attempts.len();
        assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
        assert_eq!(store.resend(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Pending));
        let lease = claim_one(&store).await;
        assert_eq!(lease.key.id, id);
        assert!(lease.key.token > second.key.token, "the token did not grow");
        assert_eq!(usize::try_from(lease.attempts).ok(), Some(history), "the numbers do not continue");
        assert_eq!((lease.cycle, lease.charged_attempts, lease.lost), (2, 0, false));
        assert_eq!((lease.cycle_started_at, lease.expires_at), (clock.now(), None));
        assert_eq!(store.resend(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Leased));
        assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
        let shown = get(&store, id).await;
        assert_eq!((shown.state, shown.cycle, shown.attempts.len()), (State::Sent, 2, history + 1));
        assert_eq!(shown.reason, None);
    }
    assert_eq!(store.resend(DeliveryId::new()).await.expect("asking works"), UpdateOutcome::NotFound);
}

/// A resend skips recipients who have the mail. If all have it, the resend goes to all.
pub async fn a_resend_skips_recipients_who_have_the_mail<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row_for(&["a@example.com", "b@example.com"])).await;
    let lease = claim_one(&store).await;
    let refusal = vec![recipient_outcome("b@example.com", RecipientState::Refused)];
    assert_eq!(settle(&store, Settlement { recipients: refusal, ..sent(&lease) }).await, Settled::Applied);
    assert_eq!(
        recipient_states(&get(&store, id).await),
        [("a@example.com", RecipientState::Sent), ("b@example.com", RecipientState::Refused)]
    );

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    let rest = claim_one(&store).await;
    assert_eq!(rest.recipients.iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["b@example.com"]);
    assert_eq!(settle(&store, sent(&rest)).await, Settled::Applied);
    assert!(recipient_states(&get(&store, id).await).iter().all(|(_, state)| *state == RecipientState::Sent));

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(claim_one(&store).await.recipients.len(), 2);
}

/// A cancel affects only a delivery that no relay holds.
pub async fn only_a_pending_delivery_can_be_cancelled<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    assert_eq!(store.cancel(id).await.expect("cancelling works"), UpdateOutcome::Updated);
    assert!(claim(&store, 1).await.is_empty(), "a cancelled delivery was claimed");
    let shown = get(&store, id).await;
    assert_eq!((shown.state, shown.recipients[0].state), (State::Cancelled, RecipientState::Cancelled));
    assert_eq!(store.cancel(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Cancelled));

    let held = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    assert_eq!(store.cancel(held).await.expect("asking works"), UpdateOutcome::Unchanged(State::Leased));
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    assert_eq!(store.cancel(held).await.expect("asking works"), UpdateOutcome::Unchanged(State::Sent));
    assert_eq!(store.cancel(DeliveryId::new()).await.expect("asking works"), UpdateOutcome::NotFound);

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(claim_one(&store).await.key.id, id);
}

/// A list is in the order of the ids, in pages, and filtered by state and template.
pub async fn lists_are_paged_and_filtered<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let templated = || NewRow { template_id: Some("welcome".to_owned()), ..row() };
    let rows: Vec<_> = (0..7).map(|n| if n % 2 == 0 { templated() } else { row() }).collect();
    let mut ids = store.insert(rows).await.expect("inserting works");
    ids.sort();
    let lease = claim_one(&store).await;

    let mut seen = Vec::new();
    let mut filter = Filter::new().limit(3);
    loop {
        let page = store.list(&filter).await.expect("listing works");
        match page.last() {
            Some(last) => filter = filter.after(last.id),
            None => break,
        }
        assert!(page.len() <= 3);
        seen.extend(page.into_iter().map(|summary| summary.id));
    }
    assert_eq!(seen, ids);

    let count = async |filter: Filter| store.list(&filter).await.expect("listing works").len();
    assert_eq!(count(Filter::new().template_id("welcome")).await, 4);
    assert_eq!(count(Filter::new().state(State::Pending)).await, 6);
    assert_eq!(count(Filter::new().state(State::Sent)).await, 0);
    let leased = store.list(&Filter::new().state(State::Leased)).await.expect("listing works");
    assert_eq!(leased.iter().map(|summary| summary.id).collect::<Vec<_>>(), [lease.key.id]);
    let stats = store.stats().await.expect("counting works");
    assert_eq!((stats.pending, stats.leased, stats.sent), (6, 1, 0));
    assert_eq!(stats.oldest_due, Some(Duration::ZERO));
}

/// Pruning deletes old, finished deliveries, and keeps young, pending and leased ones. It can also delete only the history, except the last
/// attempt.
pub async fn pruning_deletes_old_finished_deliveries<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let finished = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, retry(&lease, SECOND)).await, Settled::Applied);
    clock.advance(SECOND);
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    let waiting = insert_one(&store, NewRow { due: Some(When::After(LEASE * 1_000)), ..row() }).await;
    clock.advance(SECOND * 100);
    let young = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);

    let all = [State::Sent, State::Pending, State::Leased, State::Dead];
    let prune = all.into_iter().fold(Prune::older_than(SECOND * 50), Prune::state);
    let history = prune.clone().history_only();
    assert_eq!(store.prune(&history).await.expect("pruning works"), 1);
    assert_eq!(store.prune(&history).await.expect("pruning works"), 0);
    let left: Vec<_> = get(&store, finished).await.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(left, [2]);
    assert_eq!(store.prune(&prune).await.expect("pruning works"), 1);
    assert!(store.get(finished).await.expect("getting works").is_none());
    assert_eq!(get(&store, waiting).await.state, State::Pending);
    assert_eq!(get(&store, young).await.state, State::Sent);
    assert_eq!(
        store.prune(&Prune::older_than(Duration::ZERO)).await.expect("pruning works"),
        0,
        "no state was selected"
    );
}

/// A relay is listed until it stops.
pub async fn relays_are_listed_while_they_report<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let (one, other) = (RelayId::new(), RelayId::new());
    store.report(&RelayReport::new(one, 3, None)).await.expect("reporting works");
    clock.advance(SECOND * 9);
    let paused = Some("smtp: 535 no".to_owned());
    store.report(&RelayReport::new(other, 0, paused.clone())).await.expect("reporting works");
    let relays = store.stats().await.expect("counting works").relays;
    let seen: Vec<_> = relays.iter().map(|r| (r.id.clone(), r.seen_ago, r.in_flight, r.paused.clone())).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.contains(&(one.to_string(), SECOND * 9, 3, None)), "{seen:?}");
    assert!(seen.contains(&(other.to_string(), Duration::ZERO, 0, paused)), "{seen:?}");
    store.report(&RelayReport::new(one, 0, None)).await.expect("reporting works");
    store.retire(other).await.expect("retiring works");
    let relays = store.stats().await.expect("counting works").relays;
    assert_eq!((relays.len(), relays[0].in_flight, relays[0].seen_ago), (1, 0, Duration::ZERO));
    // A relay that vanished is listed for some time. The report of another relay then deletes it.
    clock.advance(SECOND * 500);
    store.report(&RelayReport::new(other, 0, None)).await.expect("reporting works");
    assert_eq!(store.stats().await.expect("counting works").relays.len(), 2);
    clock.advance(SECOND * 500);
    store.report(&RelayReport::new(other, 0, None)).await.expect("reporting works");
    let relays = store.stats().await.expect("counting works").relays;
    assert_eq!(relays.iter().map(|relay| relay.id.as_str()).collect::<Vec<_>>(), [other.to_string()]);
}

/// A wake ends the wait, also if it comes before the wait.
pub async fn a_wake_ends_the_wait<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let limit = SECOND * 30;
    store.wake();
    tokio::time::timeout(limit, store.notified()).await.expect("an earlier wake was missed");
    let waiter = tokio::spawn({
        let store = store.clone();
        async move { store.notified().await }
    });
    tokio::task::yield_now().await;
    insert_one(&store, row()).await;
    tokio::time::timeout(limit, waiter)
        .await
        .expect("an insert did not wake the waiter")
        .expect("waiting does not panic");
}

/// Migrating again, also several times at once, changes nothing.
pub async fn migrating_twice_changes_nothing<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let id = insert_one(&store, row()).await;
    store.migrate().await.expect("migrating again works");
    let others = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.migrate().await })
    });
    for other in others.collect::<Vec<_>>() {
        other.await.expect("migrating does not panic").expect("migrating at once works");
    }
    assert_eq!(get(&store, id).await.state, State::Pending);
}
