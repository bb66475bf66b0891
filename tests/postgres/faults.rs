//! Calls that are dropped, connections that are of no more use, transactions that get in each other's way, servers that are slow or full.

use postrider::store::{Claim, Lease, LeaseKey, NewRow, Next, RelayId, RelayReport, Settled, Settlement};
use postrider::transport::Recipient;
use postrider::{Filter, Message, Prune};
use sqlx::ConnectOptions;

use super::*;
use crate::dropped::dropped_after;

/// A pool of a single connection, which the next call has to take.
async fn pool_of_one() -> PgPool {
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    pool.acquire_timeout(SECOND * 20).connect(&url("PG")).await.unwrap()
}

fn keyed(key: &str) -> NewRow {
    let mut row = NewRow::new(DeliveryId::new(), ada().encode().unwrap(), vec![Recipient::new("ada@example.com")]);
    row.key = Some(key.to_owned());
    row
}

fn retry(lease: &Lease) -> Settlement {
    let mut settlement = pool::sent(lease);
    settlement.next = Next::Pending { after: SECOND };
    settlement
}

/// Runs a call again and again, dropped one poll later each time, until it comes to its end.
macro_rules! at_each_wait {
    ($pool:expr, $check:expr, $what:literal, $call:expr) => {{
        let mut polls = 1;
        while !dropped_after(polls, $call).await {
            let clean = sqlx::raw_sql(sqlx::AssertSqlSafe($check.clone())).execute($pool).await;
            assert!(clean.is_ok(), "{} dropped after {polls} polls: {clean:?}", $what);
            polls += 1;
            assert!(polls < 500, "{} never ends", $what);
        }
        assert!(polls > 1, "{} never waits", $what);
    }};
}

/// Whoever borrows the connection next must not work, without knowing, in a transaction that a dropped call had begun.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_call_that_is_dropped_leaves_no_transaction_open() {
    for prepared in [true, false] {
        let pool = &pool_of_one().await;
        let schema = new_schema();
        let store = PgStore::in_schema(pool.clone(), &schema).unwrap().without_listen();
        let store = if prepared { store } else { store.without_prepared_statements() };
        let store = store.with_call_limit(SECOND * 20);
        // Refused in a transaction.
        let check = format!("VACUUM \"{schema}\".relays");
        store.migrate().await.unwrap();
        at_each_wait!(pool, check, "migrate", store.migrate());
        at_each_wait!(pool, check, "insert", store.insert(vec![keyed("one"), keyed("two")]));
        at_each_wait!(pool, check, "claim", store.claim(Claim::new(1, SECOND * 60)));
        let ids = store.insert((0..3).map(|n| keyed(&format!("more {n}"))).collect()).await.unwrap();
        let leases = store.claim(Claim::new(1, SECOND * 60)).await.unwrap();
        at_each_wait!(pool, check, "settle", store.settle(&[pool::sent(&leases[0])]));
        at_each_wait!(pool, check, "settle", store.settle(&[retry(&leases[0])]));
        at_each_wait!(pool, check, "renew", store.renew(&[leases[0].key], SECOND * 60));
        at_each_wait!(pool, check, "take back", store.take_back(&[Claim::new(1, SECOND).id]));
        at_each_wait!(pool, check, "get", store.get(ids[0]));
        at_each_wait!(pool, check, "message", store.message(ids[0]));
        at_each_wait!(pool, check, "list", store.list(&Filter::new()));
        at_each_wait!(pool, check, "stats", store.stats());
        at_each_wait!(pool, check, "cancel", store.cancel(ids[2]));
        at_each_wait!(pool, check, "resend", store.resend(ids[2]));
        at_each_wait!(pool, check, "prune", store.prune(&Prune::older_than(Duration::ZERO).state(State::Sent)));
        at_each_wait!(pool, check, "next_due", store.next_due());
        at_each_wait!(pool, check, "now", store.now());
        let relay = RelayReport::new(RelayId::new(), 0, None);
        at_each_wait!(pool, check, "report", store.report(&relay));
        at_each_wait!(pool, check, "retire", store.retire(relay.id));
    }
}

