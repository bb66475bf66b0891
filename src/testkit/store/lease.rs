//! Claiming, renewing, losing.

use std::collections::HashSet;
use std::time::Duration;

use postrider_transport::{Encoded, Scope};

use super::{LEASE, SECOND, StoreUnderTest, claim, claim_one, get, insert_one, retry, row, sent, settle};
use crate::state::{Outcome, Priority};
use crate::store::{Claim, LeaseKey, NewRow, Settled, TestClock, When};
use crate::{AdminStore, State, Store};

/// The most urgent first; among equals, what has been due longest.
pub async fn claims_go_by_priority_and_then_by_age<F: StoreUnderTest>(fixture: &F) {
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

/// The limit holds, over priorities as well, and what one claim took the next does not.
pub async fn a_claim_takes_no_more_than_it_asks_for<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let urgent = || NewRow { priority: Priority::URGENT, ..row() };
    let rows = vec![row(), urgent(), row(), urgent(), row()];
    store.insert(rows).await.expect("inserting works");
    let sizes = [claim(&store, 0).await.len(), claim(&store, 3).await.len(), claim(&store, 3).await.len()];
    assert_eq!(sizes, [0, 3, 2]);
    assert!(claim(&store, 3).await.is_empty());
}

/// The mails of a claim stay within its octets, in the order of their urgency, and one comes in any case. What does not fit is due, and
/// was not touched.
pub async fn a_claim_keeps_its_byte_budget<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    // The last character takes three octets.
    let sized = |octets: usize, priority: u8| NewRow {
        message: Encoded { format: "test/1".to_owned(), body: format!("{}…", "x".repeat(octets - 3)) },
        priority: Priority::new(priority).expect("a priority"),
        ..row()
    };
    let rows = vec![sized(100, 9), sized(100, 8), sized(100_000, 7), sized(10, 6), sized(10, 5)];
    let ids = store.insert(rows).await.expect("inserting works");
    let take = async |limit: usize, octets: u64| -> Vec<_> {
        let leases = store.claim(Claim::new(limit, LEASE).max_bytes(octets)).await.expect("claiming works");
        assert!(leases.iter().all(|lease| (lease.attempts, lease.lost) == (0, false)), "it was leased before");
        leases.into_iter().map(|lease| lease.key.id).collect()
    };
    assert_eq!(take(5, 199).await, ids[..1], "199 octets are too few for 200");
    assert_eq!(store.stats().await.expect("counting works").leased, 1);
    assert_eq!(take(5, 1_000).await, ids[1..2], "what is less urgent does not pass by what does not fit");
    assert_eq!(take(5, 0).await, ids[2..3], "one comes in any case");
    assert_eq!(take(5, 20).await, ids[3..]);
    assert!(take(5, 20).await.is_empty());
}

/// What a claim has leased whose answer never came is due again at once, and nobody is charged: no attempt was made. Other claims keep
/// what they have.
pub async fn a_claim_whose_answer_was_lost_is_taken_back<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    store.insert(vec![row(), row(), row()]).await.expect("inserting works");
    let (lost, kept) = (Claim::new(2, LEASE), Claim::new(1, LEASE));
    let unheard = store.claim(lost).await.expect("claiming works");
    let held = store.claim(kept).await.expect("claiming works");
    let never = Claim::new(1, LEASE);
    assert_eq!(store.take_back(&[]).await.expect("taking back works"), 0);
    assert_eq!(store.take_back(&[never.id, lost.id]).await.expect("taking back works"), 2);
    assert_eq!(store.take_back(&[lost.id]).await.expect("taking back works"), 0, "there is nothing left");
    assert_eq!(settle(&store, sent(&unheard[0])).await, Settled::LeaseLost, "it was held by nobody");
    assert_eq!(settle(&store, sent(&held[0])).await, Settled::Applied);

    let again = claim(&store, 3).await;
    let ids = |leases: &[crate::store::Lease]| leases.iter().map(|lease| lease.key.id).collect::<HashSet<_>>();
    assert_eq!(ids(&again), ids(&unheard));
    for lease in &again {
        assert_eq!((lease.attempts, lease.charged_attempts, lease.lost, &lease.last), (0, 0, false, &None));
        assert!(unheard.iter().all(|old| old.key.id != lease.key.id || old.key.token < lease.key.token));
        assert_eq!(settle(&store, retry(lease, SECOND)).await, Settled::Applied);
    }
    assert_eq!(store.take_back(&[lost.id, kept.id]).await.expect("taking back works"), 0, "they are settled");
    assert_eq!(store.stats().await.expect("counting works").pending, 2);
}

/// A claim by the time at which a pass began leaves alone what the pass has put off, however soon that is due again.
pub async fn a_pass_does_not_meet_what_it_put_off<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    insert_one(&store, row()).await;
    let horizon = store.now().await.expect("the clock works");
    let pass = Claim::new(10, LEASE).due_by(horizon);
    let leases = store.claim(pass).await.expect("claiming works");
    assert_eq!(settle(&store, retry(&leases[0], Duration::ZERO)).await, Settled::Applied);
    clock.advance(SECOND);
    assert!(store.claim(pass).await.expect("claiming works").is_empty(), "it was met again in the same pass");
    assert_eq!(claim(&store, 10).await.len(), 1);
}

