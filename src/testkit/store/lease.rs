//! Tests of claims, renewals and lost leases.

use std::collections::HashSet;
use std::time::Duration;

use postrider_transport::{Encoded, Scope};

use super::{LEASE, SECOND, StoreUnderTest, claim, claim_one, get, insert_one, retry, row, sent, settle};
use crate::state::{Outcome, Priority};
use crate::store::{Claim, LeaseKey, NewRow, Settled, TestClock, When};
use crate::{AdminStore, State, Store};

/// Claims take the highest priority first, and within a priority the earliest due time.
pub async fn claims_follow_priority_and_then_due_time<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let due = |ago: u64, priority: u8| NewRow {
        due: Some(When::At(clock.now() - Duration::from_secs(ago))),
        priority: Priority::new(priority).expect("a priority"),
        ..row()
    };
    let rows = vec![due(5, 0), due(1, 9), due(9, 5), due(3, 9), due(7, 5)];
    let ids = store.insert(rows).await.expect("inserting works");
    let mut order = Vec::new();
    loop {
        let leases = claim(&store, 1).await;
        match leases.first() {
            Some(lease) => order.push(lease.key.id),
            None => break,
        }
    }
    assert_eq!(order, [ids[3], ids[1], ids[2], ids[4], ids[0]]);
}

/// A claim stays within its limit over all priorities, and takes no delivery that another claim has leased.
pub async fn a_claim_respects_its_limit<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let urgent = || NewRow { priority: Priority::URGENT, ..row() };
    let rows = vec![row(), urgent(), row(), urgent(), row()];
    store.insert(rows).await.expect("inserting works");
    let sizes = [claim(&store, 0).await.len(), claim(&store, 3).await.len(), claim(&store, 3).await.len()];
    assert_eq!(sizes, [0, 3, 2]);
    assert!(claim(&store, 3).await.is_empty());
}

/// The mails of a claim stay within its limit of bytes, in the order of their priority, and one comes in any case. Mails that do not fit
/// stay due and unchanged.
pub async fn a_claim_respects_its_byte_limit<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    // The last character takes three bytes.
    let sized = |bytes: usize, priority: u8| NewRow {
        message: Encoded::new("test/1", format!("{}…", "x".repeat(bytes - 3))),
        priority: Priority::new(priority).expect("a priority"),
        ..row()
    };
    let rows = vec![sized(100, 9), sized(100, 8), sized(100_000, 7), sized(10, 6), sized(10, 5)];
    let ids = store.insert(rows).await.expect("inserting works");
    let take = async |limit: usize, bytes: u64| -> Vec<_> {
        let leases = store.claim(Claim::new(limit, LEASE).max_bytes(bytes)).await.expect("claiming works");
        assert!(leases.iter().all(|lease| (lease.attempts, lease.lost) == (0, false)), "it was leased before");
        leases.into_iter().map(|lease| lease.key.id).collect()
    };
    assert_eq!(take(5, 199).await, ids[..1], "199 bytes are too few for 200");
    assert_eq!(store.stats().await.expect("counting works").leased, 1);
    assert_eq!(take(5, 1_000).await, ids[1..2], "a mail of lower priority was taken before one that does not fit");
    assert_eq!(take(5, 0).await, ids[2..3], "one comes in any case");
    assert_eq!(take(5, 20).await, ids[3..]);
    assert!(take(5, 20).await.is_empty());
}

/// Deliveries of a claim without an answer are due again at once. Nothing is charged, since no attempt was made. Other claims keep their
/// deliveries. Invariant 3.
pub async fn an_unanswered_claim_can_be_released<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    store.insert(vec![row(), row(), row()]).await.expect("inserting works");
    let (lost, kept) = (Claim::new(2, LEASE), Claim::new(1, LEASE));
    let unanswered = store.claim(lost).await.expect("claiming works");
    let held = store.claim(kept).await.expect("claiming works");
    let never = Claim::new(1, LEASE);
    assert_eq!(store.release_claims(&[]).await.expect("releasing works"), 0);
    assert_eq!(store.release_claims(&[never.id, lost.id]).await.expect("releasing works"), 2);
    assert_eq!(store.release_claims(&[lost.id]).await.expect("releasing works"), 0, "the claim was already released");
    assert_eq!(settle(&store, sent(&unanswered[0])).await, Settled::LeaseLost, "no relay holds it");
    assert_eq!(settle(&store, sent(&held[0])).await, Settled::Applied);

    let again = claim(&store, 3).await;
    let ids = |leases: &[crate::store::Lease]| leases.iter().map(|lease| lease.key.id).collect::<HashSet<_>>();
    assert_eq!(ids(&again), ids(&unanswered));
    for lease in &again {
        assert_eq!((lease.attempts, lease.charged_attempts, lease.lost, &lease.last), (0, 0, false, &None));
        assert!(unanswered.iter().all(|old| old.key.id != lease.key.id || old.key.token < lease.key.token));
        assert_eq!(settle(&store, retry(lease, SECOND)).await, Settled::Applied);
    }
    assert_eq!(store.release_claims(&[lost.id, kept.id]).await.expect("releasing works"), 0, "they are settled");
    assert_eq!(store.stats().await.expect("counting works").pending, 2);
}

