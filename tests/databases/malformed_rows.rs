//! Rows in the outbox's tables that another program wrote, changed or deleted. None stops other deliveries, and each can be read.

use std::time::Duration;

use postrider::store::Claim;
use postrider::transport::Blob;
use postrider::{AdminStore, Filter, Outcome, RunSummary, State, Store};

use crate::support::database::{Database, Harness};
use crate::support::fixture::{SECOND, ada, row};

async fn drain<D: Database>(harness: &Harness<D>) -> RunSummary {
    harness.outbox.relay().drain().await.unwrap()
}

async fn enqueue_mails<D: Database>(harness: &Harness<D>, mails: usize) -> Vec<postrider::DeliveryId> {
    harness.outbox.enqueue_all((0..mails).map(|_| ada())).await.unwrap()
}

/// A claim returns the malformed row with the others, and marks it. The dead letter has the reason. Invariants 4, 5.
pub(crate) async fn a_malformed_mail_becomes_a_dead_letter<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let malformed = enqueue_mails(&harness, 2).await;
    for (id, recipients) in malformed.iter().zip([r#"[{"a": 1}]"#, "[7]"]) {
        let id = D::id(*id);
        harness.run(&format!("UPDATE {{t}}deliveries SET recipients = '{recipients}' WHERE id = {id}")).await;
    }
    let good = harness.outbox.enqueue(ada()).await.unwrap();
    let claim = Claim::new(10, SECOND * 60);
    let leases = harness.store().claim(claim).await.unwrap();
    let readable: Vec<_> = leases.iter().filter(|lease| lease.malformed.is_none()).map(|lease| lease.key.id).collect();
    assert_eq!((leases.len(), readable), (3, vec![good]));
    assert_eq!(harness.store().release_claims(&[claim.id]).await.unwrap(), 3);
    let summary = drain(&harness).await;
    assert_eq!((summary.sent, summary.dead), (1, 2));
    assert_eq!(harness.outbox.get(good).await.unwrap().unwrap().state, State::Sent);
    let dead = harness.outbox.list(&Filter::new().state(State::Dead)).await.unwrap();
    assert_eq!(dead.iter().map(|summary| summary.id).collect::<Vec<_>>(), malformed);
    for summary in dead {
        assert_eq!(summary.attempts, 1);
        assert!(summary.last_error.unwrap().contains("the stored row cannot be read"));
    }
}

/// Each column gets extreme numbers, extreme times or unknown values. Invariants 4, 5.
pub(crate) async fn malformed_values_stop_no_other_delivery<D: Database>(database: D) {
    let harness = &Harness::new(database).await;
    let (store, outbox) = (harness.store(), &harness.outbox);
    let ([first, last], last_count) = (D::TIMES, D::LAST_COUNT);
    for statement in harness.database.drop_checks() {
        harness.run(statement).await;
    }

    let mut values: Vec<(&str, String)> = [
        ("due_at", first),
        ("cycle_started_at", first),
        ("cycle_started_at", last),
        ("expires_at", first),
        ("expires_at", last),
    ]
    .map(|(column, value)| (column, value.to_owned()))
    .into();
    for column in ["attempts", "cycle", "charged_attempts"] {
        values.extend([(column, "-1".to_owned()), (column, last_count.to_string())]);
    }
    values.extend([i64::MAX, i64::MAX - 1, i64::MIN + 1].map(|token| ("token", token.to_string())));
    let pending = enqueue_mails(harness, values.len()).await;
    for ((column, value), id) in values.iter().zip(&pending) {
        let id = D::id(*id);
        harness.run_unchecked(&format!("UPDATE {{t}}queue SET {column} = {value} WHERE delivery_id = {id}")).await;
    }
    let good = outbox.enqueue(ada()).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert!(store.stats().await.unwrap().oldest_due.is_some());
    for id in &pending {
        assert!(outbox.get(*id).await.unwrap().is_some());
    }
    let summary = drain(harness).await;
    assert_eq!(summary.sent + summary.dead, 1 + u64::try_from(pending.len()).unwrap(), "{summary:?}");
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.pending, stats.leased), (0, 0));

    // Leased rows whose lease has expired.
    let leased = enqueue_mails(harness, 4).await;
    assert_eq!(store.claim(Claim::new(10, Duration::ZERO)).await.unwrap().len(), 4);
    let last_values = ["attempts", "charged_attempts", "cycle"].map(|column| (column, last_count));
    for ((column, value), id) in last_values.into_iter().chain([("token", i64::MAX)]).zip(&leased) {
        let id = D::id(*id);
        harness.run_unchecked(&format!("UPDATE {{t}}queue SET {column} = {value} WHERE delivery_id = {id}")).await;
    }
    let summary = drain(harness).await;
    assert_eq!(summary.sent + summary.dead, 4, "{summary:?}");

    history_with_malformed_values(harness, good).await;
    for id in pending.iter().chain(&leased) {
        assert!(outbox.get(*id).await.unwrap().is_some());
    }
    assert_eq!(store.list(&Filter::new()).await.unwrap().len(), pending.len() + 5);
    assert_eq!(store.stats().await.unwrap().relays.len(), 2);
    attempts_of_another_program(harness).await;
}