/// A store may take up a backlog where the last claim left off. What falls due again before that place, and what comes there late, is
/// found all the same, before the store says that nothing is due.
pub async fn a_backlog_hides_nothing<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let start = clock.now();
    // So many that the backlog ends with a full claim.
    for _ in 0..5 {
        store.insert((0..21).map(|_| row()).collect()).await.expect("inserting works");
        clock.advance(SECOND);
    }
    let abandoned = claim(&store, 3).await;
    let mut met = HashSet::new();
    for _ in 0..20 {
        let leases = claim(&store, 3).await;
        met.extend(leases.iter().map(|lease| lease.key.id));
        store.settle(&leases.iter().map(sent).collect::<Vec<_>>()).await.expect("settling works");
    }
    clock.advance(LEASE + SECOND);
    let late = insert_one(&store, NewRow { due: Some(When::At(start)), ..row() }).await;
    loop {
        let leases = claim(&store, 3).await;
        if leases.is_empty() {
            break;
        }
        met.extend(leases.iter().map(|lease| lease.key.id));
        store.settle(&leases.iter().map(sent).collect::<Vec<_>>()).await.expect("settling works");
    }
    assert!(met.contains(&late) && abandoned.iter().all(|lease| met.contains(&lease.key.id)));
    assert_eq!(met.len(), 106);
}

/// However many claim at once, a delivery has one holder.
pub async fn many_claimers_never_share_a_delivery<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let ids = store.insert((0..200).map(|_| row()).collect()).await.expect("inserting works");
    let claimers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                let mut empty = 0;
                // A claimer may come away empty-handed while others hold the rows it looked at.
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

/// Settling and renewing with any but the present token change nothing and say so; so does settling twice.
pub async fn only_the_present_token_settles<F: StoreUnderTest>(fixture: &F) {
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

/// Who takes over from a vanished holder finds its attempt recorded as lost and charged, and the old holder is shut out.
pub async fn a_vanished_holder_leaves_a_lost_attempt<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let claimed_at = clock.now();
    let vanished = claim_one(&store).await;
    clock.advance(LEASE - SECOND);
    assert!(claim(&store, 1).await.is_empty(), "the lease was not respected");
    clock.advance(SECOND * 2);
    let heir = claim_one(&store).await;
    assert!(heir.lost);
    assert_eq!((heir.attempts, heir.charged_attempts), (1, 1));
    let history = get(&store, id).await.attempts;
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].number, history[0].outcome), (1, Outcome::Lost));
    assert_eq!(history[0].transport, None, "who was called is not known");
    assert_eq!((history[0].started_at, history[0].finished_at), (claimed_at, clock.now()));
    assert_eq!(settle(&store, sent(&vanished)).await, Settled::LeaseLost);
    assert_eq!(settle(&store, sent(&heir)).await, Settled::Applied);
    let numbers: Vec<_> = get(&store, id).await.attempts.iter().map(|a| (a.number, a.outcome)).collect();
    assert_eq!(numbers, [(1, Outcome::Lost), (2, Outcome::Sent)]);
}

/// That the last attempt was lost is told until another one was made, also where the claim that noticed it gave the delivery back, and
/// not beyond a resend.
pub async fn a_lost_attempt_is_told_until_something_is_sent<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    claim_one(&store).await;
    clock.advance(LEASE + SECOND);
    let taking = Claim::new(1, LEASE);
    let heir = store.claim(taking).await.expect("claiming works").remove(0);
    assert!(heir.lost);
    let back =
        crate::store::Settlement { attempt: None, charged_attempts: heir.charged_attempts, ..retry(&heir, SECOND) };
    assert_eq!(settle(&store, back).await, Settled::Applied);
    clock.advance(SECOND);
    let unheard = Claim::new(1, LEASE);
    assert!(store.claim(unheard).await.expect("claiming works")[0].lost, "giving it back has not sent it");
    assert_eq!(store.take_back(&[unheard.id]).await.expect("taking back works"), 1);
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
    assert!(!claim_one(&store).await.lost, "the operator knows, and has decided");
}

/// A delivery that was tried before comes with what its last attempt came to; others come without.
pub async fn a_claim_tells_of_the_last_attempt<F: StoreUnderTest>(fixture: &F) {
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

/// Renewing keeps others away for a whole lease from then.
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

/// A lease that ran out is not lost before somebody takes it: the holder's result still counts.
pub async fn a_slow_holder_may_settle_while_nobody_took_over<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    clock.advance(LEASE * 5);
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    let shown = get(&store, id).await;
    assert_eq!((shown.state, shown.attempts.len()), (State::Sent, 1));
}

/// A relay that lost a delivery and took it over again may bring both results at once: the valid one is written.
pub async fn a_stale_settlement_spoils_no_valid_one<F: StoreUnderTest>(fixture: &F) {
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

/// Of two settlements of one lease in one batch, one is written: once.
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
