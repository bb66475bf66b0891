//! Rows that the library or another program inserts.

use std::collections::HashSet;

use postrider::store::{Claim, NewRow};
use postrider::transport::Recipient;
use postrider::{AdminStore, DeliveryId, State, Store, StoreErrorKind};

use crate::support::database::{Database, Harness};
use crate::support::fixture::{SECOND, row, row_for};

/// A plain insert enqueues a mail. The insert trigger refuses recipients that are not a list of addresses.
pub(crate) async fn another_program_enqueues_with_one_statement<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let (id, long_ago) = (DeliveryId::new(), D::LONG_AGO);
    let mail = r#"{"from": "Shop <shop@example.com>", "to": ["ada@example.com"], "subject": "Hi", "text": "Hello"}"#;
    let insert = format!(
        r#"INSERT INTO {{new}} (id, format, body, recipients, template_id, send_at)
           VALUES ({}, 'email/1', '{mail}', '["ada@example.com"]', 'welcome', {long_ago})"#,
        D::id(id)
    );
    harness.run(&insert).await;
    assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 1);
    let delivery = harness.outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.template_id.as_deref()), (State::Sent, Some("welcome")));
    assert!(delivery.attempts[0].started_at >= delivery.created_at, "two clocks differ");
    for recipients in ["[]", "{}", r#"{"a": 1}"#, "7", "[", "x", r#""ada@example.com""#] {
        let insert = format!(
            "INSERT INTO {{new}} (id, format, body, recipients) VALUES ({}, 'email/1', '{{}}', '{recipients}')",
            D::id(DeliveryId::new())
        );
        assert!(harness.try_run(&insert).await.is_err(), "a delivery for {recipients} was accepted");
    }
}

/// More rows than one statement takes, some too large for one statement together, with and without keys.
pub(crate) async fn many_rows_are_inserted_in_batches_and_in_order<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let store = harness.store();
    let rows: Vec<NewRow> = (0..300)
        .map(|n| {
            let mut row = row();
            row.key = (n % 3 == 0).then(|| format!("key-{}", n % 100));
            row.message.body = if n % 40 == 0 { "x".repeat(1 << 20) } else { n.to_string() };
            row
        })
        .collect();
    let ids = store.insert(rows.clone()).await.unwrap();
    assert_eq!(ids.len(), 300);
    for (n, (row, id)) in rows.iter().zip(&ids).enumerate() {
        match rows[..n].iter().position(|earlier| row.key.is_some() && earlier.key == row.key) {
            None => assert_eq!(*id, row.id),
            Some(first) => assert_eq!(*id, ids[first]),
        }
    }
    let distinct: HashSet<_> = ids.iter().collect();
    let leases = store.claim(Claim::new(1_000, SECOND * 60)).await.unwrap();
    assert_eq!(leases.len(), distinct.len());
    for lease in leases {
        assert!(rows.iter().any(|row| row.id == lease.key.id && row.message == lease.message));
    }
}

/// The refused row has a duplicate id, an address that is too long, or no recipient. The error shows no address. Invariants 1, 10.
pub(crate) async fn one_row_that_is_refused_refuses_all<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let store = harness.store();
    let mut twice: Vec<NewRow> = (0..200).map(|_| row()).collect();
    twice[199].id = twice[0].id;
    let long = Recipient::new(format!("{}@example.com", "a".repeat(800)));
    for rows in [twice, vec![row(), row_for(vec![long])], vec![row(), row_for(Vec::new())]] {
        let error = store.insert(rows).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Rejected, "{error}");
        assert!(!error.to_string().contains("aaaa"), "an address is in the error");
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.pending, stats.sent), (0, 0));
}
