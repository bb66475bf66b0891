//! Tests of what operators do: changes of many deliveries, pauses, and the audit trail.

use postrider_transport::DeliveryId;

use super::{SECOND, StoreUnderTest, claim, claim_one, dead, get, insert_one, row, sent, settle, settlement};
use crate::store::{AuditContext, NewRow, Next, Settled, TestClock, When};
use crate::{
    Action, AdminStore, AuditFilter, Change, CountedEvent, Outcome, PauseTarget, Prune, RecipientState, State, Store,
    UpdateOutcome,
};

/// The state of each delivery.
async fn states<S: AdminStore>(store: &S, ids: &[DeliveryId]) -> Vec<State> {
    let mut states = Vec::new();
    for id in ids {
        states.push(get(store, *id).await.state);
    }
    states
}

/// One delivery in each state: pending, leased, sent, dead, in doubt, cancelled, and sent with its message deleted.
async fn one_of_each<S: AdminStore>(store: &S, clock: &TestClock) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(insert_one(store, row()).await);
        clock.advance(SECOND);
    }
    let leases = claim(store, 10).await;
    let lease = |id: DeliveryId| leases.iter().find(|lease| lease.key.id == id).expect("it is leased");
    let doubt = settlement(lease(ids[4]), Outcome::InDoubt, Next::InDoubt { reason: "in doubt".to_owned() });
    for settled in [sent(lease(ids[0])), sent(lease(ids[2])), dead(lease(ids[3])), doubt] {
        assert_eq!(settle(store, settled).await, Settled::Applied);
    }
    clock.advance(SECOND * 5);
    let pruned = store.prune(&Prune::messages(SECOND / 2).state(State::Sent)).await.expect("pruning works");
    assert_eq!(pruned, 2);
    let sent_id = insert_one(store, row()).await;
    let lease = claim_one(store).await;
    assert_eq!(settle(store, sent(&lease)).await, Settled::Applied);
    let cancelled = insert_one(store, row()).await;
    assert_eq!(store.cancel(cancelled).await.expect("cancelling works"), UpdateOutcome::Updated);
    let pending = insert_one(store, row()).await;
    vec![pending, ids[1], sent_id, ids[3], ids[4], cancelled, ids[0]]
}

