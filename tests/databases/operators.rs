//! Operators, relays and transactions of the application that change the same deliveries at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::store::{Claim, Lease, Next, RecipientOutcome, Settled, Settlement};
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Receipt, Recipient};
use postrider::{
    Action, AuditFilter, Change, DeliveryId, Email, Failure, Filter, NewDelivery, Outbox, Outcome, RecipientState,
    Scope, State, Store, StoreErrorKind, UpdateOutcome,
};
use tokio_util::sync::CancellationToken;

use crate::support::database::{Database, Harness};
use crate::support::fixture::{ada, row_for, settlement};
use crate::support::wait::until;

const MAILS: usize = 400;

/// The first call for each mail is refused, which makes it a dead letter; all later calls are accepted. Two operators resend all dead
/// letters again and again, while four relays send and the application enqueues. Transactions of the application cancel mail by its key,
/// and every third one rolls back. Invariants 1 to 5.
pub(crate) async fn operators_beside_relays_and_callers_lose_and_repeat_nothing<D: Database>(database: D) {
    let harness = Arc::new(Harness::new(database).await);
    let calls = Arc::new(Mutex::new(HashMap::<DeliveryId, usize>::new()));
    let counted = Arc::clone(&calls);
    let transport = ScriptedTransport::<Email>::new().with_handler(move |mail| {
        let mut calls = counted.lock().unwrap();
        let count = calls.entry(mail.id).or_default();
        *count += 1;
        let answer = if *count > 1 { Ok(Receipt::new()) } else { Err(Failure::permanent(Scope::Message, "no")) };
        std::future::ready(answer)
    });
    let (relays_stop, operators_stop) = (CancellationToken::new(), CancellationToken::new());
    let mut relays = Vec::new();
    for _ in 0..4 {
        let store = harness.database.store(harness.database.pool(3).await);
        let relay = Outbox::new(store, transport.clone()).relay().concurrency(10).poll(Duration::from_millis(10));
        relays.push(tokio::spawn(relay.run(relays_stop.clone().cancelled_owned())));
    }
    let mut operators = Vec::new();
    for name in ["ada", "eve"] {
        let (outbox, stop) = (harness.other_outbox(1).await, operators_stop.clone());
        operators.push(tokio::spawn(async move {
            let (operator, mut resent) = (outbox.operator(name), 0);
            loop {
                // Once more after the end, for the last dead letters.
                let last = stop.is_cancelled();
                let dead = Filter::new().state(State::Dead);
                resent +=
                    operator.change_all(Change::Resend, &dead).await.expect("a bulk change waits and succeeds").updated;
                if last {
                    return resent;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }

    let writer = tokio::spawn({
        let outbox = harness.other_outbox(1).await;
        async move {
            for n in 0..MAILS / 10 {
                let mails = (0..10).map(|m| NewDelivery::new(ada()).key(format!("key-{}", n * 10 + m)));
                outbox.enqueue_all(mails).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let canceller = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move {
            let mut cancelled = 0;
            // The newest keys are not there yet, and the first ones may be sent.
            for n in 0..MAILS {
                let mut tx = harness.begin().await;
                let outcome = harness.outbox.cancel_key_in(&mut tx, &format!("key-{}", n * 7 % MAILS)).await;
                match outcome {
                    Ok(outcome) if n % 3 != 0 => {
                        tx.commit().await.unwrap();
                        cancelled += u64::from(outcome == UpdateOutcome::Updated);
                    }
                    Ok(_) => tx.rollback().await.unwrap(),
                    Err(error) => {
                        assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
                        tx.rollback().await.unwrap();
                    }
                }
            }
            cancelled
        }
    });
    writer.await.unwrap();
    let cancelled = canceller.await.unwrap();
    until("all is sent or cancelled", || async {
        let stats = harness.outbox.stats().await.unwrap();
        stats.sent + stats.cancelled >= MAILS as u64
    })
    .await;
    operators_stop.cancel();
    let mut resent = 0;
    for operator in operators {
        resent += operator.await.unwrap();
    }
    relays_stop.cancel();
    for relay in relays {
        relay.await.unwrap().unwrap();
    }

    let stats = harness.outbox.stats().await.unwrap();
    assert_eq!((stats.sent + stats.cancelled, stats.cancelled), (MAILS as u64, cancelled));
    assert_eq!((stats.pending, stats.leased, stats.dead, stats.in_doubt), (0, 0, 0, 0));
    let audit = harness.outbox.audit(&AuditFilter::new().limit(10_000)).await.unwrap();
    let resends: Vec<_> =
        audit.iter().filter(|entry| entry.action == Action::Resend).filter_map(|entry| entry.delivery).collect();
    let resent_once: HashSet<_> = resends.iter().copied().collect();
    assert_eq!((resends.len() as u64, resent_once.len()), (resent, resends.len()), "a dead letter was resent twice");
    let calls = calls.lock().unwrap().clone();
    for found in harness.outbox.list(&Filter::new().limit(u32::MAX)).await.unwrap() {
        let delivery = harness.outbox.get(found.id).await.unwrap().unwrap();
        let count = calls.get(&found.id).copied().unwrap_or(0);
        let was_resent = resent_once.contains(&found.id);
        assert_eq!(delivery.attempts.len(), count, "{delivery:?}");
        assert_eq!(delivery.cycle, 1 + u32::from(was_resent), "{delivery:?}");
        match delivery.state {
            State::Sent => assert_eq!((count, was_resent), (2, true), "{delivery:?}"),
            // It was pending: before its first call, or after it was resent.
            _ => assert_eq!((delivery.state, count), (State::Cancelled, usize::from(was_resent)), "{delivery:?}"),
        }
    }
}

/// A next hop may answer each of many recipients with a long reply. Their outcomes are more than a statement may hold in MariaDB by default
/// (16 MiB), and still are written in one batch, and kept by a bulk resend.
pub(crate) async fn long_replies_are_written_and_survive_a_bulk_resend<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let to: Vec<Recipient> = (0..30).map(|n| Recipient::new(format!("{n}@example.com"))).collect();
    let rows = (0..10).map(|_| row_for(to.clone())).collect();
    harness.store().insert(rows).await.unwrap();
    let claim = || harness.store().claim(Claim::new(10, Duration::from_secs(60)));
    let reply = "long ".repeat(13_000);
    let (refused, others) = to.split_first().unwrap();
    let settle = |lease: &Lease| {
        let sent = |to: &Recipient| RecipientOutcome::new(to.clone(), RecipientState::Sent, Some(reply.clone()));
        let outcomes = others.iter().map(sent).collect();
        settlement(lease, Outcome::Permanent, Next::Dead { reason: "permanent: no".into() }).with_recipients(outcomes)
    };
    let settlements: Vec<Settlement> = claim().await.unwrap().iter().map(settle).collect();
    assert_eq!(harness.store().settle(&settlements).await.unwrap(), [Settled::Applied; 10]);
    let dead = Filter::new().state(State::Dead);
    let done = harness.outbox.operator("ada").change_all(Change::Resend, &dead).await.unwrap();
    assert_eq!((done.updated, done.unchanged), (10, 0));
    let leases = claim().await.unwrap();
    assert_eq!(leases.len(), 10);
    for lease in leases {
        assert_eq!(lease.recipients, std::slice::from_ref(refused));
        let kept = harness.outbox.get(lease.key.id).await.unwrap().unwrap().recipients;
        assert!(kept.iter().skip(1).all(|status| status.reply.as_ref() == Some(&reply)));
    }
}

/// An older program skips acts that only a newer release knows. They take no place on a page, so that a short page is always the last one.
pub(crate) async fn acts_of_a_newer_release_take_no_place_on_a_page<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    for _ in 0..5 {
        harness.outbox.operator("ada").probe().await.unwrap();
    }
    let page = |limit| {
        let filter = AuditFilter::new().limit(limit);
        let outbox = &harness.outbox;
        async move { outbox.audit(&filter).await.map(|page| page.iter().map(|entry| entry.number).collect::<Vec<_>>()) }
    };
    let all = page(10).await.unwrap();
    harness.run(&format!("UPDATE {{t}}audit SET action = 'snooze' WHERE number IN ({}, {})", all[0], all[2])).await;
    assert_eq!(page(2).await.unwrap(), [all[1], all[3]]);
    assert_eq!(page(10).await.unwrap(), [all[1], all[3], all[4]]);
}
