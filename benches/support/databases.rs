//! New databases on the servers that `scripts/bench` starts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postrider::{AdminStore as _, DeliveryId, MySqlStore, PgStore, SqliteStore};
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tempfile::TempDir;

/// A variable that `scripts/bench` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        eprintln!("{name} is not set: run scripts/bench");
        std::process::exit(2)
    })
}

fn fresh_name() -> String {
    format!("b_{}", DeliveryId::new().as_uuid().simple())
}

/// The database that this benchmark created last. It is unused when the next one is created.
type Last = Mutex<Option<String>>;

static ON_POSTGRES: Last = Mutex::new(None);
static ON_MARIADB: Last = Mutex::new(None);

/// Returns a new name, and that of the last database, to be dropped: a million mails take more than a GiB.
fn next(last: &Last) -> (String, Option<String>) {
    let name = fresh_name();
    let old = last.lock().unwrap_or_else(PoisonError::into_inner).replace(name.clone());
    (name, old)
}

/// A pool of this many connections to a new database on PostgreSQL.
pub(crate) async fn postgres(connections: u32) -> PgPool {
    let url = variable("POSTRIDER_TEST_PG_URL");
    let (name, old) = next(&ON_POSTGRES);
    let admin = PgPoolOptions::new().max_connections(1).connect(&url).await.expect("PostgreSQL answers");
    if let Some(old) = old {
        let text = format!("DROP DATABASE {old} WITH (FORCE)");
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&admin).await.expect("DROP DATABASE works");
    }
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.expect("a database");
    sqlx::query("CHECKPOINT").execute(&admin).await.expect("a checkpoint");
    admin.close().await;
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    let options = PgPoolOptions::new().min_connections(connections).max_connections(connections);
    options.connect(&format!("{server}/{name}")).await.expect("PostgreSQL answers")
}

/// The outbox's tables in a new database.
pub(crate) async fn pg_store(connections: u32) -> PgStore {
    let store = PgStore::new(postgres(connections).await);
    store.migrate().await.expect("the tables can be made");
    store
}

/// A pool of this many connections to a new database on MariaDB.
pub(crate) async fn mysql(connections: u32) -> MySqlPool {
    let url = variable("POSTRIDER_TEST_MARIADB_URL");
    let (name, old) = next(&ON_MARIADB);
    let admin = MySqlPoolOptions::new().max_connections(1).connect(&url).await.expect("MariaDB answers");
    if let Some(old) = old {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {old}")))
            .execute(&admin)
            .await
            .expect("DROP DATABASE works");
    }
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.expect("a database");
    admin.close().await;
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    let options = MySqlPoolOptions::new().min_connections(connections).max_connections(connections);
    options.connect(&format!("{server}/{name}")).await.expect("MariaDB answers")
}

/// The outbox's tables in a new database.
pub(crate) async fn mysql_store(connections: u32) -> MySqlStore {
    let store = MySqlStore::new(mysql(connections).await);
    store.migrate().await.expect("the tables can be made");
    store
}

/// Does at once what the server does after a while: purges deleted rows, writes changed pages, also those of earlier benchmarks, and
/// analyzes the tables.
pub(crate) async fn quiesce_mysql(pool: &MySqlPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let run = async |connection: &mut MySqlConnection, text: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(connection).await.expect("the statement works");
    };
    // The first statement waits until everything is purged.
    for text in ["SET GLOBAL innodb_max_purge_lag_wait = 0", "SET GLOBAL innodb_max_dirty_pages_pct = 0"] {
        run(&mut connection, text.to_owned()).await;
    }
    let text = "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'";
    let dirty = async |connection: &mut MySqlConnection| {
        let row: (String, String) = sqlx::query_as(text).fetch_one(connection).await.expect("a count");
        row.1.parse::<u32>().expect("a number")
    };
    while dirty(&mut connection).await > 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run(&mut connection, "SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT".to_owned()).await;
    let text = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";
    let tables: Vec<String> = sqlx::query_scalar(text).fetch_all(&mut *connection).await.expect("a list");
    if !tables.is_empty() {
        run(&mut connection, format!("ANALYZE TABLE {}", tables.join(", "))).await;
    }
}

/// A new file, in WAL mode and with every commit flushed. It lives as long as the directory.
pub(crate) async fn sqlite(connections: u32) -> (SqlitePool, TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("outbox.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options).await.expect("a database");
    (pool, directory)
}

/// The outbox's tables in a new file.
pub(crate) async fn sqlite_store(connections: u32) -> (SqliteStore, TempDir) {
    let (pool, directory) = sqlite(connections).await;
    let store = SqliteStore::new(pool);
    store.migrate().await.expect("the tables can be made");
    (store, directory)
}

/// Enqueues mails with one SQL statement.
pub(crate) async fn fill_by_sql(store: &PgStore, count: usize, due: &'static str) {
    let mail = postrider::Message::encode(&super::mail(0)).expect("a mail");
    let text = format!(
        "INSERT INTO postrider.outbox (format, body, text, recipients, send_at)
         SELECT 'email/1', $1, $2, '[\"customer-0@example.org\"]', {due} FROM generate_series(1, {count})"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(mail.body).bind(mail.text);
    query.execute(store.pool()).await.expect("the mails are enqueued");
}

/// Analyzes the tables, and moves what is in the WAL into the file.
pub(crate) async fn quiesce_sqlite(pool: &SqlitePool) {
    for text in ["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::raw_sql(text).execute(pool).await.expect("the statement works");
    }
}

/// Does at once what autovacuum does after a while.
pub(crate) async fn quiesce_postgres(store: &PgStore) {
    for text in ["VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::query(text).execute(store.pool()).await.expect("the statement works");
    }
}
