//! Creates and upgrades the tables. Applied versions are in a table of our own, since the one of sqlx belongs to the caller's migrations.
//!
//! The server commits after each of these statements, so no transaction contains them all. Each statement can be repeated, and the version
//! is recorded last. The next migration repeats an interrupted one.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::MySqlStore;
use super::sql::Sql;
use crate::store::row::mysql_number;
use crate::store::versions::{LOCK_TIMEOUT, Retries, Versions, WAIT_LIMIT};
use crate::store::{StoreError, StoreErrorKind};

/// The statements of each version for the prefix `postrider_`.
const VERSIONS: Versions<'static> = Versions::new(&[
    include_str!("../../../migrations/mysql/1_outbox.sql"),
    include_str!("../../../migrations/mysql/2_operators.sql"),
    include_str!("../../../migrations/mysql/3_trace_context.sql"),
]);

/// The errors of a statement that an interrupted migration has already applied: a table or view, a column, an index, a trigger, a foreign
/// key or a check exists; a column, index or constraint to drop does not exist (MySQL error reference: `ER_TABLE_EXISTS_ERROR`,
/// `ER_DUP_FIELDNAME`, `ER_DUP_KEYNAME`, `ER_TRG_ALREADY_EXISTS`, `ER_FK_DUP_NAME`, `ER_CHECK_CONSTRAINT_DUP_NAME`,
/// `ER_CANT_DROP_FIELD_OR_KEY`).
const ALREADY_APPLIED: [u16; 7] = [1050, 1060, 1061, 1359, 1826, 3822, 1091];

/// The statements of the versions after this one, to be run by hand.
pub(super) fn schema_from(prefix: &str, applied: u32) -> Result<String, StoreError> {
    let versions = VERSIONS.after(applied.into())?.map(|(number, statements)| version(prefix, number, statements));
    let versions = versions.collect::<String>();
    Ok(if applied > 0 { versions } else { format!("{};\n\n{versions}", migrations_table(prefix)) })
}

/// The table of applied versions.
fn migrations_table(prefix: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {prefix}migrations (
    version    BIGINT   NOT NULL PRIMARY KEY,
    applied_at DATETIME NOT NULL DEFAULT (UTC_TIMESTAMP())
) ENGINE = InnoDB"
    )
}

/// The statements of one version, and the statement that records it.
fn version(prefix: &str, number: usize, statements: &str) -> String {
    let statements = statements.replace("postrider_", prefix);
    format!("{statements}\nINSERT INTO {prefix}migrations (version) VALUES ({number});\n")
}

impl MySqlStore {
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
        // A connection outside the pool: if this call is dropped, the connection closes and releases the lock.
        let mut connection = self.pool.acquire().await?.detach();
        // One process migrates. The others wait here, and then find the tables up to date. The lock is global to the server, so its name
        // includes the database, as a digest because a name has at most 64 characters.
        let lock = "SELECT GET_LOCK(CONCAT('postrider ', LEFT(SHA2(CONCAT(LOWER(COALESCE(DATABASE(), '')), '.', LOWER(?)), 256), 40)), ?)";
        let lock = sqlx::query_scalar(lock).bind(self.sql.prefix()).bind(WAIT_LIMIT.as_secs());
        let locked: Option<i64> = lock.fetch_one(&mut connection).await?;
        if locked != Some(1) {
            let text = "another process has been migrating for five minutes";
            return Err(StoreError::new(StoreErrorKind::Unavailable, text));
        }
        let done = migrate_locked(&mut connection, &self.sql, versions).await;
        // Closing the connection releases the lock, with or without an answer.
        let _ = connection.close().await;
        done
    }
}

async fn migrate_locked(connection: &mut MySqlConnection, sql: &Sql, versions: Versions<'_>) -> Result<(), StoreError> {
    // `CREATE ... IF NOT EXISTS` needs a right that a service may lack, so check first whether the table exists.
    if !exists(connection, sql, "migrations").await? {
        run(connection, &migrations_table(sql.prefix())).await?;
    }
    let applied = sql.fill("SELECT COALESCE(MAX(version), 0) FROM {p}migrations");
    let applied: i64 = sql.scalar(&applied).fetch_one(&mut *connection).await?;
    let left = versions.after(applied)?;
    // The first version ends with the renaming of this table. If that is done, only what follows is missing.
    let renamed = applied == 0 && exists(connection, sql, "deliveries").await?;
    for (number, statements) in left {
        if number > 1 {
            run(connection, &format!("SET SESSION lock_wait_timeout = {}", LOCK_TIMEOUT.as_secs())).await?;
        }
        let statements = if number == 1 && renamed { after_rename(statements) } else { statements };
        for statement in version(sql.prefix(), number, statements).split(";\n") {
            let retries = Retries::begin();
            while let Err(error) = run(connection, statement).await {
                retries.wait_after(error).await?;
            }
        }
    }
    Ok(())
}

/// The statements after the one that gives the table of deliveries its final name.
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
        Err(error) if mysql_number(&error).is_some_and(|number| ALREADY_APPLIED.contains(&number)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
