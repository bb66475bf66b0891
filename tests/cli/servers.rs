//! Outboxes on the servers that scripts/test starts, and those servers' own command-line clients.

use std::io::Write;
use std::process::{Command, Stdio};

use postrider::DeliveryId;

use crate::tool::Tool;

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

pub(crate) fn pg_url() -> String {
    variable("POSTRIDER_TEST_PG_URL")
}

/// A name that nobody else uses.
pub(crate) fn new_name() -> String {
    format!("t{}_", DeliveryId::new().as_uuid().simple())
}

/// A tool with a PostgreSQL schema of its own, and nothing there yet.
pub(crate) fn postgres() -> (Tool, String) {
    let schema = new_name();
    (Tool::of(vec![("DATABASE_URL", pg_url()), ("POSTRIDER_SCHEMA", schema.clone())]), schema)
}

/// The same by way of PgBouncer in transaction mode, with what the manual says.
pub(crate) fn pgbouncer() -> Tool {
    let variables = [
        ("DATABASE_URL", variable("POSTRIDER_TEST_PGBOUNCER_URL")),
        ("POSTRIDER_SCHEMA", new_name()),
        ("POSTRIDER_PGBOUNCER", "1".to_owned()),
    ];
    Tool::of(variables.into())
}

/// The servers of the MySQL store.
#[derive(Clone, Copy)]
pub(crate) enum MySql {
    MariaDb,
    MySql,
}

impl MySql {
    fn variable(self, name: &str) -> String {
        let server = match self {
            Self::MariaDb => "MARIADB",
            Self::MySql => "MYSQL",
        };
        variable(&format!("POSTRIDER_TEST_{server}_{name}"))
    }

    pub(crate) fn url(self) -> String {
        self.variable("URL")
    }

    /// A tool with a prefix of its own, and nothing there yet.
    pub(crate) fn tool(self) -> (Tool, String) {
        let prefix = new_name();
        (Tool::of(vec![("DATABASE_URL", self.url()), ("POSTRIDER_TABLE_PREFIX", prefix.clone())]), prefix)
    }

    /// Runs statements by the server's own client, as [`psql`] does.
    pub(crate) fn client(self, statements: &str) -> String {
        let url = self.url();
        let (host, database) = url.strip_prefix("mysql://root@").and_then(|rest| rest.split_once('/')).unwrap();
        let (host, port) = host.split_once(':').unwrap();
        let mut command = Command::new(self.variable("CLIENT"));
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root", "--protocol=tcp"]);
        feed(command.args(["--host", host, "--port", port, database]), statements)
    }
}

/// Runs statements by psql, which knows nothing of this crate; returns what they print, a row a line.
pub(crate) fn psql(statements: &str) -> String {
    let mut command = Command::new(format!("{}/psql", variable("POSTRIDER_TEST_PG_BIN")));
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
    feed(command.args(["--dbname", &pg_url()]), statements)
}

fn feed(command: &mut Command, statements: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}