/// After a failover the old primary goes on answering on the connections that it has, and refuses to write.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_connection_to_a_server_that_has_become_read_only_is_not_used_again() {
    let name = new_schema();
    let everywhere = PgPool::connect(&url("PG")).await.unwrap();
    run(&everywhere, &format!("CREATE DATABASE {name}")).await;
    let options = everywhere.connect_options().as_ref().clone().database(&name);
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let store = PgStore::new(pool.clone()).without_listen();
    store.migrate().await.unwrap();
    let read_only = |yes: &str| format!("ALTER DATABASE {name} SET default_transaction_read_only = {yes}");
    let key = LeaseKey { id: DeliveryId::new(), token: 1 };
    let relay = RelayReport::new(RelayId::new(), 0, None);
    let call = async |what| match what {
        "insert" => store.insert(vec![keyed("a"), keyed("b")]).await.map(drop),
        "claim" => store.claim(Claim::new(1, SECOND)).await.map(drop),
        "renew" => store.renew(&[key], SECOND).await.map(drop),
        _ => store.report(&relay).await,
    };
    for what in ["insert", "claim", "renew", "report"] {
        run(&everywhere, &read_only("on")).await;
        // A connection that was made while it was read-only stays so.
        pool.acquire().await.unwrap().close().await.unwrap();
        drop(pool.acquire().await.unwrap());
        run(&everywhere, &read_only("off")).await;
        let error = call(what).await.expect_err(what);
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{what}: {error}");
        call(what).await.unwrap_or_else(|error| panic!("{what} was given the same connection again: {error}"));
    }
    pool.close().await;
    run(&everywhere, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

/// Each call that is a transaction of its own is made again where the server sacrifices it for another one.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_loses_against_another_transaction_is_made_again() {
    let (schema, pool, outbox) = outbox().await;
    let store = outbox.store();
    // A sequence goes on also where the transaction is undone.
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
    let settled = store.settle(&[pool::sent(&leases[0]), retry(&leases[1])]).await.unwrap();
    assert_eq!(settled, [Settled::Applied; 2]);
    conflicts().await;
    assert_eq!(outbox.cancel(leases[1].key.id).await.unwrap(), postrider::UpdateOutcome::Updated);
    for id in ids {
        conflicts().await;
        assert_eq!(outbox.resend(id).await.unwrap(), postrider::UpdateOutcome::Updated);
    }
    conflicts().await;
    store.report(&RelayReport::new(RelayId::new(), 0, None)).await.unwrap();
    conflicts().await;
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
    // In the caller's transaction it is told, and no more.
    conflicts().await;
    let mut tx = pool.begin().await.unwrap();
    let error = store.insert_in(&mut tx, vec![keyed("another")]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
}

/// What the server cannot do in time it gives up by itself, so that nothing is leased to a relay that has stopped waiting for it.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn the_server_gives_up_what_takes_too_long() {
    let (schema, pool, outbox) = outbox().await;
    let ids = outbox.enqueue_all([ada(), ada()]).await.unwrap();
    let limited = outbox.store().clone().with_call_limit(Duration::from_millis(200));
    let leases = outbox.store().claim(Claim::new(1, SECOND * 60)).await.unwrap();
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("LOCK TABLE \"{schema}\".queue"))).execute(&mut *lock).await.unwrap();
    let errors = [
        limited.claim(Claim::new(1, SECOND)).await.unwrap_err(),
        limited.settle(&[pool::sent(&leases[0])]).await.unwrap_err(),
        limited.renew(&[leases[0].key], SECOND).await.unwrap_err(),
        limited.next_due().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    }
    lock.rollback().await.unwrap();
    assert_eq!(
        limited.claim(Claim::new(2, SECOND * 60)).await.unwrap().len(),
        1,
        "a claim was made that nobody heard of"
    );
    assert!(ids.contains(&leases[0].key.id));
    // The pool's other borrowers have no limit.
    let limit: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&pool).await.unwrap();
    assert_eq!(limit, "0");
}

/// A call that is dropped while the server is still to execute it is undone, whenever the server comes to it.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_the_relay_stopped_waiting_for_is_never_committed() {
    let (schema, pool, outbox) = outbox().await;
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
    tokio::time::timeout(SECOND * 30, over).await.expect("the server goes on");
    let claimed = async {
        loop {
            // Until the server has seen that its client is gone, the row is locked.
            let leases = outbox.store().claim(Claim::new(1, SECOND * 60)).await.unwrap();
            if let Some(lease) = leases.into_iter().next() {
                return lease;
            }
        }
    };
    let lease = tokio::time::timeout(SECOND * 30, claimed).await.expect("nobody holds it");
    assert_eq!((lease.key.token, lease.lost), (1, false), "it was leased to nobody");
}

/// "Too many connections" is what an operator must hear, and not that the pool has waited in vain.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn why_there_is_no_connection_is_said() {
    let name = new_schema();
    let everywhere = PgPool::connect(&url("PG")).await.unwrap();
    run(&everywhere, &format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT 1")).await;
    let options = everywhere.connect_options().as_ref().clone().username(&name);
    let _only = options.connect().await.unwrap();
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(SECOND).connect_lazy_with(options);
    let error = PgStore::new(pool).now().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("too many connections"), "{error}");

    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(SECOND).connect(&url("PG")).await.unwrap();
    let _only = pool.acquire().await.unwrap();
    let error = PgStore::new(pool.clone()).now().await.unwrap_err();
    assert!(error.to_string().contains("all 1 connections of the pool are in use"), "{error}");
    run(&everywhere, &format!("DROP ROLE {name}")).await;
}

/// A key that is taken, by a row that cannot be seen, fails the whole call, and nothing of it is there.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_cannot_all_be_inserted_is_not_inserted_at_all() {
    let (schema, pool, outbox) = outbox().await;
    let taken = outbox.enqueue(NewDelivery::new(ada()).key("taken")).await.unwrap();
    // A policy hides the row from whoever asks for it, but not from the unique index.
    let role = new_schema();
    let hide = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO {role};
         GRANT INSERT, SELECT ON \"{schema}\".deliveries TO {role};
         ALTER TABLE \"{schema}\".deliveries ENABLE ROW LEVEL SECURITY;
         CREATE POLICY add ON \"{schema}\".deliveries FOR INSERT TO {role} WITH CHECK (true);
         CREATE POLICY look ON \"{schema}\".deliveries FOR SELECT TO {role} USING (id <> '{taken}')"
    );
    run(&pool, &hide).await;
    let options = pool.connect_options().as_ref().clone().username(&role);
    let theirs = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let store = PgStore::in_schema(theirs.clone(), &schema).unwrap();
    let error = store.insert(vec![keyed("free"), keyed("taken")]).await.unwrap_err();
    assert_eq!(outbox.stats().await.unwrap().pending, 1, "a part of it was inserted: {error}");
    theirs.close().await;
    run(&pool, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
