//! The trace context that another program stores with a mail.

use postrider::transport::TraceParent;
use postrider::{DeliveryId, NewDelivery, Prune, State};

use crate::support::database::{Database, Harness};
use crate::support::fixture::{SECOND, ada};

const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331";

/// W3C Trace Context, section "Versioning of traceparent": an invalid value is ignored. Invariants 4, 5.
pub(crate) async fn an_invalid_traceparent_counts_as_none_and_stops_no_mail<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let unsampled = Some(format!("00-{IDS}-00"));
    let sampled = Some(format!("00-{IDS}-01"));
    let cases = [
        (format!("'00-{IDS}-00'"), unsampled),
        (format!("'01-{IDS}-01-{}'", "later".repeat(200)), sampled),
        ("NULL".to_owned(), None),
        ("''".to_owned(), None),
        (format!("'00-{IDS}-01x'"), None),
        (format!("'00-{}-01'", IDS.to_uppercase()), None),
        (format!("'00-{}é-01'", &IDS[..47]), None),
        (format!("'{}'", "00-0".repeat(50_000)), None),
    ];
    let mut ids = Vec::new();
    for (value, _) in &cases {
        ids.push(DeliveryId::new());
        let insert = format!(
            r#"INSERT INTO {{new}} (id, format, body, recipients, traceparent)
               VALUES ({}, 'email/1', '{{"from": "shop@example.com", "to": ["ada@example.com"], "text": "Hello"}}',
                       '["ada@example.com"]', {value})"#,
            D::id(ids[ids.len() - 1])
        );
        harness.run(&insert).await;
    }
    assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, cases.len() as u64);
    let calls = harness.outbox.transport().calls();
    for ((value, expected), id) in cases.iter().zip(&ids) {
        let delivery = harness.outbox.get(*id).await.unwrap().unwrap();
        let parent = delivery.traceparent.map(|parent| parent.to_string());
        assert_eq!((delivery.state, delivery.malformed, &parent), (State::Sent, None, expected), "{value:.60}");
        let call = calls.iter().find(|call| call.id == *id).expect("it was sent");
        assert_eq!(call.traceparent, delivery.traceparent, "{value:.60}");
    }
}

/// The library stores what other programs can read, and deletes it with the rest of a delivery whose key is kept.
pub(crate) async fn a_traceparent_is_stored_as_its_header_and_goes_with_its_delivery<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let parent: TraceParent = format!("00-{IDS}-03").parse().unwrap();
    let traced = |key: &str| NewDelivery::new(ada()).key(key).traceparent(parent);
    harness.outbox.enqueue(traced("one")).await.unwrap();
    harness.outbox.enqueue_all([traced("two"), traced("three"), NewDelivery::new(ada())]).await.unwrap();
    let stored = format!("SELECT COUNT(*) FROM {{t}}deliveries WHERE traceparent = '00-{IDS}-03'");
    assert_eq!(harness.number(&stored).await, 3);
    assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 4);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let prune = Prune::deliveries(std::time::Duration::ZERO).state(State::Sent).keep_keys(SECOND * 3_600);
    assert_eq!(harness.outbox.prune(&prune).await.unwrap(), 4);
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}deliveries").await, 3, "the keys stay");
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}deliveries WHERE traceparent IS NOT NULL").await, 0);
}