/// A claim limited to the start of a pass does not return a delivery that the pass has postponed, even if the delivery is due again very
/// soon.
pub async fn a_pass_does_not_claim_a_delivery_twice<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    insert_one(&store, row()).await;
    let cutoff = store.now().await.expect("the clock works");
    let pass = Claim::new(10, LEASE).due_by(cutoff);
    let leases = store.claim(pass).await.expect("claiming works");
    assert_eq!(settle(&store, retry(&leases[0], Duration::ZERO)).await, Settled::Applied);
    clock.advance(SECOND);
    assert!(store.claim(pass).await.expect("claiming works").is_empty(), "it was claimed again in the same pass");
    assert_eq!(claim(&store, 10).await.len(), 1);
}

/// A store may begin a claim where the last one ended. It must still find deliveries that become due before that position, and late commits
/// there, before it says that nothing is due. Invariant 4.
pub async fn a_backlog_hides_no_delivery<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let start = clock.now();
    // This many rows end the backlog with a full claim.
    for _ in 0..5 {
        store.insert((0..21).map(|_| row()).collect()).await.expect("inserting works");
        clock.advance(SECOND);
    }
    let abandoned = claim(&store, 3).await;
    let mut claimed = HashSet::new();
    for _ in 0..20 {
        let leases = claim(&store, 3).await;
        claimed.extend(leases.iter().map(|lease| lease.key.id));
        store.settle(&leases.iter().map(sent).collect::<Vec<_>>()).await.expect("settling works");
    }
    clock.advance(LEASE + SECOND);
    let late = insert_one(&store, NewRow { due: Some(When::At(start)), ..row() }).await;
    loop {
        let leases = claim(&store, 3).await;
        if leases.is_empty() {
            break;
        }
        claimed.extend(leases.iter().map(|lease| lease.key.id));
        store.settle(&leases.iter().map(sent).collect::<Vec<_>>()).await.expect("settling works");
    }
    assert!(claimed.contains(&late) && abandoned.iter().all(|lease| claimed.contains(&lease.key.id)));
    assert_eq!(claimed.len(), 106);
}

/// With any number of concurrent claims, each delivery has one holder. Invariant 2.
pub async fn concurrent_claims_never_share_a_delivery<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let ids = store.insert((0..200).map(|_| row()).collect()).await.expect("inserting works");
    let claimers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                let mut empty = 0;
                // A claim may return nothing while other claims hold the rows that it found.
                while empty < 3 {
                    match store.claim(Claim::new(7, LEASE)).await {
                        Ok(leases) if leases.is_empty() => empty += 1,
                        Ok(leases) => mine.extend(leases.into_iter().map(|lease| lease.key.id)),
                        Err(error) if error.kind().is_transient() => {}
                        Err(error) => panic!("claiming failed: {error}"),
                    }
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.expect("a claimer does not panic"));
    }
    let distinct: HashSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "a delivery was claimed twice");
    assert_eq!(distinct, ids.into_iter().collect());
}

/// Settlements and renewals with any other token change nothing and return `LeaseLost`. So does a second settlement. Invariant 2.
pub async fn only_the_current_token_settles<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let never_claimed = LeaseKey { id, token: 0 };
    assert_eq!(store.renew(&[never_claimed], LEASE).await.expect("renewing works"), [Settled::LeaseLost]);

    let first = claim_one(&store).await;
    clock.advance(LEASE * 2);
    let second = claim_one(&store).await;
    assert!(second.key.token > first.key.token, "the token did not grow");
    let before = format!("{:?}", get(&store, id).await);
    for stale in [sent(&first), retry(&first, SECOND), super::dead(&first)] {
        assert_eq!(settle(&store, stale).await, Settled::LeaseLost);
    }
    let future = LeaseKey { id, token: second.key.token + 1 };
    assert_eq!(
        store.renew(&[first.key, future], LEASE).await.expect("renewing works"),
        [Settled::LeaseLost, Settled::LeaseLost]
    );
    assert_eq!(format!("{:?}", get(&store, id).await), before, "a stale token changed something");

    assert_eq!(settle(&store, sent(&second)).await, Settled::Applied);
    assert_eq!(settle(&store, sent(&second)).await, Settled::LeaseLost, "it was settled twice");
    assert_eq!(store.renew(&[second.key], LEASE).await.expect("renewing works"), [Settled::LeaseLost]);
    assert_eq!(get(&store, id).await.state, State::Sent);
}

