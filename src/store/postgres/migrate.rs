//! Making and upgrading the tables, with a ledger of our own: the one that sqlx keeps belongs to the caller's migrations.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::sql::Sql;
use crate::store::{StoreError, StoreErrorKind};

/// Each version's statements, the first being version 1, for a schema called `postrider`.
const VERSIONS: [&str; 1] = [include_str!("../../../migrations/postgres/1_outbox.sql")];

/// One version's statements for another schema. The name stands in double quotes wherever it names the schema, and once in that of
/// the channel.
fn renamed(statements: &str, schema: &str) -> String {
    statements
        .replace("\"postrider\"", &format!("\"{schema}\""))
        .replace("'postrider:postrider'", &format!("'postrider:{schema}'"))
}

/// All of it, to be run by hand.
pub(super) fn schema(schema: &str) -> String {
    let versions = VERSIONS.iter().enumerate().map(|(index, statements)| version(schema, index, statements));
    format!("{};\n{};\n\n{}", namespace(schema), ledger(schema), versions.collect::<String>())
}

fn namespace(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")
}

/// Where the applied versions are kept.
fn ledger(schema: &str) -> String {
    format!(
        "CREATE TABLE \"{schema}\".migrations (version bigint NOT NULL PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
}

/// One version's statements, with its entry in the ledger.
fn version(schema: &str, index: usize, statements: &str) -> String {
    let statements = renamed(statements, schema);
    format!("{statements}\nINSERT INTO \"{schema}\".migrations (version) VALUES ({});\n", index + 1)
}

pub(super) async fn migrate(connection: &mut PgConnection, sql: &Sql) -> Result<(), StoreError> {
    let schema = sql.schema();
    // Where a text may have no place in the database, a result could not be written, and the mail would be sent again.
    let encoding: String = scalar(connection, sql, "SHOW server_encoding".to_owned()).await?;
    if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        let text = format!(
            "the database's encoding is {encoding}, which has no place for every character: the outbox needs UTF8"
        );
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    // One process migrates; the others wait here and then find the work done.
    run(connection, format!("SELECT pg_advisory_xact_lock(hashtextextended('postrider migrate {schema}', 0))")).await?;
    // To create what is there needs a right that a service may not have, so look first, at the schema as at the tables.
    let exists: bool = scalar(connection, sql, format!("SELECT to_regnamespace('\"{schema}\"') IS NOT NULL")).await?;
    if !exists {
        run(connection, namespace(schema)).await?;
    }
    let ledger = format!("\"{schema}\".migrations");
    let exists: bool = scalar(connection, sql, format!("SELECT to_regclass('{ledger}') IS NOT NULL")).await?;
    if !exists {
        run(connection, self::ledger(schema)).await?;
    }
    let applied: i64 = scalar(connection, sql, format!("SELECT coalesce(max(version), 0) FROM {ledger}")).await?;
    let applied = usize::try_from(applied).unwrap_or(0);
    if applied > VERSIONS.len() {
        let text =
            format!("the outbox's tables are of version {applied}, and this program knows only {}", VERSIONS.len());
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    for (index, statements) in VERSIONS.iter().enumerate().skip(applied) {
        run(connection, version(schema, index, statements)).await?;
    }
    Ok(())
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
