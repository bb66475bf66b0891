//! Creates and upgrades the tables. Applied versions are in a table of our own, since the one of sqlx belongs to the caller's migrations.
//!
//! One transaction applies all versions. It is the only writer, and other processes that migrate then find the tables up to date.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::SqliteStore;
use crate::store::session::Session;
use crate::store::versions::{Retries, Versions};
use crate::store::{StoreError, StoreErrorKind};

/// The statements of each version.
const VERSIONS: Versions<'static> = Versions::new(&[
    include_str!("../../../migrations/sqlite/1_outbox.sql"),
    include_str!("../../../migrations/sqlite/2_operators.sql"),
    include_str!("../../../migrations/sqlite/3_trace_context.sql"),
]);

/// The table of applied versions.
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS postrider_migrations (
    version    INTEGER NOT NULL PRIMARY KEY,
    applied_at TEXT    NOT NULL DEFAULT (datetime('now'))
) STRICT;
";

const APPLIED: &str = "SELECT coalesce(max(version), 0) FROM postrider_migrations";

/// The statements of one version, and the statement that records it.
fn version(number: usize, statements: &str) -> String {
    format!("{statements}\nINSERT INTO postrider_migrations (version) VALUES ({number});\n")
}

/// The statements of the versions after this one, to be run by hand.
pub(super) fn schema_from(applied: u32) -> Result<String, StoreError> {
    let versions = VERSIONS.after(applied.into())?.map(|(number, statements)| version(number, statements));
    let versions = versions.collect::<String>();
    Ok(if applied > 0 { versions } else { format!("{MIGRATIONS_TABLE}\n{versions}") })
}

impl SqliteStore {
    /// Migrates to versions that a test adds to those of this program.
    #[cfg(feature = "testkit")]
    #[doc(hidden)]
    pub async fn migrate_with(&self, added: &[&str]) -> Result<(), StoreError> {
        self.migrate_to(VERSIONS.with_added(added)).await
    }

    pub(super) async fn migrate_to_newest(&self) -> Result<(), StoreError> {
        self.migrate_to(VERSIONS).await
    }

    async fn migrate_to(&self, versions: Versions<'_>) -> Result<(), StoreError> {
        let retries = Retries::begin();
        loop {
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let migrated = migrate(&mut session, versions).await;
            match session.finish(migrated) {
                Ok(()) => return Ok(()),
                Err(error) => retries.wait_after(error).await?,
            }
        }
    }
}

async fn migrate(connection: &mut SqliteConnection, versions: Versions<'_>) -> Result<(), StoreError> {
    // Newer tables are refused before anything is changed.
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'postrider_migrations')";
    if sqlx::query_scalar(exists).fetch_one(&mut *connection).await? {
        let applied: i64 = sqlx::query_scalar(APPLIED).fetch_one(&mut *connection).await?;
        drop(versions.after(applied)?);
    }
    // In another encoding a text has a different number of bytes. The checks of ids and of the size of a message depend on it.
    let encoding: String = sqlx::query_scalar("PRAGMA encoding").fetch_one(&mut *connection).await?;
    if encoding != "UTF-8" {
        let text = format!("the database's encoding is {encoding}: the outbox needs UTF-8 (PRAGMA encoding)");
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    // SQLite requires that this runs outside a transaction. The file remembers the mode.
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(MIGRATIONS_TABLE).execute(&mut *tx).await?;
    let applied: i64 = sqlx::query_scalar(APPLIED).fetch_one(&mut *tx).await?;
    for (number, statements) in versions.after(applied)? {
        sqlx::raw_sql(AssertSqlSafe(version(number, statements))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
