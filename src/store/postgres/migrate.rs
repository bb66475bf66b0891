//! Creates and upgrades the tables. The ledger is our own, since the one of sqlx belongs to the caller's migrations.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::sql::Sql;
use crate::store::{StoreError, StoreErrorKind};

/// The statements of each version for the schema `postrider`, beginning with version 1.
const VERSIONS: [&str; 1] = [include_str!("../../../migrations/postgres/1_outbox.sql")];

/// Renames the schema in the statements of a version. The schema's name is in double quotes everywhere, except once in the name of the
/// channel.
fn rename_schema(statements: &str, schema: &str) -> String {
    statements
        .replace("\"postrider\"", &format!("\"{schema}\""))
        .replace("'postrider:postrider'", &format!("'postrider:{schema}'"))
}

/// All statements, to be run by hand.
pub(super) fn schema(schema: &str) -> String {
    let versions = VERSIONS.iter().enumerate().map(|(index, statements)| version(schema, index, statements));
    format!("{};\n{};\n\n{}", namespace(schema), ledger(schema), versions.collect::<String>())
}

fn namespace(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")
}

/// The table of applied versions.
fn ledger(schema: &str) -> String {
    format!(
        "CREATE TABLE \"{schema}\".migrations (version bigint NOT NULL PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
}

/// The statements of one version, with its entry in the ledger.
fn version(schema: &str, index: usize, statements: &str) -> String {
    let statements = rename_schema(statements, schema);
    format!("{statements}\nINSERT INTO \"{schema}\".migrations (version) VALUES ({});\n", index + 1)
}

pub(super) async fn migrate(connection: &mut PgConnection, sql: &Sql) -> Result<(), StoreError> {
    let schema = sql.schema();
    // If the encoding cannot represent a text, a result cannot be written, and the mail would be sent again.
    let encoding: String = scalar(connection, sql, "SHOW server_encoding".to_owned()).await?;
    if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        let text = format!(
            "the database's encoding is {encoding}, which cannot represent every character: the outbox needs UTF8"
        );
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    // One process migrates. The others wait here, and then find the tables up to date.
    run(connection, format!("SELECT pg_advisory_xact_lock(hashtextextended('postrider migrate {schema}', 0))")).await?;
    // `CREATE ... IF NOT EXISTS` needs a right that a service may lack, so check first whether the schema and the table exist.
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
        let text = format!(
            "the outbox's tables have version {applied}, but this program supports only version {}",
            VERSIONS.len()
        );
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
