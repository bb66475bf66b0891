//! Creates and upgrades the tables. The ledger is our own, since the one of sqlx belongs to the caller's migrations.
//!
//! The server commits after each of these statements, so no transaction contains them all. Each statement can be repeated, and the row of
//! the ledger is written last. The next migration repeats an interrupted one.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, MySqlPool};

use super::sql::Sql;
use crate::store::row::mysql_number;
use crate::store::{StoreError, StoreErrorKind};

/// The statements of each version for the prefix `postrider_`, beginning with version 1.
const VERSIONS: [&str; 1] = [include_str!("../../../migrations/mysql/1_outbox.sql")];

/// How long to wait for another process that migrates, in seconds.
const LOCK_TIMEOUT: i64 = 300;

/// All statements, to be run by hand.
pub(super) fn schema(prefix: &str) -> String {
    let versions = VERSIONS.iter().enumerate().map(|(index, statements)| version(prefix, index, statements));
    format!("{};\n\n{}", ledger(prefix), versions.collect::<String>())
}

/// The table of applied versions.
fn ledger(prefix: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {prefix}migrations (
    version    BIGINT   NOT NULL PRIMARY KEY,
    applied_at DATETIME NOT NULL DEFAULT (UTC_TIMESTAMP())
) ENGINE = InnoDB"
    )
}

/// The statements of one version, with its entry in the ledger at the end.
fn version(prefix: &str, index: usize, statements: &str) -> String {
    let statements = statements.replace("postrider_", prefix);
    format!("{statements}\nINSERT INTO {prefix}migrations (version) VALUES ({});\n", index + 1)
}

pub(super) async fn migrate(pool: &MySqlPool, sql: &Sql) -> Result<(), StoreError> {
    // A connection outside the pool: if this call is dropped, the connection closes and releases the lock.
    let mut connection = pool.acquire().await?.detach();
    // One process migrates. The others wait here, and then find the tables up to date. The lock is global to the server, so its name
    // includes the database, as a digest because a name has at most 64 characters.
    let lock = "SELECT GET_LOCK(CONCAT('postrider ', LEFT(SHA2(CONCAT(LOWER(COALESCE(DATABASE(), '')), '.', LOWER(?)), 256), 40)), ?)";
    let locked: Option<i64> =
        sqlx::query_scalar(lock).bind(sql.prefix()).bind(LOCK_TIMEOUT).fetch_one(&mut connection).await?;
    if locked != Some(1) {
        let text = "another process has been migrating for five minutes";
        return Err(StoreError::new(StoreErrorKind::Unavailable, text));
    }
    let done = migrate_locked(&mut connection, sql).await;
    // Closing the connection releases the lock, with or without an answer.
    let _ = connection.close().await;
    done
}

async fn migrate_locked(connection: &mut MySqlConnection, sql: &Sql) -> Result<(), StoreError> {
    // `CREATE ... IF NOT EXISTS` needs a right that a service may lack, so check first whether the table exists.
    if !exists(connection, sql, "migrations").await? {
        run(connection, &ledger(sql.prefix())).await?;
    }
    let applied = sql.fill("SELECT COALESCE(MAX(version), 0) FROM {p}migrations");
    let applied: i64 = sql.scalar(&applied).fetch_one(&mut *connection).await?;
    let applied = usize::try_from(applied).unwrap_or(0);
    if applied > VERSIONS.len() {
        let text = format!(
            "the outbox's tables have version {applied}, but this program supports only version {}",
            VERSIONS.len()
        );
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    // The first version ends with the renaming of this table. If that is done, only the entry in the ledger is missing.
    let renamed = applied == 0 && exists(connection, sql, "deliveries").await?;
    for (index, statements) in VERSIONS.iter().enumerate().skip(applied) {
        let statements = if index == 0 && renamed { after_rename(statements) } else { statements };
        for statement in version(sql.prefix(), index, statements).split(";\n") {
            run(connection, statement).await?;
        }
    }
    Ok(())
}

/// The statements behind the one that gives a table its final name.
fn after_rename(statements: &str) -> &str {
    let rest = statements.split_once("\nRENAME TABLE").map_or("", |(_, rest)| rest);
    rest.split_once(";\n").map_or("", |(_, rest)| rest)
}

/// Whether a table of the outbox exists.
async fn exists(connection: &mut MySqlConnection, sql: &Sql, table: &str) -> Result<bool, StoreError> {
    let count = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let count: i64 = sqlx::query_scalar(count).bind(format!("{}{table}", sql.prefix())).fetch_one(connection).await?;
    Ok(count > 0)
}

async fn run(connection: &mut MySqlConnection, statement: &str) -> Result<(), StoreError> {
    if statement.trim().is_empty() {
        return Ok(());
    }
    match sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await {
        Ok(_) => Ok(()),
        // The table, view or trigger exists: an interrupted migration created it.
        Err(error) if matches!(mysql_number(&error), Some(1050 | 1359)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