/// The claim after an expired lease records a lost, charged attempt, and the old holder can no longer settle. Invariant 3.
pub async fn an_expired_lease_leaves_a_lost_attempt<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let claimed_at = clock.now();
    let expired = claim_one(&store).await;
    clock.advance(LEASE - SECOND);
    assert!(claim(&store, 1).await.is_empty(), "the lease was not respected");
    clock.advance(SECOND * 2);
    let successor = claim_one(&store).await;
    assert!(successor.lost);
    assert_eq!((successor.attempts, successor.charged_attempts), (1, 1));
    let history = get(&store, id).await.attempts;
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].number, history[0].outcome), (1, Outcome::Lost));
    assert_eq!(history[0].transport, None, "the transport of a lost attempt is unknown");
    assert_eq!((history[0].started_at, history[0].finished_at), (claimed_at, clock.now()));
    assert_eq!(settle(&store, sent(&expired)).await, Settled::LeaseLost);
    assert_eq!(settle(&store, sent(&successor)).await, Settled::Applied);
    let numbers: Vec<_> = get(&store, id).await.attempts.iter().map(|a| (a.number, a.outcome)).collect();
    assert_eq!(numbers, [(1, Outcome::Lost), (2, Outcome::Sent)]);
}

/// A claim reports a lost attempt until the next attempt, also if the delivery was released after the claim that recorded it. A resend
/// ends this.
pub async fn a_lost_attempt_is_reported_until_the_next_attempt<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    claim_one(&store).await;
    clock.advance(LEASE + SECOND);
    let taking = Claim::new(1, LEASE);
    let successor = store.claim(taking).await.expect("claiming works").remove(0);
    assert!(successor.lost);
    let back = crate::store::Settlement {
        attempt: None,
        charged_attempts: successor.charged_attempts,
        ..retry(&successor, SECOND)
    };
    assert_eq!(settle(&store, back).await, Settled::Applied);
    clock.advance(SECOND);
    let unanswered = Claim::new(1, LEASE);
    assert!(store.claim(unanswered).await.expect("claiming works")[0].lost, "it was released without an attempt");
    assert_eq!(store.release_claims(&[unanswered.id]).await.expect("releasing works"), 1);
    let third = claim_one(&store).await;
    assert_eq!((third.lost, third.attempts, third.charged_attempts), (true, 1, 1));
    assert_eq!(settle(&store, retry(&third, SECOND)).await, Settled::Applied);
    clock.advance(SECOND);
    let fourth = claim_one(&store).await;
    assert!(!fourth.lost, "an attempt was made since");
    clock.advance(LEASE + SECOND);
    let fifth = claim_one(&store).await;
    let given_up =
        crate::store::Settlement { attempt: None, charged_attempts: fifth.charged_attempts, ..super::dead(&fifth) };
    assert_eq!(settle(&store, given_up).await, Settled::Applied);
    assert_eq!(store.resend(id).await.expect("resending works"), crate::UpdateOutcome::Updated);
    assert!(!claim_one(&store).await.lost, "a resend clears the lost attempt");
}

