//! Interrupted upgrades on MySQL and MariaDB, which commit each statement of a version by itself.

use postrider::StoreErrorKind;

use crate::added::{Upgrade, version};
use crate::support::database::{Database, Harness, MySql};
use crate::support::fixture::ada;

/// An upgrade is interrupted after each statement in turn. The old release still works, and the next migration finishes the version.
pub(crate) async fn an_upgrade_that_was_interrupted_continues(server: MySql) {
    let statements: Vec<_> = MySql::ADDED.split(";\n").filter(|statement| !statement.is_empty()).collect();
    let mut tables = Vec::new();
    for interrupted_after in 0..=statements.len() {
        let harness = Harness::new(server.another()).await;
        let released = version(&harness).await;
        for statement in &statements[..interrupted_after] {
            harness.run(&statement.replace("postrider_", &harness.database.prefix)).await;
        }
        harness.outbox.enqueue(ada()).await.unwrap();
        assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 1, "after {interrupted_after} statements");
        harness.outbox.migrate().await.unwrap();
        MySql::migrate_with_added(harness.store()).await.unwrap();
        assert_eq!(version(&harness).await, released + 1, "after {interrupted_after} statements");
        assert_eq!(harness.outbox.migrate().await.unwrap_err().kind(), StoreErrorKind::NewerTables);
        tables.push(harness.database.describe_tables(&harness.pool).await);
    }
    assert!(tables.iter().all(|each| *each == tables[0]), "the tables differ");
}
