//! Rows of other programs that make no sense, and connections that are of no more use.

use super::*;
use crate::nonsense;

/// In MariaDB a column's rule goes with its definition, in MySQL it has a name.
const MARIADB_UNRULED: &[&str] = &[
    "ALTER TABLE {p}attempts MODIFY outcome VARCHAR(16) NOT NULL, MODIFY scope VARCHAR(16)",
    "ALTER TABLE {p}ended MODIFY state VARCHAR(16) NOT NULL",
    "ALTER TABLE {p}recipients MODIFY outcome VARCHAR(16) NOT NULL",
];
const MYSQL_UNRULED: &[&str] = &[
    "ALTER TABLE {p}attempts DROP CHECK {p}attempts_chk_1, DROP CHECK {p}attempts_chk_2",
    "ALTER TABLE {p}ended DROP CHECK {p}ended_chk_1",
    "ALTER TABLE {p}recipients DROP CHECK {p}recipients_chk_1",
];

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn rows_of_the_queue_and_the_history_that_make_no_sense_stop_nobody() {
    let (prefix, pool, outbox) = outbox().await;
    let dialect = nonsense::Dialect {
        prefix: &prefix,
        id: |id| format!("UNHEX('{}')", id.as_uuid().simple()),
        times: ["-9223372036854775808", "9223372036854775807"],
        last_count: i32::MAX.into(),
        unruled: if module_path!().contains("mariadb") { MARIADB_UNRULED } else { MYSQL_UNRULED },
    };
    let run = async |sql: String| run(&pool, &sql).await;
    nonsense::rows_that_make_no_sense_stop_nobody(outbox.store().clone(), dialect, run).await;
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn rows_whose_mails_were_deleted_behind_the_triggers_are_removed() {
    let (prefix, pool, outbox) = outbox().await;
    // A truncation calls no trigger.
    let lose = async |id: DeliveryId| {
        let id = id.as_uuid().simple();
        let statements = [
            format!("CREATE TEMPORARY TABLE kept AS SELECT * FROM {prefix}queue"),
            format!("DELETE FROM {prefix}deliveries WHERE id = UNHEX('{id}')"),
            format!("INSERT INTO {prefix}queue SELECT * FROM kept WHERE delivery_id = UNHEX('{id}')"),
            "DROP TEMPORARY TABLE kept".to_owned(),
        ];
        let mut connection = pool.acquire().await.unwrap();
        for statement in statements {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
        }
    };
    let queued = async || {
        let count = format!("SELECT COUNT(*) FROM {prefix}queue");
        sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&pool).await.unwrap()
    };
    nonsense::rows_without_a_mail_are_removed(outbox.store().clone(), lose, queued).await;
}

/// After a failover the old primary goes on answering on the connections that it has, and refuses to write.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_connection_that_has_become_read_only_is_not_used_again() {
    let prefix = new_prefix();
    let pool = pool(options(), 1).await;
    let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
    store.migrate().await.unwrap();
    let key = postrider::store::LeaseKey { id: DeliveryId::new(), token: 1 };
    let relay = postrider::store::RelayReport::new(postrider::store::RelayId::new(), 0, None);
    let call = async |what| match what {
        "insert" => store.insert(vec![keyed("a"), keyed("b")]).await.map(drop),
        "claim" => store.claim(Claim::new(1, SECOND)).await.map(drop),
        "renew" => store.renew(&[key], SECOND).await.map(drop),
        _ => store.report(&relay).await,
    };
    for what in ["insert", "claim", "renew", "report"] {
        run(&pool, "SET SESSION TRANSACTION READ ONLY").await;
        let error = call(what).await.expect_err(what);
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{what}: {error}");
        call(what).await.unwrap_or_else(|error| panic!("{what} was given the same connection again: {error}"));
    }
}
