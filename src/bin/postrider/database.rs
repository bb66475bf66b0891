//! The options that select the outbox, and the opening of its database.

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::error::CliError;
use crate::url_scheme::{self, Scheme};

/// The options that select the outbox.
#[derive(Debug, Args)]
#[command(next_help_heading = "Outbox")]
pub(crate) struct OutboxArgs {
    /// The database: sqlite://outbox.db, postgres://user:password@host/database, mysql://…
    #[arg(long, value_name = "URL", global = true, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database: Option<String>,

    /// The PostgreSQL schema of the outbox [default: postrider]
    #[arg(long, value_name = "NAME", global = true, env = "POSTRIDER_SCHEMA")]
    pub(crate) schema: Option<String>,

    /// The prefix of the outbox's table names, in MySQL and MariaDB [default: postrider_]
    #[arg(long, value_name = "PREFIX", global = true, env = "POSTRIDER_TABLE_PREFIX")]
    pub(crate) table_prefix: Option<String>,

    /// The database is behind PgBouncer or another PostgreSQL pooler in transaction mode
    #[arg(long, global = true, env = "POSTRIDER_PGBOUNCER", value_parser = FalseyValueParser::new())]
    pub(crate) pgbouncer: bool,
}

/// The outbox's store.
pub(crate) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(postrider::SqliteStore),
    #[cfg(feature = "postgres")]
    Postgres(postrider::PgStore),
    #[cfg(feature = "mysql")]
    MySql(postrider::MySqlStore),
}

/// Whether to create an SQLite file that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    Refuse,
}

const SCHEMES: &[Scheme] = &[
    Scheme::new("sqlite", "sqlite", cfg!(feature = "sqlite")),
    Scheme::new("postgres", "postgres", cfg!(feature = "postgres")),
    Scheme::new("postgresql", "postgres", cfg!(feature = "postgres")),
    Scheme::new("mysql", "mysql", cfg!(feature = "mysql")),
    Scheme::new("mariadb", "mysql", cfg!(feature = "mysql")),
];

/// Returns the scheme and the URL. Refuses an option of another database, because ignoring it would open the wrong outbox.
fn scheme(args: &OutboxArgs) -> Result<(&'static Scheme, &str), CliError> {
    let how_to_set = "use --database URL, or set DATABASE_URL";
    let (scheme, url) = url_scheme::find("database", how_to_set, SCHEMES, args.database.as_deref())?;
    let feature = scheme.feature;
    if args.schema.is_some() && feature != "postgres" {
        return Err(CliError::usage("--schema (POSTRIDER_SCHEMA) is only for PostgreSQL"));
    }
    if args.pgbouncer && feature != "postgres" {
        return Err(CliError::usage("--pgbouncer (POSTRIDER_PGBOUNCER) is only for PostgreSQL"));
    }
    if args.table_prefix.is_some() && feature != "mysql" {
        return Err(CliError::usage("--table-prefix (POSTRIDER_TABLE_PREFIX) is only for MySQL and MariaDB"));
    }
    Ok((scheme, url))
}

#[cfg(feature = "postgres")]
fn pg_schema(args: &OutboxArgs) -> &str {
    args.schema.as_deref().unwrap_or(postrider::PgStore::DEFAULT_SCHEMA)
}

#[cfg(feature = "mysql")]
fn table_prefix(args: &OutboxArgs) -> &str {
    args.table_prefix.as_deref().unwrap_or(postrider::MySqlStore::DEFAULT_TABLE_PREFIX)
}

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
fn usage_error(error: postrider::StoreError) -> CliError {
    CliError::usage(error.to_string())
}

/// The SQL statements that create the outbox's tables, or upgrade those of a version.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(unused_variables, reason = "without a store, there are no statements")
)]
pub(crate) fn schema(args: &OutboxArgs, from: u32) -> Result<String, CliError> {
    let (scheme, _) = scheme(args)?;
    match scheme.feature {
        #[cfg(feature = "sqlite")]
        "sqlite" => postrider::SqliteStore::schema_from(from).map_err(usage_error),
        #[cfg(feature = "postgres")]
        "postgres" => postrider::PgStore::schema_from(pg_schema(args), from).map_err(usage_error),
        #[cfg(feature = "mysql")]
        "mysql" => postrider::MySqlStore::schema_from(table_prefix(args), from).map_err(usage_error),
        _ => Err(scheme.missing_feature()),
    }
}

/// How long a command waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcquireTimeout {
    /// Short: somebody waits for the command, or for a page that it serves.
    Command,
    /// Long: connections that are all busy for some seconds must not count as an outage of the database.
    Relay,
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl AcquireTimeout {
    /// The pool's time limit for a connection. The pool connects again and again until then, and its error does not name the cause.
    fn duration(self) -> std::time::Duration {
        match self {
            Self::Command => CONNECT_TIMEOUT,
            // The default of sqlx.
            Self::Relay => std::time::Duration::from_secs(30),
        }
    }
}

