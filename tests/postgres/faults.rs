//! Transactions that conflict, servers that are slow or full, and dropped calls.

use std::time::Duration;

use postrider::store::{Claim, RelayId, RelayReport, Settled};
use postrider::{NewDelivery, PgStore, Store, StoreErrorKind, UpdateOutcome};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::support::database::{Postgres, unique_name};
use crate::support::fixture::{SECOND, ada, keyed_row, retry, sent};
use crate::{outbox, run};

/// If the server aborts a transaction of the store because of a conflict, the store repeats it. In the caller's transaction, a conflict is an
/// error.
pub(crate) async fn a_call_that_meets_a_conflict_is_made_again(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let store = outbox.store();
    // A rollback does not reset a sequence.
    let refuse = format!(
        "CREATE SEQUENCE \"{schema}\".conflicts;
         CREATE FUNCTION \"{schema}\".conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             CASE nextval('\"{schema}\".conflicts')
                 WHEN 1 THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '40001';
                 WHEN 2 THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '40P01';
                 ELSE
             END CASE;
             RETURN NULL;
         END $$;"
    );
    run(&pool, &refuse).await;
    for table in ["queue", "deliveries", "relays", "ended"] {
        let trigger = format!(
            "CREATE TRIGGER conflict AFTER INSERT OR UPDATE OR DELETE ON \"{schema}\".{table}
             FOR EACH STATEMENT EXECUTE FUNCTION \"{schema}\".conflict()"
        );
        run(&pool, &trigger).await;
    }
    let conflicts = async || run(&pool, &format!("SELECT setval('\"{schema}\".conflicts', 1, false)")).await;
    let ids = outbox.enqueue_all([NewDelivery::new(ada()).key("one"), NewDelivery::new(ada())]).await.unwrap();
    conflicts().await;
    let leases = store.claim(Claim::new(2, SECOND * 60)).await.unwrap();
    conflicts().await;
    assert_eq!(store.renew(&[leases[0].key], SECOND * 60).await.unwrap(), [Settled::Applied]);
    conflicts().await;
    let settled = store.settle(&[sent(&leases[0]), retry(&leases[1], SECOND)]).await.unwrap();
    assert_eq!(settled, [Settled::Applied; 2]);
    conflicts().await;
    assert_eq!(outbox.cancel(leases[1].key.id).await.unwrap(), UpdateOutcome::Updated);
    for id in ids {
        conflicts().await;
        assert_eq!(outbox.resend(id).await.unwrap(), UpdateOutcome::Updated);
    }
    conflicts().await;
    store.report(&RelayReport::new(RelayId::new(), 0, None)).await.unwrap();
    conflicts().await;
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
    conflicts().await;
    let mut tx = pool.begin().await.unwrap();
    let error = store.insert_in(&mut tx, vec![keyed_row("another")]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
}

/// The server ends a call at the limit after which the relay no longer waits for it, so such a claim takes no lease. Invariant 2.
pub(crate) async fn the_server_ends_a_call_that_takes_too_long(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let ids = outbox.enqueue_all([ada(), ada()]).await.unwrap();
    let limited = outbox.store().clone().with_call_limit(Duration::from_millis(200));
    let leases = outbox.store().claim(Claim::new(1, SECOND * 60)).await.unwrap();
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("LOCK TABLE \"{schema}\".queue"))).execute(&mut *lock).await.unwrap();
    let errors = [
        limited.claim(Claim::new(1, SECOND)).await.unwrap_err(),
        limited.settle(&[sent(&leases[0])]).await.unwrap_err(),
        limited.renew(&[leases[0].key], SECOND).await.unwrap_err(),
        limited.next_due().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    }
    lock.rollback().await.unwrap();
    assert_eq!(limited.claim(Claim::new(2, SECOND * 60)).await.unwrap().len(), 1, "a claim that failed took a lease");
    assert!(ids.contains(&leases[0].key.id));
    // The limit does not stay on the pool's connection.
    let limit: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&pool).await.unwrap();
    assert_eq!(limit, "0");
}

/// A claim is dropped while it waits for a lock. The server rolls it back when it gets the lock. Invariant 2.
pub(crate) async fn a_dropped_call_is_never_committed(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    outbox.enqueue(ada()).await.unwrap();
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("LOCK TABLE \"{schema}\".queue"))).execute(&mut *lock).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'";
    let count = async || -> i64 { sqlx::query_scalar(waiting).bind(&schema).fetch_one(&pool).await.unwrap() };
    tokio::select! {
        claimed = outbox.store().claim(Claim::new(1, SECOND * 60)) => panic!("it did not wait: {claimed:?}"),
        () = async { while count().await == 0 {} } => {}
    }
    lock.rollback().await.unwrap();
    let over = async { while count().await > 0 {} };
    tokio::time::timeout(SECOND * 30, over).await.expect("the server ends the wait");
    let claimed = async {
        loop {
            // The row is locked until the server notices that its client is gone.
            let leases = outbox.store().claim(Claim::new(1, SECOND * 60)).await.unwrap();
            if let Some(lease) = leases.into_iter().next() {
                return lease;
            }
        }
    };
    let lease = tokio::time::timeout(SECOND * 30, claimed).await.expect("the row is free");
    assert_eq!((lease.key.token, lease.lost), (1, false), "the dropped claim was committed");
}

/// An operator reads "too many connections", and not only that the pool timed out.
pub(crate) async fn the_error_says_why_there_is_no_connection(server: Postgres) {
    let name = unique_name();
    let everywhere = PgPool::connect(&server.url()).await.unwrap();
    run(&everywhere, &format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT 1")).await;
    let options = everywhere.connect_options().as_ref().clone().username(&name);
    let _only = options.connect().await.unwrap();
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(SECOND).connect_lazy_with(options);
    let error = PgStore::new(pool).now().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("too many connections"), "{error}");

    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(SECOND).connect(&server.url()).await.unwrap();
    let _only = pool.acquire().await.unwrap();
    let error = PgStore::new(pool.clone()).now().await.unwrap_err();
    assert!(error.to_string().contains("all 1 connections of the pool are in use"), "{error}");
    run(&everywhere, &format!("DROP ROLE {name}")).await;
}

/// A policy hides the row that has the key. Invariant 1.
pub(crate) async fn a_key_of_an_invisible_row_refuses_all_rows(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let taken = outbox.enqueue(NewDelivery::new(ada()).key("taken")).await.unwrap();
    // A policy hides a row from queries, but not from the unique index.
    let role = unique_name();
    let hide = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO {role};
         GRANT EXECUTE ON FUNCTION \"{schema}\".insert_deliveries TO {role}; GRANT SELECT ON \"{schema}\".deliveries TO {role};
         ALTER TABLE \"{schema}\".deliveries ENABLE ROW LEVEL SECURITY;
         CREATE POLICY look ON \"{schema}\".deliveries FOR SELECT TO {role} USING (id <> '{taken}')"
    );
    run(&pool, &hide).await;
    let options = pool.connect_options().as_ref().clone().username(&role);
    let theirs = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let store = PgStore::in_schema(theirs.clone(), &schema).unwrap();
    let error = store.insert(vec![keyed_row("free"), keyed_row("taken")]).await.unwrap_err();
    assert_eq!(outbox.stats().await.unwrap().pending, 1, "one row was inserted: {error}");
    theirs.close().await;
    run(&pool, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
