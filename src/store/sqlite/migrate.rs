//! Making and upgrading the tables, with a ledger of our own: the one that sqlx keeps belongs to the caller's migrations.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::store::{StoreError, StoreErrorKind};

/// Each version's statements, the first being version 1.
const VERSIONS: [&str; 1] = [include_str!("../../../migrations/sqlite/1_outbox.sql")];

/// Where the applied versions are kept.
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS postrider_migrations (
    version    INTEGER NOT NULL PRIMARY KEY,
    applied_at TEXT    NOT NULL DEFAULT (datetime('now'))
) STRICT;
";

/// One version's statements, with its entry in the ledger.
fn version(index: usize, statements: &str) -> String {
    format!("{statements}\nINSERT INTO postrider_migrations (version) VALUES ({});\n", index + 1)
}

/// All of it, to be run by hand.
pub(super) fn schema() -> String {
    let versions = VERSIONS.iter().enumerate().map(|(index, statements)| version(index, statements));
    format!("{LEDGER}\n{}", versions.collect::<String>())
}

pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    // In another encoding a text has another number of octets, by which ids are checked and bodies divided.
    let encoding: String = sqlx::query_scalar("PRAGMA encoding").fetch_one(&mut *connection).await?;
    if encoding != "UTF-8" {
        let text = format!("the database's encoding is {encoding}: the outbox needs UTF-8 (PRAGMA encoding)");
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    // Outside a transaction, and remembered by the file.
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await?;
    // One process migrates; the others wait here and then find the work done.
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(LEDGER).execute(&mut *tx).await?;
    let applied: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM postrider_migrations").fetch_one(&mut *tx).await?;
    let applied = usize::try_from(applied).unwrap_or(0);
    if applied > VERSIONS.len() {
        let text =
            format!("the outbox's tables are of version {applied}, and this program knows only {}", VERSIONS.len());
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    for (index, statements) in VERSIONS.iter().enumerate().skip(applied) {
        sqlx::raw_sql(AssertSqlSafe(version(index, statements))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