/// A change of many deliveries answers for each, and changes only those whose state allows it. Each change is recorded, and nothing else.
pub async fn a_change_of_many_answers_for_each<F: StoreUnderTest>(fixture: &F) {
    use UpdateOutcome::{MessageDeleted, NotFound, Unchanged, Updated};
    for change in [Change::Resend, Change::Cancel, Change::Dismiss] {
        let clock = TestClock::new();
        let store = fixture.fresh(clock.clone()).await;
        let mut ids = one_of_each(&store, &clock).await;
        assert_eq!(
            states(&store, &ids).await,
            [State::Pending, State::Leased, State::Sent, State::Dead, State::InDoubt, State::Cancelled, State::Sent]
        );
        // Not in the order of ids.
        ids.reverse();
        ids.push(DeliveryId::new());
        let context = AuditContext::by("ada").target("state dead").note("the provider works again");
        let outcomes = store.change(change, None, &ids, Some(&context)).await.expect("changing works");
        let [pending, leased, sent, cancelled] =
            [State::Pending, State::Leased, State::Sent, State::Cancelled].map(Unchanged);
        let [dead, in_doubt] = [State::Dead, State::InDoubt].map(Unchanged);
        let (expected, after) = match change {
            Change::Resend => (
                [MessageDeleted, Updated, Updated, Updated, Updated, leased, pending, NotFound],
                [
                    State::Pending,
                    State::Leased,
                    State::Pending,
                    State::Pending,
                    State::Pending,
                    State::Pending,
                    State::Sent,
                ],
            ),
            Change::Cancel => (
                [sent, cancelled, in_doubt, dead, sent, leased, Updated, NotFound],
                [
                    State::Cancelled,
                    State::Leased,
                    State::Sent,
                    State::Dead,
                    State::InDoubt,
                    State::Cancelled,
                    State::Sent,
                ],
            ),
            Change::Dismiss => (
                [sent, cancelled, Updated, Updated, sent, leased, pending, NotFound],
                [
                    State::Pending,
                    State::Leased,
                    State::Sent,
                    State::Dismissed,
                    State::Dismissed,
                    State::Cancelled,
                    State::Sent,
                ],
            ),
        };
        assert_eq!(outcomes, expected, "{change:?}");
        let in_order: Vec<DeliveryId> = ids.iter().rev().skip(1).copied().collect();
        assert_eq!(states(&store, &in_order).await, after, "{change:?}");

        let recorded = store.audit(&AuditFilter::new()).await.expect("reading works");
        let mut changed: Vec<_> = recorded.iter().filter_map(|entry| entry.delivery).collect();
        changed.sort();
        let updated = ids.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Updated);
        let mut updated: Vec<_> = updated.map(|(id, _)| *id).collect();
        updated.sort();
        assert_eq!(changed, updated, "{change:?}");
        for entry in &recorded {
            assert_eq!((entry.operator.as_str(), entry.action, entry.at), ("ada", change.action(), clock.now()));
            assert_eq!(entry.target.as_deref(), Some("state dead"));
            assert_eq!(entry.note.as_deref(), Some("the provider works again"));
        }
        // The counters follow.
        let (stats, counted) = (store.stats().await.expect("counting works"), states(&store, &in_order).await);
        let number = |state| counted.iter().filter(|counted| **counted == state).count() as u64;
        assert_eq!(
            [stats.pending, stats.leased, stats.sent, stats.dead, stats.in_doubt, stats.cancelled, stats.dismissed],
            // The message of one more sent delivery was deleted.
            [
                number(State::Pending),
                number(State::Leased),
                number(State::Sent) + 1,
                number(State::Dead),
                number(State::InDoubt),
                number(State::Cancelled),
                number(State::Dismissed)
            ],
            "{change:?}"
        );
        let hourly = store.hourly(clock.now()).await.expect("counting works");
        let dismissed: u64 =
            hourly.iter().filter(|count| count.event == CountedEvent::Dismissed).map(|count| count.count).sum();
        assert_eq!(dismissed, number(State::Dismissed));
        // Without a context, nothing is recorded.
        let _ = store.change(change, None, &ids, None).await.expect("changing works");
        assert_eq!(store.audit(&AuditFilter::new()).await.expect("reading works").len(), recorded.len());
    }
}

/// A dismissed delivery keeps its reason, ends when it is dismissed, and can be sent again.
pub async fn a_dismissed_delivery_is_closed<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let first = claim_one(&store).await;
    assert_eq!(settle(&store, dead(&first)).await, Settled::Applied);
    let reason = get(&store, id).await.reason;
    clock.advance(SECOND * 5);
    assert_eq!(store.dismiss(id).await.expect("dismissing works"), UpdateOutcome::Updated);
    let closed = get(&store, id).await;
    assert_eq!((closed.state, closed.finished_at), (State::Dismissed, Some(clock.now())));
    assert!(reason.is_some() && closed.reason == reason, "{:?} after {reason:?}", closed.reason);
    assert_eq!(closed.recipients[0].state, RecipientState::Dismissed);
    assert_eq!(store.dismiss(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Dismissed));
    assert!(claim(&store, 1).await.is_empty(), "a dismissed delivery was claimed");
    // A bulk change has read the state a moment before, and another operator was faster.
    let late = store.change(Change::Resend, Some(State::Dead), &[id], None).await.expect("asking works");
    assert_eq!(late, [UpdateOutcome::Unchanged(State::Dismissed)]);
    let found = store.list(&crate::Filter::new().state(State::Dismissed)).await.expect("listing works");
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), [id]);
    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    let again = claim_one(&store).await;
    assert!(again.key.token > first.key.token, "the token did not grow");
    assert_eq!(settle(&store, sent(&again)).await, Settled::Applied);
    let stats = store.stats().await.expect("counting works");
    assert_eq!((stats.sent, stats.dead, stats.dismissed), (1, 0, 0));
}

