//! Migrating, rights, odd sessions, what a claim touches, and connections that go away.

use postrider::store::{Lease, Next, RelayId, RelayReport, Settled, Settlement, When};
use postrider::{Attempt, Outcome, State, StoreError};
use tokio_util::sync::CancellationToken;

use super::*;

/// A user with these rights in the test's database, on all tables or one, and options to log in as that user.
async fn user(pool: &MySqlPool, rights: &[(&str, &str)]) -> (String, MySqlConnectOptions) {
    let name = format!("u{}", &DeliveryId::new().as_uuid().simple().to_string()[4..]);
    run(pool, &format!("CREATE USER '{name}'@'%'")).await;
    let options = options();
    let database = options.get_database().unwrap();
    for (right, table) in rights {
        run(pool, &format!("GRANT {right} ON {database}.{table} TO '{name}'@'%'")).await;
    }
    (name.clone(), options.username(&name))
}

async fn scalar(pool: &MySqlPool, sql: String) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

/// The server's connections, with `id`, `user` and `command`. MySQL's own PROCESSLIST cannot be read while it would have to show a
/// statement with octets in it (error 3854).
fn connections() -> &'static str {
    if module_path!().contains("mariadb") {
        "information_schema.processlist"
    } else {
        "(SELECT processlist_id AS id, processlist_user AS user, processlist_command AS command FROM performance_schema.threads) p"
    }
}

