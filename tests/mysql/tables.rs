//! Creating the tables.

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Email, EnqueueError, MySqlStore, Outbox, StoreErrorKind};

use crate::support::database::{Database, MySql, unique_prefix};
use crate::support::fixture::ada;
use crate::{pool, run, scalar};

/// After each statement the outbox either refuses mail, or a relay finds it. Invariant 4.
pub(crate) async fn an_interrupted_migration_continues_and_loses_no_mail(server: MySql) {
    let pool = pool(server.options(), 3).await;
    let statements = MySqlStore::schema("postrider_").unwrap();
    let statements: Vec<_> = statements.split(";\n").filter(|statement| !statement.trim().is_empty()).collect();
    for interrupted_after in 0..statements.len() {
        let prefix = unique_prefix();
        for statement in &statements[..interrupted_after] {
            run(&pool, &statement.replace("postrider_", &prefix)).await;
        }
        let outbox = Outbox::new(
            MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap(),
            ScriptedTransport::<Email>::new(),
        );
        let early: i64 = match outbox.enqueue(ada()).await {
            Ok(_) => 1,
            Err(EnqueueError::Store(error)) => {
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
        assert_eq!(scalar(&pool, tables).await, 17, "after {interrupted_after} statements");
        // The delete trigger is there as well.
        let delete = format!("DELETE FROM {prefix}deliveries WHERE id = UNHEX(REPLACE('{id}', '-', ''))");
        run(&pool, &delete).await;
        assert_eq!(scalar(&pool, format!("SELECT COUNT(*) FROM {prefix}attempts")).await, early);
    }
}

/// The longest prefix has 40 characters.
pub(crate) async fn table_prefixes_that_need_quotes_are_refused(server: MySql) {
    let pool = pool(server.options(), 1).await;
    for bad in ["", "1st", "a-b", "a`b", "a b", "ü", "a.b", &"x".repeat(41)] {
        let error = MySqlStore::with_table_prefix(pool.clone(), bad).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Rejected, "{bad}");
        assert!(MySqlStore::schema(bad).is_err(), "{bad}");
    }
    let longest = format!("p{}", &unique_prefix().repeat(2)[..39]);
    MySqlStore::with_table_prefix(pool, &longest).unwrap().migrate().await.unwrap();
}