/// A cancellation in the caller's transaction follows that transaction, also for a delivery that the transaction enqueued.
pub async fn a_cancellation_follows_its_transaction<F: StoreUnderTest>(fixture: &F) {
    use UpdateOutcome::{NotFound, Unchanged, Updated};
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let keyed = |key: &str| NewRow { key: Some(key.to_owned()), ..row() };
    let reminder = insert_one(&store, NewRow { due: Some(When::After(SECOND * 60)), ..keyed("reminder") }).await;
    let rolled_back = fixture.cancel_in_transaction(&store, vec![keyed("new")], &["reminder", "new"], false).await;
    assert_eq!(rolled_back, [Updated, Updated]);
    assert_eq!(get(&store, reminder).await.state, State::Pending);
    let committed =
        fixture.cancel_in_transaction(&store, vec![keyed("new")], &["reminder", "new", "unknown"], true).await;
    assert_eq!(committed, [Updated, Updated, NotFound]);
    assert_eq!(get(&store, reminder).await.state, State::Cancelled);
    clock.advance(SECOND * 100);
    assert!(claim(&store, 10).await.is_empty(), "a cancelled delivery was claimed");
    let stats = store.stats().await.expect("counting works");
    assert_eq!((stats.pending, stats.cancelled), (0, 2));
    // A relay holds it, or has sent it.
    let held = insert_one(&store, keyed("held")).await;
    let lease = claim_one(&store).await;
    let refused = fixture.cancel_in_transaction(&store, Vec::new(), &["held"], true).await;
    assert_eq!(refused, [Unchanged(State::Leased)]);
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    let refused = fixture.cancel_in_transaction(&store, Vec::new(), &["held"], true).await;
    assert_eq!(refused, [Unchanged(State::Sent)]);
    assert_eq!(get(&store, held).await.state, State::Sent);
}