/// Writes malformed values into columns of the history. `sent` is a delivery with one attempt.
async fn history_with_malformed_values<D: Database>(harness: &Harness<D>, sent: postrider::DeliveryId) {
    let [first, last] = D::TIMES;
    for (table, column, value) in [
        ("attempts", "outcome", "'odd'"),
        ("attempts", "scope", "'odd'"),
        ("attempts", "started_at", first),
        ("attempts", "finished_at", last),
        ("attempts", "cycle", "-1"),
        ("ended", "state", "'odd'"),
        ("ended", "cycle", "-1"),
    ] {
        harness.run_unchecked(&format!("UPDATE {{t}}{table} SET {column} = {value}")).await;
    }
    let recipient = format!(
        "INSERT INTO {{t}}recipients (delivery_id, address, outcome) VALUES ({}, 'ada@example.com', 'odd')",
        D::id(sent)
    );
    harness.run_unchecked(&recipient).await;
    let relays =
        format!("INSERT INTO {{t}}relays (id, seen_at, in_flight) VALUES ('a', {first}, -1), ('b', {last}, 1)");
    harness.run_unchecked(&relays).await;
    let delivery = harness.outbox.get(sent).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts[0].outcome), (State::Sent, Outcome::Lost));
    assert!(delivery.attempts[0].note.as_deref().is_some_and(|note| note.contains("cannot be read")), "{delivery:?}");
}

/// Another program has written an attempt and an end with the numbers that the relay writes next.
async fn attempts_of_another_program<D: Database>(harness: &Harness<D>) {
    let [first, last] = D::TIMES;
    let ids = enqueue_mails(harness, 2).await;
    for id in &ids {
        let id = D::id(*id);
        harness
            .run_unchecked(&format!(
                "INSERT INTO {{t}}attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
                 VALUES ({id}, 1, 1, 1, {first}, {last}, 'lost')"
            ))
            .await;
        harness
            .run_unchecked(&format!(
                "INSERT INTO {{t}}ended (delivery_id, state, ended_at, token, attempts, cycle) VALUES ({id}, 'dead', {last}, 1, 1, 1)"
            ))
            .await;
    }
    let summary = drain(harness).await;
    assert_eq!((summary.sent, summary.dead), (2, 0), "{summary:?}");
    assert_eq!(harness.outbox.get(ids[0]).await.unwrap().unwrap().attempts[0].outcome, Outcome::Sent);
}

/// Rows of the queue without a mail do not stop due deliveries. Invariant 4.
pub(crate) async fn queue_rows_without_a_mail_are_removed<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let delete = async |id| {
        let mut connection = harness.pool.acquire().await.unwrap();
        for statement in harness.database.delete_mail_only(&harness.pool, id).await {
            D::execute(&mut *connection, harness.sql(&statement)).await.unwrap();
        }
    };
    let ids = enqueue_mails(&harness, 6).await;
    for id in &ids[..5] {
        delete(*id).await;
    }
    // The first claim of two finds rows without a mail only.
    let leases = harness.store().claim(Claim::new(2, SECOND * 60)).await.unwrap();
    assert!(leases.iter().all(|lease| lease.key.id == ids[5]));
    let summary = drain(&harness).await;
    assert_eq!(u64::try_from(leases.len()).unwrap() + summary.sent, 1);
    let queued = harness.number("SELECT COUNT(*) FROM {t}queue").await;
    assert_eq!(queued, i64::try_from(leases.len()).unwrap());
    delete(ids[5]).await;
    drain(&harness).await;
    // A blob that nothing else carries is deleted too.
    let mut with_blob = row();
    with_blob.message.blobs = vec![Blob::new(vec![7; 50_000])];
    let id = harness.store().insert(vec![with_blob]).await.unwrap()[0];
    delete(id).await;
    drain(&harness).await;
    assert_eq!(harness.store().sweep_blobs(10).await.unwrap(), 1, "the blob is kept for ever");
}

/// Another program may write any number for a time. Invariant 4.
pub(crate) async fn a_delivery_due_long_ago_is_counted_and_sent<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let id = harness.outbox.enqueue(ada()).await.unwrap();
    let copy = format!(
        "INSERT INTO {{new}} (format, body, text, recipients, send_at)
         SELECT format, body, text, recipients, {} FROM {{new}}",
        D::LONG_AGO
    );
    harness.run(&copy).await;
    let stats = harness.outbox.stats().await.unwrap();
    assert_eq!(stats.pending, 2);
    assert!(stats.oldest_due.unwrap() > SECOND * 60 * 60 * 24 * 365 * 1_000);
    assert_eq!(drain(&harness).await.sent, 2);
    assert_eq!(harness.outbox.get(id).await.unwrap().unwrap().state, State::Sent);
}

/// The rows of the queue and of the history are deleted.
pub(crate) async fn a_deleted_mail_takes_its_rows_along<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    enqueue_mails(&harness, 2).await;
    assert_eq!(drain(&harness).await.sent, 2);
    enqueue_mails(&harness, 3).await;
    harness.run("DELETE FROM {t}deliveries").await;
    assert_eq!(harness.store().next_due().await.unwrap(), None);
    let stats = harness.outbox.stats().await.unwrap();
    assert_eq!((stats.pending, stats.sent), (0, 0));
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}attempts").await, 0);
}