/// A failed attempt with whatever a server may have said.
fn settlement(lease: &Lease, text: &str, next: Next) -> Settlement {
    let mut attempt = Attempt::new(lease.attempts + 1, 1, lease.claimed_at, lease.claimed_at, Outcome::Permanent);
    attempt.error = Some(text.to_owned());
    attempt.reply = Some(text.to_owned());
    attempt.transport = Some(text.to_owned());
    Settlement::new(lease.key, lease.charged_attempts + 1, next).with_attempt(attempt)
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn ten_processes_migrate_at_once_and_plain_sql_does_the_same() {
    let prefix = new_prefix();
    let starts = (0..10).map(|_| {
        let prefix = prefix.clone();
        tokio::spawn(async move {
            let pool = pool(options(), 1).await;
            MySqlStore::with_table_prefix(pool, &prefix).unwrap().migrate().await
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    let (by_hand, pool) = (new_prefix(), pool(options(), 3).await);
    let store = MySqlStore::with_table_prefix(pool.clone(), &by_hand).unwrap();
    run(&pool, &MySqlStore::schema(&by_hand).unwrap()).await;
    let columns = async |prefix: &str| -> Vec<String> {
        let sql = format!(
            "SELECT CONCAT_WS(' ', SUBSTR(table_name, {}), column_name, column_type, is_nullable, collation_name, column_key)
             FROM information_schema.columns
             WHERE table_schema = DATABASE() AND LEFT(table_name, {}) = '{prefix}' ORDER BY 1",
            prefix.len() + 1,
            prefix.len()
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&pool).await.unwrap()
    };
    let (one, other) = (columns(&prefix).await, columns(&by_hand).await);
    assert!(one.len() > 40, "{one:?}");
    assert_eq!(one, other);
    // Whoever made the tables by hand may let the program upgrade them later.
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    outbox.migrate().await.unwrap();
    assert_eq!(columns(&by_hand).await, other);
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn an_interrupted_migration_is_taken_up_and_shows_no_table_without_its_trigger() {
    let pool = pool(options(), 3).await;
    let statements = MySqlStore::schema("postrider_").unwrap();
    let statements: Vec<_> = statements.split(";\n").filter(|statement| !statement.trim().is_empty()).collect();
    for interrupted_after in 0..statements.len() {
        let prefix = new_prefix();
        for statement in &statements[..interrupted_after] {
            run(&pool, &statement.replace("postrider_", &prefix)).await;
        }
        let outbox = Outbox::new(
            MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap(),
            ScriptedTransport::<Email>::new(),
        );
        // Either it takes no mail yet, or the relay finds it.
        let early: i64 = match outbox.enqueue(ada()).await {
            Ok(_) => 1,
            Err(postrider::EnqueueError::Store(error)) => {
                assert_eq!(error.kind(), StoreErrorKind::NotMigrated, "after {interrupted_after} statements: {error}");
                0
            }
            Err(error) => panic!("after {interrupted_after} statements: {error}"),
        };
        outbox.migrate().await.unwrap();
        let id = outbox.enqueue(ada()).await.unwrap();
        assert_eq!(
            outbox.relay().drain().await.unwrap().sent,
            u64::try_from(early).unwrap() + 1,
            "after {interrupted_after} statements"
        );
        let tables = format!(
            "SELECT COUNT(*) FROM information_schema.tables
             WHERE table_schema = DATABASE() AND LEFT(table_name, {}) = '{prefix}'",
            prefix.len()
        );
        assert_eq!(scalar(&pool, tables).await, 7, "after {interrupted_after} statements");
        // What is deleted leaves nothing behind.
        let delete = format!("DELETE FROM {prefix}deliveries WHERE id = UNHEX(REPLACE('{id}', '-', ''))");
        run(&pool, &delete).await;
        assert_eq!(scalar(&pool, format!("SELECT COUNT(*) FROM {prefix}attempts")).await, early);
    }
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn missing_tables_are_told_from_other_trouble() {
    let store = MySqlStore::with_table_prefix(pool(options(), 2).await, &new_prefix()).unwrap();
    let errors: [StoreError; 5] = [
        store.insert(vec![row()]).await.unwrap_err(),
        store.claim(Claim::new(1, SECOND)).await.unwrap_err(),
        store.stats().await.unwrap_err(),
        store.get(DeliveryId::new()).await.unwrap_err(),
        store.report(&RelayReport::new(RelayId::new(), 0, None)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::NotMigrated, "{error}");
    }
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_lacking_right_is_told_by_name_and_few_rights_are_enough() {
    let (prefix, root, outbox) = outbox().await;
    // To migrate without the right to make triggers fails, and leaves no table that takes mail.
    let (_, poor) = user(&root, &[("CREATE, ALTER, DROP, INSERT, SELECT, UPDATE", "*")]).await;
    let store = MySqlStore::with_table_prefix(pool(poor, 2).await, &new_prefix()).unwrap();
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected);
    // With a binary log, the server names another right first.
    assert!(error.to_string().contains("TRIGGER") || error.to_string().contains("SUPER"), "{error}");
    assert_eq!(store.insert(vec![row()]).await.unwrap_err().kind(), StoreErrorKind::NotMigrated);
    // A program that enqueues cannot so much as read what it wrote.
    let (_, writer) = user(&root, &[("INSERT", &format!("{prefix}deliveries"))]).await;
    let writer = MySqlStore::with_table_prefix(pool(writer, 2).await, &prefix).unwrap();
    writer.insert(vec![row(), row()]).await.unwrap();
    let keyed = || vec![keyed("k")];
    assert_eq!(writer.insert(keyed()).await.unwrap_err().kind(), StoreErrorKind::Rejected);
    let (_, keeper) = user(&root, &[("INSERT, SELECT, UPDATE", &format!("{prefix}deliveries"))]).await;
    let keeper = MySqlStore::with_table_prefix(pool(keeper, 2).await, &prefix).unwrap();
    assert_eq!(keeper.insert(keyed()).await.unwrap(), keeper.insert(keyed()).await.unwrap());
    // A relay that may change rows and nothing else.
    let (_, relay) = user(&root, &[("INSERT, SELECT, UPDATE, DELETE", "*")]).await;
    let relay = MySqlStore::with_table_prefix(pool(relay, 2).await, &prefix).unwrap();
    relay.migrate().await.unwrap();
    let leases = relay.claim(Claim::new(10, SECOND * 60)).await.unwrap();
    let dead = |lease| settlement(lease, "no", Next::Dead { reason: "no".to_owned() });
    assert_eq!(relay.settle(&leases.iter().map(dead).collect::<Vec<_>>()).await.unwrap(), [Settled::Applied; 3]);
    let prune = postrider::Prune::older_than(Duration::ZERO).state(State::Dead);
    assert_eq!(relay.prune(&prune).await.unwrap(), 3);
    assert_eq!(outbox.stats().await.unwrap().dead, 0);
}

/// Sessions far from UTC, in modes that change what quotes and bars mean, and what is too long or wrong.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_sessions_time_zone_and_modes_change_nothing() {
    let (prefix, _, outbox) = outbox().await;
    let modes = "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES";
    for (zone, modes) in [("+13:00", modes), ("-11:00", "")] {
        let pool = MySqlPoolOptions::new()
            .max_connections(3)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let set = format!("SET time_zone = '{zone}', sql_mode = '{modes}'");
                    sqlx::Executor::execute(connection, sqlx::AssertSqlSafe(set)).await?;
                    Ok(())
                })
            })
            .connect_with(options())
            .await
            .unwrap();
        let store = MySqlStore::with_table_prefix(pool, &prefix).unwrap();
        store.migrate().await.unwrap();
        let mut later = row();
        later.due = Some(When::After(SECOND * 1_800));
        let id = store.insert(vec![later]).await.unwrap()[0];
        for store in [&store, outbox.store()] {
            let wait = store.next_due().await.unwrap().unwrap();
            assert!(wait > SECOND * 1_000 && wait <= SECOND * 1_800, "{zone}: {wait:?}");
        }
        let (ours, theirs) = (outbox.store().now().await.unwrap(), store.now().await.unwrap());
        assert!(theirs.duration_since(ours).unwrap_or_default() < SECOND * 1_000, "{zone}");
        assert!(ours.duration_since(theirs).unwrap_or_default() < SECOND * 1_000, "{zone}");
        assert_eq!(store.cancel(id).await.unwrap(), postrider::UpdateOutcome::Updated);
        assert_eq!(store.resend(id).await.unwrap(), postrider::UpdateOutcome::Updated);
        let lease = outbox.store().claim(Claim::new(1, SECOND * 60)).await.unwrap().remove(0);
        assert_eq!(store.claim(Claim::new(1, SECOND * 60)).await.unwrap().len(), 0, "{zone}: the lease was not seen");
        let text = "quotes ' \" ` \\ \\n \n \t NUL \0 bars || ✓ 𝄞 % _ ?";
        let dead = settlement(&lease, text, Next::Dead { reason: text.to_owned() });
        assert_eq!(store.settle(&[dead]).await.unwrap(), [Settled::Applied]);
        let shown = store.get(id).await.unwrap().unwrap();
        assert_eq!(shown.reason.as_deref(), Some(text));
        let attempt = &shown.attempts[0];
        let texts = [&attempt.error, &attempt.reply, &attempt.transport];
        assert_eq!(texts.map(Option::as_deref), [Some(text); 3]);
    }
}

/// Our transactions read what is committed; those of the caller on the same connections keep their own level.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn the_callers_isolation_level_stays_as_it_was() {
    let (prefix, other, _) = outbox().await;
    let pool = pool(options(), 1).await;
    let outbox =
        Outbox::new(MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap(), ScriptedTransport::<Email>::new());
    outbox.enqueue_all([ada(), ada()]).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
    outbox.stats().await.unwrap();
    let count = || sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {prefix}users"));
    let mut tx = pool.begin().await.unwrap();
    let before: i64 = sqlx::query_scalar(count()).fetch_one(&mut *tx).await.unwrap();
    run(&other, &format!("INSERT INTO {prefix}users (name) VALUES ('Ada')")).await;
    let after: i64 = sqlx::query_scalar(count()).fetch_one(&mut *tx).await.unwrap();
    assert_eq!((before, after), (0, 0), "the caller's transaction was not REPEATABLE READ");
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_claim_walks_over_nothing_that_is_not_due() {
    let (prefix, root, outbox) = outbox().await;
    // Many scheduled for later at a higher priority, many held by others, some due.
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
    // One connection, whose own counters tell what was read.
    let pool = pool(options(), 1).await;
    let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
    let before = rows_read(&pool).await;
    let leases = store.claim(Claim::new(32, SECOND * 60)).await.unwrap();
    let claimed = rows_read(&pool).await;
    let sent = |lease: &Lease| settlement(lease, "no", Next::Pending { after: SECOND });
    let settled = store.settle(&leases.iter().map(sent).collect::<Vec<_>>()).await.unwrap();
    let settled_by = rows_read(&pool).await;
    assert_eq!((leases.len(), settled), (32, vec![Settled::Applied; 32]));
    assert!(leases.iter().all(|lease| ids.contains(&lease.key.id)));
    assert!(claimed - before < 1_000, "a claim of 32 read {} rows", claimed - before);
    assert!(settled_by - claimed < 1_000, "settling 32 read {} rows", settled_by - claimed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn four_relays_send_each_mail_once_while_others_enqueue() {
    let (prefix, _, _) = outbox().await;
    let transport = ScriptedTransport::<Email>::new();
    let shutdown = CancellationToken::new();
    let mut workers = Vec::new();
    let mut outboxes = Vec::new();
    for _ in 0..4 {
        let store = MySqlStore::with_table_prefix(pool(options(), 4).await, &prefix).unwrap();
        let outbox = Outbox::new(store, transport.clone());
        let relay = outbox.relay().concurrency(20).poll(Duration::from_millis(20));
        workers.push(tokio::spawn(relay.run(shutdown.clone().cancelled_owned())));
        outboxes.push(outbox);
    }
    let writers = outboxes.iter().cloned().map(|outbox| {
        tokio::spawn(async move {
            for n in 0..25 {
                outbox
                    .enqueue_all((0..5).map(|_| NewDelivery::new(ada()).key(format!("k{n}-{}", DeliveryId::new()))))
                    .await
                    .unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let all_sent = async {
        while outboxes[0].stats().await.unwrap().sent < 500 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SECOND * 60, all_sent).await.is_ok(), "some were never sent");
    shutdown.cancel();
    let mut sent = 0;
    for worker in workers {
        sent += worker.await.unwrap().unwrap().sent;
    }
    assert_eq!((sent, transport.calls().len()), (500, 500));
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn connections_that_are_killed_are_made_anew() {
    let (prefix, root, outbox) = outbox().await;
    let (name, relay) = user(&root, &[("INSERT, SELECT, UPDATE, DELETE", "*")]).await;
    let store = MySqlStore::with_table_prefix(pool(relay, 4).await, &prefix).unwrap();
    let shutdown = CancellationToken::new();
    let relay = Outbox::new(store, ScriptedTransport::<Email>::new()).relay().poll(Duration::from_millis(50));
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    for _ in 0..5 {
        let id = outbox.enqueue(ada()).await.unwrap();
        let sent = async {
            while outbox.get(id).await.unwrap().is_none_or(|delivery| delivery.state != State::Sent) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(SECOND * 30, sent).await.is_ok(), "it was never sent");
        let theirs = format!("SELECT CAST(id AS SIGNED) FROM {} WHERE user = ?", connections());
        let ids: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(theirs)).bind(&name).fetch_all(&root).await.unwrap();
        assert!(!ids.is_empty(), "the relay has no connection");
        for id in ids {
            // One may have ended by itself.
            let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("KILL {id}"))).execute(&root).await;
        }
    }
    shutdown.cancel();
    let pass = worker.await.unwrap().unwrap();
    // A connection that dies between a commit and its answer leaves the relay thinking that its lease was lost.
    assert_eq!(pass.sent + pass.lease_lost, 5, "{pass:?}");
    assert_eq!(outbox.stats().await.unwrap().sent, 5);
}

/// A connection that ends in the middle of a call is trouble that passes, and leaves nothing half done.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_call_whose_connection_is_killed_fails_as_unavailable_and_writes_nothing() {
    let (prefix, root, outbox) = outbox().await;
    let (name, one) = user(&root, &[("INSERT, SELECT, UPDATE, DELETE", "*")]).await;
    let store = MySqlStore::with_table_prefix(pool(one, 1).await, &prefix).unwrap();
    let id = outbox.enqueue(ada()).await.unwrap();
    let lease = store.claim(Claim::new(1, SECOND * 600)).await.unwrap().remove(0);
    // Another transaction holds the row, so that settling waits in its middle.
    let mut holder = root.begin().await.unwrap();
    let hold = format!("SELECT 1 FROM {prefix}queue FOR UPDATE");
    sqlx::query(sqlx::AssertSqlSafe(hold)).fetch_all(&mut *holder).await.unwrap();
    let settling = tokio::spawn({
        let (store, lease) = (store.clone(), lease.clone());
        async move { store.settle(&[settlement(&lease, "no", Next::Dead { reason: "no".to_owned() })]).await }
    });
    let waiting = format!(
        "SELECT COALESCE(MAX(CAST(id AS SIGNED)), 0) FROM {} WHERE user = '{name}' AND command = 'Execute'",
        connections()
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
    let dead = settlement(&lease, "no", Next::Dead { reason: "no".to_owned() });
    assert_eq!(store.settle(&[dead]).await.unwrap(), [Settled::Applied], "it did not connect anew");
}

/// An operator's call that the server makes the victim of a deadlock is made again.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn an_operator_is_not_told_of_a_deadlock() {
    let (prefix, root, outbox) = outbox().await;
    let one = pool(options(), 1).await;
    let connection = scalar(&one, "SELECT CAST(CONNECTION_ID() AS SIGNED)".to_owned()).await;
    let operator = MySqlStore::with_table_prefix(one, &prefix).unwrap();
    let id = outbox.enqueue(ada()).await.unwrap();
    for (table, cancels) in [("queue", true), ("ended", false)] {
        // Whoever has changed less is the victim.
        let mut other = root.begin().await.unwrap();
        for n in 0..50 {
            let add = format!("INSERT INTO {prefix}users (name) VALUES ('{table}{n}')");
            sqlx::raw_sql(sqlx::AssertSqlSafe(add)).execute(&mut *other).await.unwrap();
        }
        let hold = |table: &str| sqlx::AssertSqlSafe(format!("SELECT 1 FROM {prefix}{table} FOR UPDATE"));
        assert_eq!(sqlx::query(hold(table)).fetch_all(&mut *other).await.unwrap().len(), 1);
        let mut changing = tokio::spawn({
            let operator = operator.clone();
            async move { if cancels { operator.cancel(id).await } else { operator.resend(id).await } }
        });
        // MySQL's INNODB_TRX has the trouble of its PROCESSLIST.
        let waiting = if module_path!().contains("mariadb") {
            format!(
                "SELECT COUNT(*) FROM information_schema.innodb_trx
                 WHERE trx_mysql_thread_id = {connection} AND trx_state = 'LOCK WAIT'"
            )
        } else {
            format!(
                "SELECT COUNT(*) FROM performance_schema.data_locks
                 WHERE object_name = '{prefix}{table}' AND lock_status = 'WAITING'"
            )
        };
        while scalar(&root, waiting.clone()).await == 0 {
            // MariaDB brings that table up to date only where nobody has read it for 100 ms.
            let ended = tokio::time::timeout(Duration::from_millis(150), &mut changing).await;
            assert!(ended.is_err(), "it did not wait: {ended:?}");
        }
        // The operator's call holds the delivery and waits for this transaction, which now wants the delivery.
        sqlx::query(hold("deliveries")).fetch_all(&mut *other).await.expect("the other one is the victim");
        other.commit().await.unwrap();
        assert_eq!(changing.await.unwrap().unwrap(), postrider::UpdateOutcome::Updated);
    }
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

/// Wherever a call is dropped, what it had begun is undone, and the pool serves on.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_call_that_is_dropped_leaves_no_transaction_open_and_no_answer_behind() {
    let (prefix, _, outbox) = outbox().await;
    let calls: u32 = 200;
    let (pool, settled) = (pool(options(), 1).await, pool(options(), 1).await);
    let store = MySqlStore::with_table_prefix(pool, &prefix).unwrap();
    let settling = MySqlStore::with_table_prefix(settled, &prefix).unwrap();
    for n in 0..calls {
        outbox.store().insert(vec![row()]).await.unwrap();
        let patience = Duration::from_micros(u64::from(n) * 20);
        let claim = tokio::time::timeout(patience, store.claim(Claim::new(3, SECOND * 600))).await;
        for lease in claim.unwrap_or(Ok(Vec::new())).unwrap() {
            let sent = [settlement(&lease, "", Next::Sent)];
            let _ = tokio::time::timeout(patience, settling.settle(&sent)).await;
        }
    }
    // A row that an open transaction holds would be passed by for ever.
    let all_claimed = async {
        while outbox.stats().await.unwrap().pending > 0 {
            store.claim(Claim::new(1_000, SECOND * 600)).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(SECOND * 30, all_claimed).await.is_ok(), "a dropped call holds rows");
    let stats = settling.stats().await.unwrap();
    assert_eq!(stats.leased + stats.sent, u64::from(calls));
}
