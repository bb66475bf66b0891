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

fn scheme(which: &Which) -> Result<(&'static Scheme, &str), Fail> {
    schemes::find("database", "--database URL, or set DATABASE_URL", SCHEMES, which.database.as_deref())
}

/// The statements that make the tables.
#[cfg_attr(not(feature = "postgres"), allow(unused_variables, reason = "only PostgreSQL has schemas"))]
pub(crate) fn schema(which: &Which) -> Result<String, Fail> {
    let (scheme, _) = scheme(which)?;
    match scheme.feature {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(postrider::SqliteStore::schema()),
        #[cfg(feature = "postgres")]
        "postgres" => postrider::PgStore::schema(&which.schema).map_err(|error| Fail::usage(error.to_string())),
        #[cfg(feature = "mysql")]
        "mysql" => postrider::MySqlStore::schema(postrider::MySqlStore::DEFAULT_TABLE_PREFIX)
            .map_err(|error| Fail::usage(error.to_string())),
        _ => Err(scheme.lacking()),
    }
}

#[cfg_attr(not(feature = "sqlite"), allow(unused_variables, reason = "only SQLite's databases are files"))]
pub(crate) async fn open(which: &Which, missing: Missing) -> Result<Database, Fail> {
    let (scheme, url) = scheme(which)?;
    match scheme.feature {
        #[cfg(feature = "postgres")]
        "postgres" => postgres(url, &which.schema).await.map(Database::Postgres),
        #[cfg(feature = "mysql")]
        "mysql" => mysql(url).await.map(Database::MySql),
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

#[cfg(feature = "postgres")]
async fn postgres(url: &str, schema: &str) -> Result<postrider::PgStore, Fail> {
    use std::str::FromStr;

    use postrider::{PgStore, StoreError};
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use sqlx::{ConnectOptions, Connection};

    let options = PgConnectOptions::from_str(url)
        .map_err(|_| {
            Fail::usage("the database's URL is no PostgreSQL URL: postgres://user:password@host:5432/database")
        })?
        .application_name("postrider");
    // Once without the pool, which would go on trying for a while and then not say what is wrong.
    let first = options
        .connect()
        .await
        .map_err(|error| Fail::runtime(format!("the database cannot be opened: {}", StoreError::from(error))))?;
    // Whether or not the server hears of it, it sees that the connection ends.
    let _ = first.close().await;
    let pool = PgPoolOptions::new().max_connections(8).connect_lazy_with(options);
    PgStore::in_schema(pool, schema).map_err(|error| Fail::usage(error.to_string()))
}

#[cfg(feature = "mysql")]
async fn mysql(url: &str) -> Result<postrider::MySqlStore, Fail> {
    use std::str::FromStr;

    use postrider::{MySqlStore, StoreError};
    use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
    use sqlx::{ConnectOptions, Connection};

    let options = MySqlConnectOptions::from_str(url)
        .map_err(|_| Fail::usage("the database's URL is no MySQL URL: mysql://user:password@host:3306/database"))?;
    // Once without the pool, which would go on trying for a while and then not say what is wrong.
    let first = options
        .connect()
        .await
        .map_err(|error| Fail::runtime(format!("the database cannot be opened: {}", StoreError::from(error))))?;
    // Whether or not the server hears of it, it sees that the connection ends.
    let _ = first.close().await;
    Ok(MySqlStore::new(MySqlPoolOptions::new().max_connections(8).connect_lazy_with(options)))
}
