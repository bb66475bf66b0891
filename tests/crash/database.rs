//! A new database for each test, and queries on the outbox's tables.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::runtime::Runtime;

use crate::tool::Tool;

/// The id and the token of a leased delivery.
pub(crate) type HeldLease = (String, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    MariaDb,
    MySql,
}

/// A row of the history.
pub(crate) struct Attempt {
    pub(crate) number: i64,
    pub(crate) token: i64,
    pub(crate) outcome: String,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
}

pub(crate) struct Database {
    pub(crate) kind: Kind,
    pub(crate) tool: Tool,
    pub(crate) runtime: Runtime,
    /// One connection. All others to this database are the relays'.
    pool: Pool,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// Runs the same code with each kind of pool.
macro_rules! on_pool {
    ($pool:expr, $each:ident => $what:expr) => {
        match $pool {
            $crate::database::Pool::Sqlite($each) => $what,
            $crate::database::Pool::Postgres($each) => $what,
            $crate::database::Pool::MySql($each) => $what,
        }
    };
}
pub(crate) use on_pool;

/// Runs the same code with each kind of pool and its store.
macro_rules! on_store {
    ($pool:expr, $each:ident, $store:ident => $what:expr) => {
        match $pool {
            $crate::database::Pool::Sqlite($each) => {
                let $store = postrider::SqliteStore::new($each.clone());
                $what
            }
            $crate::database::Pool::Postgres($each) => {
                let $store = postrider::PgStore::new($each.clone());
                $what
            }
            $crate::database::Pool::MySql($each) => {
                let $store = postrider::MySqlStore::new($each.clone());
                $what
            }
        }
    };
}
pub(crate) use on_store;

/// The SQL dialect of a database. In each field but `tables`, `{}` stands for a column.
struct Dialect {
    /// The prefix of the tables' names.
    tables: &'static str,
    id: &'static str,
    number: &'static str,
    /// A time in microseconds since 1970.
    micros: &'static str,
    /// The condition that selects leased rows of the queue.
    is_held: &'static str,
}

impl Kind {
    fn dialect(self) -> Dialect {
        match self {
            Self::Sqlite => {
                Dialect { tables: "postrider_", id: "{}", number: "{}", micros: "{}", is_held: "leased_at IS NOT NULL" }
            }
            Self::Postgres => Dialect {
                tables: "postrider.",
                id: "{}::text",
                number: "{}::bigint",
                micros: "(extract(epoch FROM {}) * 1000000)::bigint",
                is_held: "leased_at IS NOT NULL",
            },
            Self::MariaDb | Self::MySql => Dialect {
                tables: "postrider_",
                id: "LOWER(INSERT(INSERT(INSERT(INSERT(HEX({}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-'))",
                number: "CAST({} AS SIGNED)",
                micros: "{}",
                is_held: "leased_at <> 0",
            },
        }
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
            Self::MariaDb | Self::MySql => "START TRANSACTION",
        }
    }

    /// A variable that `scripts/test` sets for this server.
    pub(crate) fn variable(self, name: &str) -> String {
        let server = match self {
            Self::Sqlite => "SQLITE",
            Self::Postgres => "PG",
            Self::MariaDb => "MARIADB",
            Self::MySql => "MYSQL",
        };
        let name = format!("POSTRIDER_TEST_{server}_{name}");
        std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
    }
}

impl Database {
    /// A new database with an empty outbox.
    pub(crate) fn new(kind: Kind) -> Self {
        Self::of_release(kind, None)
    }

    /// A new database with an empty outbox of another release, or of this one.
    pub(crate) fn of_release(kind: Kind, binary: Option<&Path>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut tool = match kind {
            Kind::Sqlite => Tool::without_tables(),
            Kind::Postgres | Kind::MariaDb | Kind::MySql => {
                Tool::with_env(vec![("DATABASE_URL", runtime.block_on(create(kind)))])
            }
        };
        if let Some(binary) = binary {
            tool.use_binary(binary);
        }
        tool.ok(&["migrate"]);
        let pool = runtime.block_on(address(kind, &tool).connect(1));
        Self { kind, tool, runtime, pool }
    }

