//! The counters, and the views for people.

use std::time::SystemTime;

use postrider::store::{Claim, Next, Settled};
use postrider::{AdminStore, CountedEvent, DeliveryId, Priority, Store, UpdateOutcome};
use sqlx::{AssertSqlSafe, Row};

use crate::support::database::MySql;
use crate::support::fixture::{SECOND, keyed_row, row, sent};
use crate::{failed, outbox, run, scalar};

/// A plain `DELETE` subtracts each sent or ended delivery from the totals once. Queued deliveries are not in the totals.
pub(crate) async fn a_deletion_in_plain_sql_is_counted(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let store = outbox.store();
    store.insert((0..6).map(|_| row()).collect()).await.unwrap();
    let leases = store.claim(Claim::new(5, SECOND * 60)).await.unwrap();
    let dead = failed(&leases[2], "no", Next::Dead { reason: "no".to_owned() });
    assert_eq!(store.settle(&[sent(&leases[0]), sent(&leases[1]), dead]).await.unwrap(), [Settled::Applied; 3]);
    let counts = async || {
        let stats = store.stats().await.unwrap();
        [stats.pending, stats.leased, stats.sent, stats.dead]
    };
    assert_eq!(counts().await, [1, 2, 2, 1]);
    let delete = async |id: DeliveryId| {
        run(&pool, &format!("DELETE FROM {prefix}deliveries WHERE id = UNHEX(REPLACE('{id}', '-', ''))")).await;
    };
    delete(leases[0].key.id).await;
    assert_eq!(counts().await, [1, 2, 1, 1]);
    delete(leases[2].key.id).await;
    delete(leases[3].key.id).await;
    assert_eq!(counts().await, [1, 1, 1, 0]);
    run(&pool, &format!("DELETE FROM {prefix}deliveries")).await;
    assert_eq!(counts().await, [0; 4]);
    assert_eq!(scalar(&pool, format!("SELECT COUNT(*) FROM {prefix}ended")).await, 0);
}

/// Relays settle while operators cancel, some with a transport's name that is longer than the counter's column.
pub(crate) async fn settlements_on_many_connections_are_counted_once(server: MySql) {
    let (_, _, outbox) = outbox(&server).await;
    let store = outbox.store();
    store.insert((0..80).map(|_| row()).collect()).await.unwrap();
    let low = || {
        let mut row = row();
        row.priority = Priority::new(1).unwrap();
        row
    };
    let waiting = store.insert((0..20).map(|_| low()).collect()).await.unwrap();
    let leases = store.claim(Claim::new(80, SECOND * 60)).await.unwrap();
    assert_eq!(leases.len(), 80);
    let long = "x".repeat(300);
    let mut tasks = tokio::task::JoinSet::new();
    for (n, batch) in leases.chunks(10).enumerate() {
        let settle = |lease| {
            if n % 2 == 0 { sent(lease) } else { failed(lease, &long, Next::Dead { reason: "no".to_owned() }) }
        };
        let (store, settlements) = (store.clone(), batch.iter().map(settle).collect::<Vec<_>>());
        tasks.spawn(async move { assert_eq!(store.settle(&settlements).await.unwrap(), [Settled::Applied; 10]) });
    }
    for id in waiting {
        let store = store.clone();
        tasks.spawn(async move { assert_eq!(store.cancel(id).await.unwrap(), UpdateOutcome::Updated) });
    }
    tasks.join_all().await;
    let stats = store.stats().await.unwrap();
    assert_eq!([stats.pending, stats.sent, stats.dead, stats.cancelled], [0, 40, 40, 20]);
    let hourly = store.hourly(SystemTime::now() - SECOND * 3_600).await.unwrap();
    let count = |event| hourly.iter().filter(|count| count.event == event).map(|count| count.count).sum::<u64>();
    let counted = [CountedEvent::Sent, CountedEvent::Permanent, CountedEvent::Dead, CountedEvent::Cancelled].map(count);
    assert_eq!(counted, [40, 40, 40, 20]);
    let name = hourly.iter().find(|count| count.event == CountedEvent::Dead).unwrap().transport.clone();
    assert_eq!(name.as_deref(), Some(&long[..255]));
}

/// The times are in UTC, whatever the session's time zone.
pub(crate) async fn the_views_show_what_the_tool_shows(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let store = outbox.store();
    let keyed = store.insert(vec![keyed_row("order 1")]).await.unwrap()[0];
    let lease = store.claim(Claim::new(1, SECOND * 60)).await.unwrap().remove(0);
    let dead = failed(&lease, "550 no", Next::Dead { reason: "refused".to_owned() });
    assert_eq!(store.settle(&[dead]).await.unwrap(), [Settled::Applied]);
    store.insert(vec![row(), row()]).await.unwrap();
    let leased = store.claim(Claim::new(1, SECOND * 60)).await.unwrap().remove(0);

    let seconds = |column: &str| format!("TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), {column})");
    let mail = format!(
        "SELECT state, recipient, recipients, {} AS enqueued, next_attempt_at IS NOT NULL AS waits, {} AS lease, {} AS ended, attempts,
                last_error, last_reply, transport, `key` FROM {prefix}mail WHERE id = ?",
        seconds("enqueued_at"),
        seconds("leased_until"),
        seconds("finished_at")
    );
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("SET time_zone = '+13:00'").execute(&mut *connection).await.unwrap();
    let mut see = async |id: DeliveryId| {
        let query = sqlx::query(AssertSqlSafe(mail.clone())).bind(id.to_string());
        query.fetch_one(&mut *connection).await.unwrap()
    };
    let row = see(keyed).await;
    let text = |column: &str| row.try_get_unchecked::<Option<String>, _>(column).unwrap();
    assert_eq!((text("state").as_deref(), text("recipient").as_deref()), (Some("dead"), Some("ada@example.com")));
    assert_eq!((text("last_error").as_deref(), text("last_reply").as_deref()), (Some("refused"), Some("550 no")));
    assert_eq!((text("transport").as_deref(), text("key").as_deref()), (Some("550 no"), Some("order 1")));
    let number = |column: &str| row.try_get_unchecked::<Option<i64>, _>(column).unwrap();
    assert!(number("enqueued").unwrap().abs() < 60 && number("ended").unwrap().abs() < 60);
    assert_eq!((number("recipients"), number("waits"), number("lease")), (Some(1), Some(0), None));
    let row = see(leased.key.id).await;
    assert_eq!(row.try_get_unchecked::<String, _>("state").unwrap(), "leased");
    assert!(row.try_get_unchecked::<i64, _>("lease").unwrap().abs() < 120);
    drop(connection);
    for (state, deliveries, has_oldest) in [("pending", 1, 1), ("leased", 1, 1), ("dead", 1, 0)] {
        let find = format!(
            "SELECT COUNT(*) FROM {prefix}overview WHERE state = '{state}' AND deliveries = {deliveries} AND (oldest IS NOT NULL) = {has_oldest}"
        );
        assert_eq!(scalar(&pool, find).await, 1, "{state}");
    }
}
