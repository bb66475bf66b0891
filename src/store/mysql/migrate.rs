//! Making and upgrading the tables, with a ledger of our own: the one that sqlx keeps belongs to the caller's migrations.
//!
//! The server commits after each statement of this kind, so no transaction holds them together. Each is made so that it can be said
//! again, and the ledger's row is written last: what was interrupted is done anew.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, MySqlPool};

use super::sql::Sql;
use crate::store::row::mysql_number;
use crate::store::{StoreError, StoreErrorKind};

/// Each version's statements, the first being version 1, for the prefix `postrider_`.
const VERSIONS: [&str; 1] = [include_str!("../../../migrations/mysql/1_outbox.sql")];

/// How long, in seconds, to wait for another process that migrates.
const PATIENCE: i64 = 300;

/// All of it, to be run by hand.
pub(super) fn schema(prefix: &str) -> String {
    let versions = VERSIONS.iter().enumerate().map(|(index, statements)| version(prefix, index, statements));
    format!("{};\n\n{}", ledger(prefix), versions.collect::<String>())
}

/// Where the applied versions are kept.
fn ledger(prefix: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {prefix}migrations (
    version    BIGINT   NOT NULL PRIMARY KEY,
    applied_at DATETIME NOT NULL DEFAULT (UTC_TIMESTAMP())
) ENGINE = InnoDB"
    )
}

/// One version's statements, the entry in the ledger last.
fn version(prefix: &str, index: usize, statements: &str) -> String {
    let statements = statements.replace("postrider_", prefix);
    format!("{statements}\nINSERT INTO {prefix}migrations (version) VALUES ({});\n", index + 1)
}

pub(super) async fn migrate(pool: &MySqlPool, sql: &Sql) -> Result<(), StoreError> {
    // A connection that goes back to nobody: should this be dropped half-way, the lock goes with it.
    let mut connection = pool.acquire().await?.detach();
    // One process migrates; the others wait here and then find the work done. The lock is the whole server's, so its name tells the
    // database, in a digest because it may have no more than 64 characters.
    let lock = "SELECT GET_LOCK(CONCAT('postrider ', LEFT(SHA2(CONCAT(LOWER(COALESCE(DATABASE(), '')), '.', LOWER(?)), 256), 40)), ?)";
    let locked: Option<i64> =
        sqlx::query_scalar(lock).bind(sql.prefix()).bind(PATIENCE).fetch_one(&mut connection).await?;
    if locked != Some(1) {
        let text = "another process has been migrating for five minutes";
        return Err(StoreError::new(StoreErrorKind::Unavailable, text));
    }
    let done = migrate_alone(&mut connection, sql).await;
    // Closing gives the lock back, and needs no answer.
    let _ = connection.close().await;
    done
}

async fn migrate_alone(connection: &mut MySqlConnection, sql: &Sql) -> Result<(), StoreError> {
    // To create what is there needs a right that a service may not have, so look first.
    let exists = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let exists: i64 =
        sqlx::query_scalar(exists).bind(format!("{}migrations", sql.prefix())).fetch_one(&mut *connection).await?;
    if exists == 0 {
        run(connection, &ledger(sql.prefix())).await?;
    }
    let applied = sql.fill("SELECT COALESCE(MAX(version), 0) FROM {p}migrations");
    let applied: i64 = sql.scalar(&applied).fetch_one(&mut *connection).await?;
    let applied = usize::try_from(applied).unwrap_or(0);
    if applied > VERSIONS.len() {
        let text =
            format!("the outbox's tables are of version {applied}, and this program knows only {}", VERSIONS.len());
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    for (index, statements) in VERSIONS.iter().enumerate().skip(applied) {
        for statement in version(sql.prefix(), index, statements).split(";\n") {
            run(connection, statement).await?;
        }
    }
    if applied == 0 {
        // Left over where an earlier start had got past giving the table its name.
        run(connection, &sql.fill("DROP TABLE IF EXISTS {p}deliveries_unready")).await?;
    }
    Ok(())
}

async fn run(connection: &mut MySqlConnection, statement: &str) -> Result<(), StoreError> {
    if statement.trim().is_empty() {
        return Ok(());
    }
    match sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await {
        Ok(_) => Ok(()),
        // There is such a table, or such a trigger: an earlier start got as far as this.
        Err(error) if matches!(mysql_number(&error), Some(1050 | 1359)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