    /// The address of this database, for other connections.
    pub(crate) fn address(&self) -> Address {
        address(self.kind, &self.tool)
    }

    /// The leases that running and dead relays hold.
    pub(crate) fn held(&self) -> Vec<HeldLease> {
        let Dialect { tables, id, is_held, .. } = self.kind.dialect();
        let id = id.replace("{}", "delivery_id");
        let sql = format!("SELECT {id}, token FROM {tables}queue WHERE {is_held}");
        let sql = AssertSqlSafe(sql);
        self.runtime
            .block_on(async { on_pool!(&self.pool, pool => sqlx::query_as(sql).fetch_all(pool).await.unwrap()) })
    }

    /// Runs a statement. In it, `{t}` stands for the tables' prefix.
    pub(crate) fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.replace("{t}", self.kind.dialect().tables));
        self.runtime
            .block_on(async { on_pool!(&self.pool, pool => drop(sqlx::raw_sql(sql).execute(pool).await.unwrap())) });
    }

    /// Reads rows of ids, keys and addresses.
    pub(crate) fn rows(&self, sql: &str) -> Vec<(String, Option<String>, String)> {
        let sql = AssertSqlSafe(sql.to_owned());
        self.runtime
            .block_on(async { on_pool!(&self.pool, pool => sqlx::query_as(sql).fetch_all(pool).await.unwrap()) })
    }

    /// Counts the rows of a table of the outbox that meet a condition. In the condition, `{t}` stands for the tables' prefix.
    pub(crate) fn count(&self, table: &str, condition: &str) -> i64 {
        let tables = self.kind.dialect().tables;
        let condition = condition.replace("{t}", tables);
        let sql = AssertSqlSafe(format!("SELECT COUNT(*) FROM {tables}{table} t WHERE {condition}"));
        self.runtime
            .block_on(async { on_pool!(&self.pool, pool => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()) })
    }

    /// Counts the rows with messages.
    pub(crate) fn count_bodies(&self) -> i64 {
        match self.kind {
            Kind::Postgres => self.count("bodies", "true"),
            Kind::Sqlite | Kind::MariaDb | Kind::MySql => self.count("deliveries", "body IS NOT NULL"),
        }
    }

    /// The ids of all deliveries.
    pub(crate) fn deliveries(&self) -> HashSet<String> {
        let Dialect { tables, id, .. } = self.kind.dialect();
        let sql = AssertSqlSafe(format!("SELECT {} FROM {tables}deliveries", id.replace("{}", "id")));
        let ids: Vec<String> = self
            .runtime
            .block_on(async { on_pool!(&self.pool, pool => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()) });
        ids.into_iter().collect()
    }

    /// The attempts of each delivery, in order.
    pub(crate) fn history(&self) -> HashMap<String, Vec<Attempt>> {
        let Dialect { tables, id, number, micros, .. } = self.kind.dialect();
        let (id, number) = (id.replace("{}", "delivery_id"), number.replace("{}", "number"));
        let (started_at, finished_at) = (micros.replace("{}", "started_at"), micros.replace("{}", "finished_at"));
        let sql = format!(
            "SELECT {id}, {number}, token, outcome, {started_at}, {finished_at}
             FROM {tables}attempts ORDER BY delivery_id, number"
        );
        let sql = AssertSqlSafe(sql);
        let rows: Vec<(String, i64, i64, String, i64, i64)> = self
            .runtime
            .block_on(async { on_pool!(&self.pool, pool => sqlx::query_as(sql).fetch_all(pool).await.unwrap()) });
        let mut history: HashMap<String, Vec<Attempt>> = HashMap::new();
        for (id, number, token, outcome, started_at, finished_at) in rows {
            history.entry(id).or_default().push(Attempt { number, token, outcome, started_at, finished_at });
        }
        history
    }

    /// The server's ids of the relays' connections.
    pub(crate) fn connections(&self) -> Vec<i64> {
        let sql = match self.kind {
            Kind::Sqlite => return Vec::new(),
            Kind::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity
                 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            }
            Kind::MariaDb => {
                "SELECT CAST(id AS SIGNED) FROM information_schema.processlist
                 WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            }
            // MySQL fails to read its PROCESSLIST while the list contains a statement with binary text (error 3854).
            Kind::MySql => {
                "SELECT CAST(processlist_id AS SIGNED) FROM performance_schema.threads
                 WHERE processlist_db = DATABASE() AND processlist_id <> CONNECTION_ID()"
            }
        };
        self.runtime
            .block_on(async { on_pool!(&self.pool, pool => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()) })
    }

    /// Ends connections on the server.
    pub(crate) fn kill_connections(&self, connections: &[i64]) {
        for id in connections {
            let sql = match self.kind {
                Kind::Sqlite => return,
                Kind::Postgres => format!("SELECT pg_terminate_backend({id})"),
                Kind::MariaDb | Kind::MySql => format!("KILL {id}"),
            };
            let sql = AssertSqlSafe(sql);
            // A connection may have ended by itself.
            self.runtime.block_on(async { on_pool!(&self.pool, pool => drop(sqlx::raw_sql(sql).execute(pool).await)) });
        }
    }
}