/// A pause is stored once, with who and why, until it is ended. Both actions are recorded, and actions that change nothing are not.
pub async fn pauses_and_probes_are_stored<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    assert_eq!(store.controls().await.expect("reading works"), crate::Controls::default());
    let (ada, bob) = (AuditContext::by("ada").note("wrong price"), AuditContext::by("bob"));
    let targets = [
        PauseTarget::Outbox,
        PauseTarget::Transport("ses".to_owned()),
        PauseTarget::Sender("Shop@Example.com".to_owned()),
        PauseTarget::Template("Grüße".to_owned()),
    ];
    for target in &targets {
        assert!(store.set_pause(target, true, &ada).await.expect("pausing works"));
        clock.advance(SECOND);
        assert!(!store.set_pause(target, true, &bob).await.expect("asking works"), "it was paused already");
    }
    let other = PauseTarget::Template("grüße".to_owned());
    assert!(!store.set_pause(&other, false, &bob).await.expect("asking works"), "another template was paused");
    let controls = store.controls().await.expect("reading works");
    assert_eq!(
        controls.pauses.iter().map(|pause| pause.target.kind()).collect::<Vec<_>>(),
        ["outbox", "transport", "sender", "template"]
    );
    assert!(
        controls.pauses.iter().all(|pause| pause.operator == "ada" && pause.note.as_deref() == Some("wrong price"))
    );
    assert_eq!(controls.pauses[3].since, clock.now() - SECOND);
    assert_eq!(controls.pauses[2].target, PauseTarget::Sender("shop@example.com".to_owned()));
    assert_eq!(controls.probe_requested_at, None);

    store.request_probe(&bob).await.expect("asking works");
    let first = store.controls().await.expect("reading works").probe_requested_at.expect("it was asked for");
    store.request_probe(&bob).await.expect("asking works");
    let second = store.controls().await.expect("reading works").probe_requested_at.expect("it was asked for");
    assert!(second > first, "two requests within the clock's resolution look alike");
    for target in &targets {
        assert!(store.set_pause(target, false, &bob).await.expect("resuming works"));
    }
    assert!(store.controls().await.expect("reading works").pauses.is_empty());

    store.record(Action::Erase, &ada.clone().target("2 deliveries")).await.expect("recording works");
    let all = store.audit(&AuditFilter::new()).await.expect("reading works");
    let actions: Vec<_> = all.iter().map(|entry| (entry.action, entry.operator.as_str())).collect();
    let (resumed, paused) = ([(Action::Resume, "bob"); 4], [(Action::Pause, "ada"); 4]);
    let expected = [&[(Action::Erase, "ada")][..], &resumed, &[(Action::Probe, "bob"); 2], &paused].concat();
    assert_eq!(actions, expected);
    assert_eq!(all[1].target.as_deref(), Some("template Grüße"));
    assert!(all.windows(2).all(|pair| pair[0].number > pair[1].number), "the numbers do not fall");
    // Pages.
    let page = store.audit(&AuditFilter::new().before(all[2].number).limit(3)).await.expect("reading works");
    assert_eq!(page, all[3..6]);
    let of_none = store.audit(&AuditFilter::new().delivery(DeliveryId::new())).await.expect("reading works");
    assert_eq!(of_none, []);
    // By operator and by action.
    let by_bob = store.audit(&AuditFilter::new().operator("bob")).await.expect("reading works");
    assert_eq!(by_bob, all[1..7]);
    let probes = AuditFilter::new().operator("bob").action(Action::Probe);
    assert_eq!(store.audit(&probes).await.expect("reading works"), all[5..7]);
    for nobody in ["Bob", "bo", ""] {
        let found = store.audit(&AuditFilter::new().operator(nobody)).await.expect("reading works");
        assert_eq!(found, [], "{nobody:?} is not the name of an operator");
    }
}

/// The parts of the pending deliveries, and the age of the oldest one that should have been sent. A failed attempt does not reset it.
pub async fn waiting_counts_from_the_start_of_the_cycle<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let stats = async || store.stats().await.expect("counting works");
    assert_eq!(stats().await.oldest_waiting, None);
    let later = When::After(SECOND * 1_000);
    insert_one(&store, NewRow { due: Some(later), ..row() }).await;
    assert_eq!(stats().await.oldest_waiting, None, "a scheduled delivery does not wait");
    let failing = insert_one(&store, row()).await;
    clock.advance(SECOND * 10);
    for round in 1..=3 {
        let lease = claim_one(&store).await;
        assert_eq!(lease.key.id, failing);
        assert_eq!(stats().await.oldest_waiting, Some(SECOND * 10 * round), "leased");
        assert_eq!(settle(&store, super::retry(&lease, SECOND * 10)).await, Settled::Applied);
        let now = stats().await;
        assert_eq!(now.oldest_waiting, Some(SECOND * 10 * round), "a failed attempt reset it");
        assert_eq!((now.pending, now.due, now.scheduled, now.retrying), (2, 0, 1, 1));
        clock.advance(SECOND * 10);
        let now = stats().await;
        assert_eq!((now.pending, now.due, now.scheduled, now.retrying), (2, 1, 1, 0));
    }
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, super::retry(&lease, SECOND * 100)).await, Settled::Applied);
    assert!(claim(&store, 10).await.is_empty(), "nothing is due");
    // A probe needs a mail. The scheduled one stays scheduled, and one that was charged waits: probes must not spend its budget.
    let uncharged = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    let mut released = super::retry(&lease, SECOND * 100);
    released.charged_attempts = lease.charged_attempts;
    released.attempt.iter_mut().for_each(|attempt| attempt.charged = false);
    assert_eq!(settle(&store, released).await, Settled::Applied);
    store.request_probe(&AuditContext::by("ada")).await.expect("asking works");
    let lease = claim_one(&store).await;
    assert_eq!(lease.key.id, uncharged);
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    store.request_probe(&AuditContext::by("ada")).await.expect("asking works");
    assert!(claim(&store, 10).await.is_empty(), "a mail that was charged became due");
    clock.advance(SECOND * 100);
    let lease = claim_one(&store).await;
    assert_eq!(lease.key.id, failing);
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    assert_eq!(stats().await.oldest_waiting, None);
    assert_eq!(stats().await.scheduled, 1);
}