#[cfg_attr(
    not(all(feature = "sqlite", any(feature = "postgres", feature = "mysql"))),
    allow(unused_variables, reason = "only SQLite databases are files, and only a server can be out of reach")
)]
pub(crate) async fn open(
    args: &OutboxArgs,
    if_missing: IfMissing,
    timeout: AcquireTimeout,
) -> Result<Database, CliError> {
    let (scheme, url) = scheme(args)?;
    match scheme.feature {
        #[cfg(feature = "postgres")]
        "postgres" => postgres(url, args, timeout).await.map(Database::Postgres),
        #[cfg(feature = "mysql")]
        "mysql" => mysql(url, table_prefix(args), timeout).await.map(Database::MySql),
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite(url, if_missing).await.map(Database::Sqlite),
        _ => Err(scheme.missing_feature()),
    }
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str, if_missing: IfMissing) -> Result<postrider::SqliteStore, CliError> {
    use std::str::FromStr;

    use postrider::{SqliteStore, StoreError};
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};

    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| CliError::usage(format!("the database URL is not a valid SQLite URL: {error}")))?;
    let file = options.get_filename().to_owned();
    if file.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
        return Err(CliError::usage(
            "the database URL must name a file: sqlite://outbox.db, sqlite:///var/lib/app/outbox.db",
        ));
    }
    if file.is_dir() {
        return Err(CliError::runtime(format!("the database {} is a directory", file.display())));
    }
    if if_missing == IfMissing::Refuse && !file.exists() {
        return Err(CliError::runtime(format!(
            "the database {} does not exist: run `postrider migrate` first",
            file.display()
        )));
    }
    // Overrides `mode=rwc` of the URL: only `migrate` creates the file.
    let options = options.create_if_missing(if_missing == IfMissing::Create).synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(|error| {
        CliError::runtime(format!("the database {} cannot be opened: {}", file.display(), StoreError::from(error)))
    })?;
    Ok(SqliteStore::new(pool))
}

/// The time limit for a connection to the server. sqlx has none for a server that accepts the connection and does not answer.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn connect<T>(
    connecting: impl Future<Output = Result<T, sqlx::Error>>,
    describe: impl FnOnce(sqlx::Error) -> String,
) -> Result<T, CliError> {
    let why = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => describe(error),
        Err(_) => format!("the server did not answer within {} s", CONNECT_TIMEOUT.as_secs()),
    };
    Err(CliError::runtime(format!("the database cannot be opened: {why}")))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str, args: &OutboxArgs, timeout: AcquireTimeout) -> Result<postrider::PgStore, CliError> {
    use std::str::FromStr;

    use postrider::{PgStore, StoreError};
    use sqlx::postgres::PgConnectOptions;
    use sqlx::{ConnectOptions, Connection};

    let options = PgConnectOptions::from_str(url)
        .map_err(|_| {
            CliError::usage("the database URL is not a PostgreSQL URL: postgres://user:password@host:5432/database")
        })?
        .application_name("postrider");
    // The first connection is made without the pool: the pool would retry for a while, and its error would not name the cause.
    let connection = connect(options.connect(), |error| StoreError::from(error).to_string()).await?;
    // The server sees the end of the connection even if this close fails.
    let _ = tokio::time::timeout(CONNECT_TIMEOUT, connection.close()).await;
    let pool = pg_pool(options, timeout);
    let store = PgStore::in_schema(pool, pg_schema(args)).map_err(usage_error)?;
    Ok(if args.pgbouncer { store.without_prepared_statements().without_listen() } else { store })
}

#[cfg(feature = "postgres")]
fn pg_pool(options: sqlx::postgres::PgConnectOptions, timeout: AcquireTimeout) -> sqlx::PgPool {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8);
    pool.acquire_timeout(timeout.duration()).connect_lazy_with(options)
}

#[cfg(feature = "mysql")]
fn mysql_pool(options: sqlx::mysql::MySqlConnectOptions, timeout: AcquireTimeout) -> sqlx::MySqlPool {
    let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(8);
    pool.acquire_timeout(timeout.duration()).connect_lazy_with(options)
}

#[cfg(feature = "mysql")]
async fn mysql(url: &str, prefix: &str, timeout: AcquireTimeout) -> Result<postrider::MySqlStore, CliError> {
    use std::str::FromStr;

    use postrider::{MySqlStore, StoreError};
    use sqlx::mysql::MySqlConnectOptions;
    use sqlx::{ConnectOptions, Connection};

    let options = MySqlConnectOptions::from_str(url).map_err(|_| {
        CliError::usage("the database URL is not a MySQL URL: mysql://user:password@host:3306/database")
    })?;
    let describe = |error| match needs_tls(&error) {
        true => {
            "the server accepts this user's password only through TLS; the URL disables TLS, or the server has none"
                .to_owned()
        }
        false => StoreError::from(error).to_string(),
    };
    // The first connection is made without the pool: the pool would retry for a while, and its error would not name the cause.
    let connection = connect(options.connect(), describe).await?;
    // The server sees the end of the connection even if this close fails.
    let _ = tokio::time::timeout(CONNECT_TIMEOUT, connection.close()).await;
    let pool = mysql_pool(options, timeout);
    MySqlStore::with_table_prefix(pool, prefix).map_err(usage_error)
}

/// Whether the login failed because the password cannot be sent without TLS. sqlx can encrypt it with the server's RSA key instead
/// (feature `mysql-rsa`), but it trusts any key that the server sends.
#[cfg(feature = "mysql")]
fn needs_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(why) if why.to_string().contains("mysql-rsa"))
}

#[cfg(all(test, feature = "postgres", feature = "mysql"))]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The default of sqlx, 30 s, is too long for somebody who waits for the answer of a command.
    #[tokio::test]
    async fn a_command_waits_a_few_seconds_for_a_connection_and_a_relay_longer() {
        for (timeout, limit) in [(AcquireTimeout::Command, 5), (AcquireTimeout::Relay, 30)] {
            let limit = Duration::from_secs(limit);
            assert_eq!(pg_pool(Default::default(), timeout).options().get_acquire_timeout(), limit);
            assert_eq!(mysql_pool(Default::default(), timeout).options().get_acquire_timeout(), limit);
        }
    }
}