impl Drop for Database {
    /// Drops the database: a server that restarts after a crash reads the files of all its databases.
    fn drop(&mut self) {
        let Some((server, name)) = self.tool.database_url().rsplit_once('/').filter(|_| self.kind != Kind::Sqlite)
        else {
            return;
        };
        let options = if self.kind == Kind::Postgres { " WITH (FORCE)" } else { "" };
        let sql = format!("DROP DATABASE {name}{options}");
        let database = if self.kind == Kind::Postgres { "postgres" } else { "postrider" };
        let address = Address { kind: self.kind, url: format!("{server}/{database}") };
        // After a failed test the server may be down.
        let _ = self.runtime.block_on(async { address.run(&sql).await });
    }
}

/// Creates a database and returns its URL.
async fn create(kind: Kind) -> String {
    let server = Address { kind, url: kind.variable("URL") };
    let name = format!("t_{}", postrider::DeliveryId::new().as_uuid().simple());
    server.run(&format!("CREATE DATABASE {name}")).await.unwrap();
    format!("{}/{name}", server.url.rsplit_once('/').unwrap().0)
}

fn address(kind: Kind, tool: &Tool) -> Address {
    let url = match kind {
        Kind::Sqlite => format!("sqlite://{}", tool.directory().join("outbox.db").display()),
        Kind::Postgres | Kind::MariaDb | Kind::MySql => tool.database_url().to_owned(),
    };
    Address { kind, url }
}

pub(crate) struct Address {
    kind: Kind,
    url: String,
}

impl Address {
    /// A pool for the current runtime.
    pub(crate) async fn connect(&self, connections: u32) -> Pool {
        self.try_connect(connections).await.unwrap()
    }

    async fn try_connect(&self, connections: u32) -> Result<Pool, sqlx::Error> {
        Ok(match self.kind {
            Kind::Sqlite => {
                Pool::Sqlite(SqlitePoolOptions::new().max_connections(connections).connect(&self.url).await?)
            }
            Kind::Postgres => {
                Pool::Postgres(PgPoolOptions::new().max_connections(connections).connect(&self.url).await?)
            }
            Kind::MariaDb | Kind::MySql => {
                Pool::MySql(MySqlPoolOptions::new().max_connections(connections).connect(&self.url).await?)
            }
        })
    }

    async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_pool!(&self.try_connect(1).await?, pool => sqlx::raw_sql(sql).execute(pool).await.map(drop))
    }
}