/// The age `oldest_undeferred` leaves out mail that the next hop defers, so that such mail raises no alarm and hides no outage.
/// An attempt that fails for the transport's condition or is in doubt does not reset it, nor does a probe.
pub async fn oldest_undeferred_leaves_out_deferred_deliveries<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let lags = async || {
        let stats = store.stats().await.expect("counting works");
        let seconds = |age: Option<std::time::Duration>| age.map(|age| age.as_secs());
        (seconds(stats.oldest_waiting), seconds(stats.oldest_undeferred))
    };
    insert_one(&store, NewRow { due: Some(When::After(SECOND * 1_000)), ..row() }).await;
    assert_eq!(lags().await, (None, None), "a scheduled delivery does not wait");
    let deferred = insert_one(&store, row()).await;
    clock.advance(SECOND * 10);
    assert_eq!(lags().await, (Some(10), Some(10)), "it has not been tried");
    let lease = claim_one(&store).await;
    assert_eq!(lags().await, (Some(10), Some(10)), "it is being tried");
    assert_eq!(settle(&store, super::retry(&lease, SECOND * 50)).await, Settled::Applied);
    assert_eq!(lags().await, (Some(10), None), "its attempt was charged");

    let waiting = insert_one(&store, row()).await;
    for round in 1..=4 {
        clock.advance(SECOND * 10);
        if round == 3 {
            // The probe makes the deferred delivery no earlier.
            store.request_probe(&AuditContext::by("ada")).await.expect("asking works");
        }
        for lease in claim(&store, 10).await {
            let mut failed = super::retry(&lease, SECOND * 10);
            if lease.key.id == waiting {
                failed.charged_attempts = lease.charged_attempts;
                failed.attempt.iter_mut().for_each(|attempt| attempt.charged = false);
            }
            assert_eq!(settle(&store, failed).await, Settled::Applied);
        }
        assert_eq!(lags().await, (Some(10 + 10 * round), Some(10 * round)), "the transport failed {round} times");
    }
    assert_eq!((get(&store, waiting).await.attempts.len(), get(&store, deferred).await.attempts.len()), (4, 1));

    // A lost reply is charged, and the cause may be the next hop. So may a relay that died during a call.
    clock.advance(SECOND * 10);
    let leases = claim(&store, 10).await;
    let lease = leases.iter().find(|lease| lease.key.id == waiting).expect("it is due");
    let doubt = settlement(lease, Outcome::InDoubt, Next::Pending { after: SECOND * 10 });
    assert_eq!(settle(&store, doubt).await, Settled::Applied);
    assert_eq!(lags().await, (Some(60), Some(50)), "a lost reply reset it");
    clock.advance(SECOND * 10);
    claim_one(&store).await;
    clock.advance(super::LEASE);
    let lost = claim(&store, 10).await;
    assert!(lost.iter().any(|lease| lease.key.id == waiting && lease.lost), "its lease has expired");
    assert_eq!(lags().await, (Some(130), Some(120)), "a lost attempt reset it");
    // A resend begins anew.
    for lease in &lost {
        assert_eq!(settle(&store, dead(lease)).await, Settled::Applied);
    }
    assert_eq!(lags().await, (None, None));
    assert_eq!(store.resend(deferred).await.expect("resending works"), UpdateOutcome::Updated);
    clock.advance(SECOND * 5);
    assert_eq!(lags().await, (Some(5), Some(5)), "a charge of the cycle before counts");
}
