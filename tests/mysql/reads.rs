//! How many rows the store's statements read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider::store::{Claim, Lease, Next, Settled};
use postrider::{AdminStore, MySqlStore, Prune, Store};
use sqlx::mysql::MySqlPool;

use crate::support::database::unique_prefix;
use crate::support::database::{Database, MySql};
use crate::support::fixture::{SECOND, ada, row};
use crate::{failed, outbox, pool, run};

pub(crate) async fn a_claim_skips_deliveries_that_are_not_due(server: MySql) {
    let (prefix, root, outbox) = outbox(&server).await;
    // Many rows are scheduled for later at a higher priority, many are leased to others, and some are due.
    let fill = |priority: i32, ahead: i64, from: i32| {
        format!(
            "INSERT INTO {prefix}queue (delivery_id, priority, due_at, cycle_started_at, leased_at, token)
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 900)
             SELECT UNHEX(LPAD(HEX(a.n * 1000 + b.n + {from}), 32, '0')), {priority},
                    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + {ahead}, 0, 1, 1
             FROM n a, n b WHERE b.n <= 20"
        )
    };
    run(&root, &fill(9, 86_400_000_000, 0)).await;
    run(&root, &fill(5, 3_600_000_000, 10_000_000)).await;
    run(&root, &format!("ANALYZE TABLE {prefix}queue")).await;
    let ids = outbox.enqueue_all((0..50).map(|_| ada())).await.unwrap();
    // One connection, whose counters show what was read.
    let pool = pool(server.options(), 1).await;
    let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
    let before = rows_read(&pool).await;
    let leases = store.claim(Claim::new(32, SECOND * 60)).await.unwrap();
    let claimed = rows_read(&pool).await;
    let retry = |lease: &Lease| failed(lease, "no", Next::Pending { after: SECOND });
    let settled = store.settle(&leases.iter().map(retry).collect::<Vec<_>>()).await.unwrap();
    let settled_by = rows_read(&pool).await;
    assert_eq!((leases.len(), settled), (32, vec![Settled::Applied; 32]));
    assert!(leases.iter().all(|lease| ids.contains(&lease.key.id)));
    assert!(claimed - before < 1_000, "a claim of 32 read {} rows", claimed - before);
    assert!(settled_by - claimed < 1_000, "settling 32 read {} rows", settled_by - claimed);
}

/// The number of rows read grows with the number of rows pruned, and not with its square.
pub(crate) async fn pruning_reads_the_history_once(server: MySql) {
    let mut reads = Vec::new();
    for (state, deliveries) in [("sent", 1_000), ("sent", 12_000), ("dead", 1_000), ("dead", 12_000)] {
        let prefix = unique_prefix();
        // One connection, whose counters show what was read.
        let pool = pool(server.options(), 1).await;
        let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
        store.migrate().await.unwrap();
        let fill = format!(
            "INSERT INTO {prefix}deliveries (id, created_at, format, body, recipients)
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
             SELECT UNHEX(LPAD(HEX(a.n * 1000 + b.n), 32, '0')), 1000, 'email/1', '{{}}', '[\"ada@example.com\"]'
             FROM n a, n b WHERE a.n <= {deliveries} / 1000;
             DELETE FROM {prefix}queue;
             INSERT INTO {prefix}attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
             SELECT id, seq, 1, seq, 1000, 1000, 'transient' FROM {prefix}deliveries, (SELECT 1 AS seq UNION SELECT 2) two;
             INSERT INTO {prefix}ended SELECT id, 'dead', NULL, 1000, 2, 2, 1 FROM {prefix}deliveries WHERE '{state}' = 'dead'"
        );
        run(&pool, &fill).await;
        run(&pool, "FLUSH STATUS").await;
        let prune = Prune::history(SECOND).state(state.parse().unwrap());
        assert_eq!(store.prune(&prune).await.unwrap(), deliveries);
        reads.push(rows_read(&pool).await);
        assert_eq!(store.prune(&prune).await.unwrap(), 0);
    }
    assert!(reads[1] < reads[0] * 15 && reads[3] < reads[2] * 15, "{reads:?} rows read");
}

/// The rows that the only connection of a pool has read.
pub(crate) async fn rows_read(pool: &MySqlPool) -> i64 {
    let status = "SHOW SESSION STATUS LIKE 'Handler_read%'";
    let counts: Vec<(String, String)> = sqlx::query_as(status).fetch_all(pool).await.unwrap();
    counts.iter().map(|(_, count)| count.parse::<i64>().unwrap()).sum()
}

/// Rows appear in the queue while relays claim. Each is claimed once, and none is mistaken for a row without a delivery. Invariants 2, 4.
pub(crate) async fn claims_beside_commits_take_each_delivery_once(server: MySql) {
    const WRITERS: usize = 8;
    const MAILS: usize = 500;
    let (prefix, _, _outbox) = outbox(&server).await;
    let pool = pool(server.options(), 12).await;
    let store = MySqlStore::with_table_prefix(pool, &prefix).unwrap();
    let write = |store: MySqlStore| async move {
        let mut ids = Vec::with_capacity(MAILS);
        for _ in 0..MAILS {
            ids.extend(store.insert(vec![row()]).await.unwrap());
        }
        ids
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write(store.clone()))).collect();
    let written: Arc<AtomicBool> = Arc::default();
    let claim = |store: MySqlStore, written: Arc<AtomicBool>| async move {
        let mut claimed = Vec::new();
        loop {
            let is_last = written.load(Ordering::SeqCst);
            let leases = store.claim(Claim::new(20, SECOND * 3_600)).await.unwrap();
            claimed.extend(leases.iter().map(|lease| lease.key.id));
            if is_last && leases.is_empty() {
                return claimed;
            }
        }
    };
    let claimers: Vec<_> = (0..4).map(|_| tokio::spawn(claim(store.clone(), Arc::clone(&written)))).collect();
    let (mut inserted, mut claimed) = (Vec::new(), Vec::new());
    for writer in writers {
        inserted.extend(writer.await.unwrap());
    }
    written.store(true, Ordering::SeqCst);
    for claimer in claimers {
        claimed.extend(claimer.await.unwrap());
    }
    inserted.sort_unstable();
    claimed.sort_unstable();
    assert!(inserted == claimed, "{} deliveries were claimed of {}", claimed.len(), inserted.len());
}
