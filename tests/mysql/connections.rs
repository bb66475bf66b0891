//! Calls whose connection ends, calls in a deadlock, and dropped calls.

use std::time::Duration;

use postrider::store::{Claim, Next, Settled};
use postrider::{AdminStore, MySqlStore, State, Store, StoreErrorKind, UpdateOutcome};
use sqlx::AssertSqlSafe;

use crate::support::database::{Database, MySql};
use crate::support::fixture::{SECOND, ada, row};
use crate::{failed, outbox, pool, run, scalar};

/// The call fails as unavailable, and the next one uses a new connection. Invariant 3.
pub(crate) async fn a_call_whose_connection_is_killed_writes_nothing(server: MySql) {
    let (prefix, root, outbox) = outbox(&server).await;
    let (name, one) = server.user(&root, &[("INSERT, SELECT, UPDATE, DELETE", "*")]).await;
    let store = MySqlStore::with_table_prefix(pool(one, 1).await, &prefix).unwrap();
    let id = outbox.enqueue(ada()).await.unwrap();
    let lease = store.claim(Claim::new(1, SECOND * 600)).await.unwrap().remove(0);
    // Another transaction locks the row, so that the settlement waits.
    let mut holder = root.begin().await.unwrap();
    let hold = format!("SELECT 1 FROM {prefix}queue FOR UPDATE");
    sqlx::query(AssertSqlSafe(hold)).fetch_all(&mut *holder).await.unwrap();
    let settling = tokio::spawn({
        let (store, lease) = (store.clone(), lease.clone());
        async move { store.settle(&[failed(&lease, "no", Next::Dead { reason: "no".to_owned() })]).await }
    });
    let waiting = format!(
        "SELECT COALESCE(MAX(CAST(id AS SIGNED)), 0) FROM {} WHERE user = '{name}' AND command = 'Execute'",
        server.connections()
    );
    let mut connection = 0;
    while connection == 0 {
        connection = scalar(&root, waiting.clone()).await;
    }
    run(&root, &format!("KILL {connection}")).await;
    assert_eq!(settling.await.unwrap().unwrap_err().kind(), StoreErrorKind::Unavailable);
    holder.rollback().await.unwrap();
    let shown = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.attempts.len()), (State::Leased, 0));
    let dead = failed(&lease, "no", Next::Dead { reason: "no".to_owned() });
    assert_eq!(store.settle(&[dead]).await.unwrap(), [Settled::Applied], "the store did not reconnect");
}

/// In a deadlock with another transaction, the server rolls back the call of the operator, and the store repeats it.
pub(crate) async fn an_operators_call_is_repeated_after_a_deadlock(server: MySql) {
    let (prefix, root, outbox) = outbox(&server).await;
    let one = pool(server.options(), 1).await;
    let operator = MySqlStore::with_table_prefix(one, &prefix).unwrap();
    let id = outbox.enqueue(ada()).await.unwrap();
    for (table, cancels) in [("queue", true), ("ended", false)] {
        // The server rolls back the transaction that changed fewer rows.
        let mut other = root.begin().await.unwrap();
        for n in 0..50 {
            let add = format!("INSERT INTO {prefix}users (name) VALUES ('{table}{n}')");
            sqlx::raw_sql(AssertSqlSafe(add)).execute(&mut *other).await.unwrap();
        }
        let hold = |table: &str| AssertSqlSafe(format!("SELECT 1 FROM {prefix}{table} FOR UPDATE"));
        assert_eq!(sqlx::query(hold(table)).fetch_all(&mut *other).await.unwrap().len(), 1);
        let mut changing = tokio::spawn({
            let operator = operator.clone();
            async move { if cancels { operator.cancel(id).await } else { operator.resend(id).await } }
        });
        // MariaDB has no table of locks that is up to date: INNODB_TRX changes only while nobody reads it. MySQL's PROCESSLIST can fail.
        let waiting = if server.is_mariadb() {
            format!(
                "SELECT COUNT(*) FROM information_schema.processlist
                 WHERE command = 'Execute' AND time_ms > 300 AND INSTR(info, '{prefix}') > 0"
            )
        } else {
            format!(
                "SELECT COUNT(*) FROM performance_schema.data_locks
                 WHERE object_name = '{prefix}{table}' AND lock_status = 'WAITING'"
            )
        };
        while scalar(&root, waiting.clone()).await == 0 {
            let ended = tokio::time::timeout(Duration::from_millis(150), &mut changing).await;
            assert!(ended.is_err(), "the call did not wait: {ended:?}");
        }
        // The operator's call locks the delivery and waits for this transaction, which now locks the delivery too.
        sqlx::query(hold("deliveries"))
            .fetch_all(&mut *other)
            .await
            .expect("the server rolls back the operator's call");
        other.commit().await.unwrap();
        assert_eq!(changing.await.unwrap().unwrap(), UpdateOutcome::Updated);
    }
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

/// Calls are dropped after 0 to 4 ms. A row that a dropped call still locks could never be claimed. Invariants 2, 4.
pub(crate) async fn dropped_calls_hold_no_rows(server: MySql) {
    let (prefix, _, outbox) = outbox(&server).await;
    let calls: u32 = 200;
    let (pool, settled) = (pool(server.options(), 1).await, pool(server.options(), 1).await);
    let store = MySqlStore::with_table_prefix(pool, &prefix).unwrap();
    let settling = MySqlStore::with_table_prefix(settled, &prefix).unwrap();
    for n in 0..calls {
        outbox.store().insert(vec![row()]).await.unwrap();
        let patience = Duration::from_micros(u64::from(n) * 20);
        let claim = tokio::time::timeout(patience, store.claim(Claim::new(3, SECOND * 600))).await;
        for lease in claim.unwrap_or(Ok(Vec::new())).unwrap() {
            let sent = [failed(&lease, "", Next::Sent)];
            let _ = tokio::time::timeout(patience, settling.settle(&sent)).await;
        }
    }
    let all_claimed = async {
        while outbox.stats().await.unwrap().pending > 0 {
            store.claim(Claim::new(1_000, SECOND * 600)).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(SECOND * 30, all_claimed).await.is_ok(), "a dropped call locks rows");
    let stats = settling.stats().await.unwrap();
    assert_eq!(stats.leased + stats.sent, u64::from(calls));
}
