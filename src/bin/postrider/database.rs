//! Opening the database that a URL names, with what this build knows.

use crate::args::Which;
use crate::fail::Fail;
use crate::schemes::{self, Scheme};

/// A store that this build knows.
pub(crate) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(postrider::SqliteStore),
    #[cfg(feature = "postgres")]
    Postgres(postrider::PgStore),
    #[cfg(feature = "mysql")]
    MySql(postrider::MySqlStore),
}

/// What to do when there is no database yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
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

/// The scheme and the URL, provided that whatever else says which outbox goes with them: an option that was passed over would leave
/// the operator with another outbox than the one that was asked for.
fn scheme(which: &Which) -> Result<(&'static Scheme, &str), Fail> {
    let found = schemes::find("database", "--database URL, or set DATABASE_URL", SCHEMES, which.database.as_deref())?;
    let feature = found.0.feature;
    if which.schema.is_some() && feature != "postgres" {
        return Err(Fail::usage("--schema, or POSTRIDER_SCHEMA, is for PostgreSQL, and the database is none"));
    }
    if which.pgbouncer && feature != "postgres" {
        return Err(Fail::usage("--pgbouncer, or POSTRIDER_PGBOUNCER, is for PostgreSQL, and the database is none"));
    }
    if which.table_prefix.is_some() && feature != "mysql" {
        let line = "--table-prefix, or POSTRIDER_TABLE_PREFIX, is for MySQL and MariaDB, and the database is none";
        return Err(Fail::usage(line));
    }
    Ok(found)
}

#[cfg(feature = "postgres")]
fn pg_schema(which: &Which) -> &str {
    which.schema.as_deref().unwrap_or(postrider::PgStore::DEFAULT_SCHEMA)
}

#[cfg(feature = "mysql")]
fn table_prefix(which: &Which) -> &str {
    which.table_prefix.as_deref().unwrap_or(postrider::MySqlStore::DEFAULT_TABLE_PREFIX)
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn misnamed(error: postrider::StoreError) -> Fail {
    Fail::usage(error.to_string())
}

/// The statements that make the tables.
pub(crate) fn schema(which: &Which) -> Result<String, Fail> {
    let (scheme, _) = scheme(which)?;
    match scheme.feature {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(postrider::SqliteStore::schema()),
        #[cfg(feature = "postgres")]
        "postgres" => postrider::PgStore::schema(pg_schema(which)).map_err(misnamed),
        #[cfg(feature = "mysql")]
        "mysql" => postrider::MySqlStore::schema(table_prefix(which)).map_err(misnamed),
        _ => Err(scheme.lacking()),
    }
}

#[cfg_attr(not(feature = "sqlite"), allow(unused_variables, reason = "only SQLite's databases are files"))]
pub(crate) async fn open(which: &Which, missing: Missing) -> Result<Database, Fail> {
    let (scheme, url) = scheme(which)?;
    match scheme.feature {
        #[cfg(feature = "postgres")]
        "postgres" => postgres(url, which).await.map(Database::Postgres),
        #[cfg(feature = "mysql")]
        "mysql" => mysql(url, table_prefix(which)).await.map(Database::MySql),
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite(url, missing).await.map(Database::Sqlite),
        _ => Err(scheme.lacking()),
    }
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str, missing: Missing) -> Result<postrider::SqliteStore, Fail> {
    use std::str::FromStr;

    use postrider::{SqliteStore, StoreError};
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};

    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| Fail::usage(format!("the database's URL is no SQLite URL: {error}")))?;
    let file = options.get_filename().to_owned();
    if file.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
        return Err(Fail::usage(
            "the database's URL must name a file: sqlite://outbox.db, sqlite:///var/lib/app/outbox.db",
        ));
    }
    if file.is_dir() {
        return Err(Fail::runtime(format!("the database {} is a directory", file.display())));
    }
    if missing == Missing::Refuse && !file.exists() {
        return Err(Fail::runtime(format!(
            "the database {} does not exist: run `postrider migrate` first",
            file.display()
        )));
    }
    // Whatever the URL says: only one command makes files.
    let options = options.create_if_missing(missing == Missing::Create).synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(|error| {
        Fail::runtime(format!("the database {} cannot be opened: {}", file.display(), StoreError::from(error)))
    })?;
    Ok(SqliteStore::new(pool))
}

/// How long a server may take until it can be asked. One that takes the connection and says nothing would be waited for without end.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const CONNECT: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn in_time<T>(
    connecting: impl Future<Output = Result<T, sqlx::Error>>,
    why: impl FnOnce(sqlx::Error) -> String,
) -> Result<T, Fail> {
    let why = match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => why(error),
        Err(_) => format!("it took the connection, and has said nothing for {} s", CONNECT.as_secs()),
    };
    Err(Fail::runtime(format!("the database cannot be opened: {why}")))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str, which: &Which) -> Result<postrider::PgStore, Fail> {
    use std::str::FromStr;

    use postrider::PgStore;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use sqlx::{ConnectOptions, Connection};

    let options = PgConnectOptions::from_str(url)
        .map_err(|_| {
            Fail::usage("the database's URL is no PostgreSQL URL: postgres://user:password@host:5432/database")
        })?
        .application_name("postrider");
    // Once without the pool, which would go on trying for a while and then not say what is wrong.
    let first = in_time(options.connect(), |error| postrider::StoreError::from(error).to_string()).await?;
    // Whether or not the server hears of it, it sees that the connection ends.
    let _ = tokio::time::timeout(CONNECT, first.close()).await;
    let pool = PgPoolOptions::new().max_connections(8).connect_lazy_with(options);
    let store = PgStore::in_schema(pool, pg_schema(which)).map_err(misnamed)?;
    Ok(if which.pgbouncer { store.without_prepared_statements().without_listen() } else { store })
}

#[cfg(feature = "mysql")]
async fn mysql(url: &str, prefix: &str) -> Result<postrider::MySqlStore, Fail> {
    use std::str::FromStr;

    use postrider::{MySqlStore, StoreError};
    use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
    use sqlx::{ConnectOptions, Connection};

    let options = MySqlConnectOptions::from_str(url)
        .map_err(|_| Fail::usage("the database's URL is no MySQL URL: mysql://user:password@host:3306/database"))?;
    let why = |error| {
        match wants_tls(&error) {
        true => "the server takes this user's password only through TLS, which the URL turns off or the server does not have"
            .to_owned(),
        false => StoreError::from(error).to_string(),
    }
    };
    // Once without the pool, which would go on trying for a while and then not say what is wrong.
    let first = in_time(options.connect(), why).await?;
    // Whether or not the server hears of it, it sees that the connection ends.
    let _ = tokio::time::timeout(CONNECT, first.close()).await;
    let pool = MySqlPoolOptions::new().max_connections(8).connect_lazy_with(options);
    MySqlStore::with_table_prefix(pool, prefix).map_err(misnamed)
}

/// Whether the login failed because a password cannot be sent without TLS. The way without it, which the driver has behind a feature of
/// its own, trusts whatever key the other side sends.
#[cfg(feature = "mysql")]
fn wants_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(why) if why.to_string().contains("mysql-rsa"))
}
