//! Opening the database that a URL names, with what this build knows.

use crate::fail::Fail;
use crate::schemes::{self, Scheme};

/// A store that this build knows.
pub(crate) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(postrider::SqliteStore),
}

/// What to do when there is no database yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Refuse,
}

const SCHEMES: &[Scheme] = &[
    Scheme::new("sqlite", "sqlite", cfg!(feature = "sqlite")),
    Scheme::new("postgres", "postgres", false),
    Scheme::new("postgresql", "postgres", false),
    Scheme::new("mysql", "mysql", false),
    Scheme::new("mariadb", "mysql", false),
];

fn scheme(url: Option<&str>) -> Result<(&'static Scheme, &str), Fail> {
    schemes::find("database", "--database URL, or set DATABASE_URL", SCHEMES, url)
}

/// The statements that make the tables.
pub(crate) fn schema(url: Option<&str>) -> Result<&'static str, Fail> {
    let (scheme, _) = scheme(url)?;
    match scheme.feature {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(postrider::SqliteStore::schema()),
        _ => Err(scheme.lacking()),
    }
}

#[cfg_attr(not(feature = "sqlite"), allow(unused_variables, reason = "there is nothing to open"))]
pub(crate) async fn open(url: Option<&str>, missing: Missing) -> Result<Database, Fail> {
    let (scheme, url) = scheme(url)?;
    match scheme.feature {
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
