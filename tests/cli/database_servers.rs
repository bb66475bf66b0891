//! Outboxes on the database servers that scripts/test starts, and the command-line clients of these servers.

use std::io::Write;
use std::process::{Command, Stdio};

use postrider::DeliveryId;

use crate::tool::Tool;

pub(crate) fn env_var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

pub(crate) fn pg_url() -> String {
    env_var("POSTRIDER_TEST_PG_URL")
}

/// A unique name for a schema or a table prefix.
pub(crate) fn unique_name() -> String {
    format!("t{}_", DeliveryId::new().as_uuid().simple())
}

/// A tool with its own PostgreSQL schema, without tables, and the schema's name.
pub(crate) fn postgres() -> (Tool, String) {
    let schema = unique_name();
    (Tool::with_env(vec![("DATABASE_URL", pg_url()), ("POSTRIDER_SCHEMA", schema.clone())]), schema)
}

/// A tool with its own PostgreSQL schema, without tables, behind PgBouncer in transaction mode.
pub(crate) fn pgbouncer() -> Tool {
    let variables = [
        ("DATABASE_URL", env_var("POSTRIDER_TEST_PGBOUNCER_URL")),
        ("POSTRIDER_SCHEMA", unique_name()),
        ("POSTRIDER_PGBOUNCER", "1".to_owned()),
    ];
    Tool::with_env(variables.into())
}

/// The servers that the MySQL store supports.
#[derive(Clone, Copy)]
pub(crate) enum MySqlServer {
    MariaDb,
    MySql,
}

impl MySqlServer {
    fn variable(self, name: &str) -> String {
        let server = match self {
            Self::MariaDb => "MARIADB",
            Self::MySql => "MYSQL",
        };
        env_var(&format!("POSTRIDER_TEST_{server}_{name}"))
    }

    pub(crate) fn url(self) -> String {
        self.variable("URL")
    }

    /// A tool with its own table prefix, without tables, and the prefix.
    pub(crate) fn tool(self) -> (Tool, String) {
        let prefix = unique_name();
        (Tool::with_env(vec![("DATABASE_URL", self.url()), ("POSTRIDER_TABLE_PREFIX", prefix.clone())]), prefix)
    }

    /// The server's command-line client, as `root` or as another user. It prints columns with tabs between them.
    pub(crate) fn client(self, user: Option<&str>) -> Command {
        let url = self.url();
        let (host, database) = url.strip_prefix("mysql://root@").and_then(|rest| rest.split_once('/')).unwrap();
        let (host, port) = host.split_once(':').unwrap();
        let mut command = Command::new(self.variable("CLIENT"));
        command.args(["--no-defaults", "--batch", "--default-character-set=utf8mb4", "--protocol=tcp"]);
        command.args(["--user", user.unwrap_or("root"), "--host", host, "--port", port, database]);
        command
    }

    /// Runs SQL statements with the server's command-line client, and returns its output.
    pub(crate) fn run_sql(self, statements: &str) -> String {
        run_with_stdin(self.client(None).arg("--skip-column-names"), statements)
    }
}

/// Runs SQL statements with psql, and returns its output, one row on each line.
pub(crate) fn psql(statements: &str) -> String {
    let mut command = Command::new(format!("{}/psql", env_var("POSTRIDER_TEST_PG_BIN")));
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
    run_with_stdin(command.args(["--dbname", &pg_url()]), statements)
}

fn run_with_stdin(command: &mut Command, statements: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}
