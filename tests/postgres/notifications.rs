//! Notifications: LISTEN and NOTIFY.

use std::time::{Duration, Instant};

use postrider::PgStore;
use postrider::testkit::ScriptedTransport;
use postrider::{Email, Outbox};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use crate::outbox;
use crate::support::database::{Database, Postgres, Server};
use crate::support::fixture::{SECOND, ada};
use crate::support::wait::{until, until_sent};

/// A second pool stands for the other process. Its polls would be too late. Invariant 4.
pub(crate) async fn a_commit_wakes_a_relay_in_another_process(server: Postgres) {
    let (_, pool, outbox) = outbox(&server).await;
    let shutdown = CancellationToken::new();
    let store = server.store(server.pool(3).await);
    let relay = Outbox::new(store, ScriptedTransport::<Email>::new()).relay().poll(SECOND * 10_000);
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        let mut tx = pool.begin().await.unwrap();
        let id = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        tx.commit().await.unwrap();
        until_sent(outbox.store(), id).await;
    }
    // Only some of many concurrent commits notify. The relay still finds all.
    let commits = (0..8).map(|_| {
        let outbox = outbox.clone();
        tokio::spawn(async move {
            let mut last = None;
            for _ in 0..20 {
                last = Some(outbox.enqueue(ada()).await.unwrap());
            }
            last.unwrap()
        })
    });
    for commit in commits.collect::<Vec<_>>() {
        until_sent(outbox.store(), commit.await.unwrap()).await;
    }
    shutdown.cancel();
    assert_eq!(worker.await.unwrap().unwrap().sent, 163);
}

pub(crate) async fn at_most_fifty_notifications_are_sent_each_second(server: Postgres) {
    let (schema, _, outbox) = outbox(&server).await;
    let mut listener = PgListener::connect(&server.url()).await.unwrap();
    listener.listen(&format!("postrider:{schema}")).await.unwrap();
    let started = Instant::now();
    for _ in 0..300 {
        outbox.enqueue(ada()).await.unwrap();
    }
    let fiftieths = usize::try_from(started.elapsed().as_millis() / 20).unwrap() + 2;
    let mut received = 0;
    while tokio::time::timeout(Duration::from_millis(200), listener.recv()).await.is_ok() {
        received += 1;
    }
    assert!(received >= 1 && received <= fiftieths, "{received} notifications in {fiftieths} fiftieths of a second");
}

pub(crate) async fn a_relay_listens_again_after_its_connections_are_killed(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let (login, options) = server.login(&pool).await;
    let store =
        PgStore::in_schema(PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap(), &schema);
    let shutdown = CancellationToken::new();
    let relay = Outbox::new(store.unwrap(), ScriptedTransport::<Email>::new()).relay().poll(Duration::from_millis(200));
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    let listening =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{login}' AND query LIKE 'LISTEN%'");
    let listeners =
        async || -> i64 { sqlx::query_scalar(AssertSqlSafe(listening.clone())).fetch_one(&pool).await.unwrap() };
    for _ in 0..5 {
        let id = outbox.enqueue(ada()).await.unwrap();
        until_sent(outbox.store(), id).await;
        server.kill(&pool, &login).await;
    }
    until("the relay listens again", || async { listeners().await == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
