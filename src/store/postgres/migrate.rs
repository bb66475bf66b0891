//! Creates and upgrades the tables. Applied versions are in a table of our own, since the one of sqlx belongs to the caller's migrations.
//!
//! Each version is a transaction, which takes an advisory lock first. One process migrates at a time, and the others then find the tables
//! up to date.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::PgStore;
use super::sql::Sql;
use crate::store::versions::{LOCK_TIMEOUT, Retries, Versions};
use crate::store::{StoreError, StoreErrorKind};

/// The statements of each version for the schema `postrider`.
const VERSIONS: Versions<'static> = Versions::new(&[
    include_str!("../../../migrations/postgres/1_outbox.sql"),
    include_str!("../../../migrations/postgres/2_operators.sql"),
    include_str!("../../../migrations/postgres/3_trace_context.sql"),
]);

/// Renames the schema in the statements of a version. The schema's name is in double quotes everywhere, except once in the name of the
/// channel.
fn rename_schema(statements: &str, schema: &str) -> String {
    statements
        .replace("\"postrider\"", &format!("\"{schema}\""))
        .replace("'postrider:postrider'", &format!("'postrider:{schema}'"))
}

/// The statements of the versions after this one, to be run by hand.
pub(super) fn schema_from(schema: &str, applied: u32) -> Result<String, StoreError> {
    let versions = VERSIONS.after(applied.into())?.map(|(number, statements)| version(schema, number, statements));
    let versions = versions.collect::<String>();
    Ok(if applied > 0 {
        versions
    } else {
        format!("{};\n{};\n\n{versions}", namespace(schema), migrations_table(schema))
    })
}

fn namespace(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")
}

/// The table of applied versions.
fn migrations_table(schema: &str) -> String {
    format!(
        "CREATE TABLE \"{schema}\".migrations (version bigint NOT NULL PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
}

/// The statements of one version, and the statement that records it.
fn version(schema: &str, number: usize, statements: &str) -> String {
    let statements = rename_schema(statements, schema);
    format!("{statements}\nINSERT INTO \"{schema}\".migrations (version) VALUES ({number});\n")
}

impl PgStore {
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
            let mut call = self.begin_transaction().await?;
            let applied = apply_next(&mut call, &self.sql, versions).await;
            match call.finish(applied).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => retries.wait_after(error).await?,
            }
        }
    }
}

/// Applies one version. Returns whether there was one.
async fn apply_next(connection: &mut PgConnection, sql: &Sql, versions: Versions<'_>) -> Result<bool, StoreError> {
    let schema = sql.schema();
    // If the encoding cannot represent a text, a result cannot be written, and the mail would be sent again.
    let encoding: String = scalar(connection, sql, "SHOW server_encoding".to_owned()).await?;
    if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        let text = format!(
            "the database's encoding is {encoding}, which cannot represent every character: the outbox needs UTF8"
        );
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    run(connection, format!("SELECT pg_advisory_xact_lock(hashtextextended('postrider migrate {schema}', 0))")).await?;
    // `CREATE ... IF NOT EXISTS` needs a right that a service may lack, so check first whether the schema and the table exist.
    let exists: bool = scalar(connection, sql, format!("SELECT to_regnamespace('\"{schema}\"') IS NOT NULL")).await?;
    if !exists {
        run(connection, namespace(schema)).await?;
    }
    let migrations_table = format!("\"{schema}\".migrations");
    let exists: bool = scalar(connection, sql, format!("SELECT to_regclass('{migrations_table}') IS NOT NULL")).await?;
    if !exists {
        run(connection, self::migrations_table(schema)).await?;
    }
    let applied: i64 =
        scalar(connection, sql, format!("SELECT coalesce(max(version), 0) FROM {migrations_table}")).await?;
    let Some((number, statements)) = versions.after(applied)?.next() else { return Ok(false) };
    if number > 1 {
        run(connection, format!("SET LOCAL lock_timeout = {}", LOCK_TIMEOUT.as_millis())).await?;
    }
    run(connection, version(schema, number, statements)).await?;
    Ok(true)
}

async fn run(connection: &mut PgConnection, text: String) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await?;
    Ok(())
}

async fn scalar<T>(connection: &mut PgConnection, sql: &Sql, text: String) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    Ok(sql.scalar(&text.into()).fetch_one(connection).await?)
}