/// A delivery that was tried before is claimed with its last attempt. Others are claimed without one.
pub async fn a_claim_returns_the_last_attempt<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let fresh = insert_one(&store, NewRow { due: Some(When::After(SECOND * 10)), ..row() }).await;
    let tried = insert_one(&store, row()).await;
    let verdicts = [(Some(Scope::Sender), false), (Some(Scope::Transport), true), (Some(Scope::Message), false)];
    for (n, (scope, sure)) in (0..).zip(verdicts) {
        let lease = claim_one(&store).await;
        assert_eq!((lease.attempts, lease.last.is_some()), (n, n > 0));
        let mut settlement = retry(&lease, SECOND);
        let attempt = settlement.attempt.as_mut().expect("it was called");
        (attempt.scope, attempt.sure) = (scope, sure);
        let (finished_at, outcome, cycle, error) =
            (attempt.finished_at, attempt.outcome, attempt.cycle, attempt.error.clone());
        assert_eq!(settle(&store, settlement).await, Settled::Applied);
        clock.advance(SECOND);
        let again = claim_one(&store).await;
        let last = again.last.clone().expect("it was tried");
        assert_eq!((last.finished_at, last.outcome, last.cycle), (finished_at, outcome, cycle));
        assert_eq!((last.scope, last.sure, last.error), (scope, sure, error));
        let back = crate::store::Settlement {
            attempt: None,
            charged_attempts: again.charged_attempts,
            ..retry(&again, SECOND)
        };
        assert_eq!(settle(&store, back).await, Settled::Applied);
        clock.advance(SECOND);
    }
    clock.advance(SECOND * 10);
    let both = claim(&store, 2).await;
    let last = |id| both.iter().find(|lease| lease.key.id == id).expect("it is claimed").last.clone();
    assert_eq!((both.len(), last(fresh)), (2, None));
    assert_eq!(last(tried).map(|last| last.scope), Some(Some(Scope::Message)));
    clock.advance(LEASE + SECOND);
    let taken_over = claim(&store, 2).await;
    for lease in taken_over {
        let last = lease.last.expect("it was lost");
        assert_eq!((last.outcome, last.scope, last.sure, last.finished_at), (Outcome::Lost, None, true, clock.now()));
    }
}

/// A renewal keeps other relays away for a whole lease from then on. Invariant 2.
pub async fn a_renewed_lease_is_not_taken_over<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    for _ in 0..3 {
        clock.advance(LEASE - SECOND);
        assert_eq!(store.renew(&[lease.key], LEASE).await.expect("renewing works"), [Settled::Applied]);
        assert!(claim(&store, 1).await.is_empty());
    }
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
}

/// An expired lease is not lost before the next claim: the result of its holder still counts.
pub async fn an_expired_lease_may_settle_before_the_next_claim<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    clock.advance(LEASE * 5);
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    let shown = get(&store, id).await;
    assert_eq!((shown.state, shown.attempts.len()), (State::Sent, 1));
}

/// A relay may settle an expired and a valid lease of a delivery in one batch: only the valid settlement is written. Invariant 2.
pub async fn a_stale_settlement_does_not_affect_a_valid_one<F: StoreUnderTest>(fixture: &F) {
    for retried in [false, true] {
        let clock = TestClock::new();
        let store = fixture.fresh(clock.clone()).await;
        let id = insert_one(&store, row()).await;
        let stale = claim_one(&store).await;
        clock.advance(LEASE * 2);
        let valid = claim_one(&store).await;
        let settlement = |lease: &crate::store::Lease| if retried { retry(lease, SECOND) } else { sent(lease) };
        let results = store.settle(&[settlement(&stale), settlement(&valid)]).await.expect("settling works");
        assert_eq!(results, [Settled::LeaseLost, Settled::Applied]);
        let delivery = get(&store, id).await;
        assert_eq!(delivery.state, if retried { crate::State::Pending } else { crate::State::Sent });
        let numbers: Vec<_> = delivery.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, [1, 2], "the lost attempt and the valid one");
    }
}

/// Of two settlements of one lease in a batch, exactly one is written. Invariant 3.
pub async fn a_lease_is_settled_once_in_a_batch<F: StoreUnderTest>(fixture: &F) {
    let both = |lease: &crate::store::Lease| [(sent(lease), retry(lease, SECOND)), (retry(lease, SECOND), sent(lease))];
    let twice =
        |lease: &crate::store::Lease| [(sent(lease), sent(lease)), (retry(lease, SECOND), retry(lease, SECOND))];
    for case in 0..4 {
        let store = fixture.fresh(TestClock::new()).await;
        let ids = store.insert(vec![row(), row()]).await.expect("inserting works");
        let leases = claim(&store, 2).await;
        let (first, second) = [both(&leases[0]), twice(&leases[0])].concat().remove(case);
        let mut results = store.settle(&[first, sent(&leases[1]), second]).await.expect("settling works");
        assert_eq!(results.remove(1), Settled::Applied, "the other one in the batch");
        results.sort_by_key(|settled| *settled == Settled::LeaseLost);
        assert_eq!(results, [Settled::Applied, Settled::LeaseLost]);
        for id in ids {
            assert_eq!(get(&store, id).await.attempts.len(), 1, "one attempt was made");
        }
    }
}
