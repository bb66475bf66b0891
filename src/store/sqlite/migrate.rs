//! Creates and upgrades the tables. The ledger is our own, since the one of sqlx belongs to the caller's migrations.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::store::{StoreError, StoreErrorKind};

/// The statements of each version, beginning with version 1.
const VERSIONS: [&str; 1] = [include_str!("../../../migrations/sqlite/1_outbox.sql")];

/// The table of applied versions.
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS postrider_migrations (
    version    INTEGER NOT NULL PRIMARY KEY,
    applied_at TEXT    NOT NULL DEFAULT (datetime('now'))
) STRICT;
";

/// The statements of one version, with its entry in the ledger.
fn version(index: usize, statements: &str) -> String {
    format!("{statements}\nINSERT INTO postrider_migrations (version) VALUES ({});\n", index + 1)
}

/// All statements, to be run by hand.
pub(super) fn schema() -> String {
    let versions = VERSIONS.iter().enumerate().map(|(index, statements)| version(index, statements));
    format!("{LEDGER}\n{}", versions.collect::<String>())
}

pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    // In another encoding a text has a different number of octets. The checks of ids and the offsets in bodies depend on it.
    let encoding: String = sqlx::query_scalar("PRAGMA encoding").fetch_one(&mut *connection).await?;
    if encoding != "UTF-8" {
        let text = format!("the database's encoding is {encoding}: the outbox needs UTF-8 (PRAGMA encoding)");
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    // SQLite requires that this runs outside a transaction. The file remembers the mode.
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await?;
    // One process migrates. The others wait here, and then find the tables up to date.
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(LEDGER).execute(&mut *tx).await?;
    let applied: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM postrider_migrations").fetch_one(&mut *tx).await?;
    let applied = usize::try_from(applied).unwrap_or(0);
    if applied > VERSIONS.len() {
        let text = format!(
            "the outbox's tables have version {applied}, but this program supports only version {}",
            VERSIONS.len()
        );
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    for (index, statements) in VERSIONS.iter().enumerate().skip(applied) {
        sqlx::raw_sql(AssertSqlSafe(version(index, statements))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
