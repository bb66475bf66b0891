//! Programs that run SQL: command-line clients, and drivers of other languages.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::database_servers::{MySqlServer, env_var, pg_url};
use crate::tool::Tool;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Database {
    Postgres,
    MariaDb,
    MySql,
    Sqlite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// `psql`, `mariadb`, `mysql` or `sqlite3`.
    CommandLine,
    /// psycopg, PyMySQL or the standard library's sqlite3.
    Python,
    /// pg, mysql2 or node-sqlite3-wasm.
    Node,
}

/// An outbox without mail, and a client of its database.
pub(super) struct Session {
    pub(super) tool: Tool,
    pub(super) database: Database,
    pub(super) client: Client,
    /// The schema in PostgreSQL, the tables' prefix in MySQL and MariaDB.
    name: String,
}

/// What a client answers to one statement.
#[derive(Debug)]
pub(super) struct Answer {
    /// The rows, as texts. A command-line client returns one row with its output as the column `output`.
    pub(super) rows: Vec<BTreeMap<String, Option<String>>>,
    pub(super) error: Option<String>,
    /// The column that the error names in a field of its own.
    pub(super) column: Option<String>,
}

impl Session {
    pub(super) fn new(database: Database, client: Client) -> Self {
        let (tool, name) = match database {
            Database::Sqlite => (Tool::without_tables(), "postrider_".to_owned()),
            Database::Postgres => crate::database_servers::postgres(),
            Database::MariaDb => MySqlServer::MariaDb.tool(),
            Database::MySql => MySqlServer::MySql.tool(),
        };
        tool.ok(&["migrate"]);
        Self { tool, database, client, name }
    }

    /// The heading of the database in docs/sql.md.
    pub(super) fn heading(&self) -> &'static str {
        match self.database {
            Database::Postgres => "PostgreSQL",
            Database::MariaDb | Database::MySql => "MySQL and MariaDB",
            Database::Sqlite => "SQLite",
        }
    }

    pub(super) fn user(&self) -> String {
        let digits: String = self.name.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("u{}", &digits[digits.len().saturating_sub(12)..])
    }

    /// A statement of the page with the names of this outbox, its customers and its user.
    pub(super) fn adapt(&self, statement: &str) -> String {
        let (customers, statement) = match self.database {
            Database::Postgres => (
                format!("\"{}\".customers", self.name),
                statement
                    .replace("postrider.", &format!("\"{}\".", self.name))
                    .replace("SCHEMA postrider", &format!("SCHEMA \"{}\"", self.name)),
            ),
            _ => (format!("{}customers", self.name), statement.replace("postrider_", &self.name)),
        };
        let statement = statement.replace("TO shop", &format!("TO {}", self.user()));
        ["FROM", "INTO", "TABLE"].iter().fold(statement, |statement, word| {
            statement.replace(&format!("{word} customers"), &format!("{word} {customers}"))
        })
    }

    /// Runs statements of the page that must succeed.
    pub(super) fn ok(&self, statements: &[String]) -> Vec<Answer> {
        let steps: Vec<_> = statements.iter().map(|statement| (statement.clone(), None)).collect();
        let answers = self.run(&steps);
        for (answer, statement) in answers.iter().zip(statements) {
            assert!(answer.error.is_none(), "{:?}: {statement}: {answer:?}", self.client);
        }
        answers
    }

    /// Runs statements of the page, some with parameters.
    pub(super) fn run(&self, steps: &[(String, Option<Value>)]) -> Vec<Answer> {
        let steps: Vec<_> = steps.iter().map(|(sql, parameters)| (self.adapt(sql), parameters)).collect();
        let mut command = match self.client {
            Client::CommandLine => {
                return steps.iter().map(|(sql, _)| self.command_line(sql, None)).collect();
            }
            Client::Python => {
                let mut command = Command::new(env_var("POSTRIDER_TEST_DRIVERS_PYTHON"));
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers/python/run.py"));
                command
            }
            Client::Node => {
                let mut command = Command::new("node");
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers/node/run.js"));
                command.env("NODE_PATH", env_var("POSTRIDER_TEST_DRIVERS_NODE"));
                command
            }
        };
        let (database, url) = match self.database {
            Database::Postgres => ("postgres", pg_url()),
            Database::MariaDb => ("mysql", MySqlServer::MariaDb.url()),
            Database::MySql => ("mysql", MySqlServer::MySql.url()),
            Database::Sqlite => ("sqlite", self.file()),
        };
        let steps: Vec<_> = steps.iter().map(|(sql, params)| json!({ "sql": sql, "params": params })).collect();
        let task = json!({ "database": database, "url": url, "steps": steps }).to_string();
        let (output, error) = run(&mut command, &task);
        assert_eq!(error, "", "{:?}", self.client);
        let answers: Vec<Value> = serde_json::from_str(&output).unwrap();
        answers.iter().map(Answer::new).collect()
    }

    /// Runs a statement with the command-line client, in MySQL and MariaDB as another user.
    pub(super) fn command_line(&self, sql: &str, user: Option<&str>) -> Answer {
        let mut command = match self.database {
            Database::Postgres => {
                let mut command = Command::new(format!("{}/psql", env_var("POSTRIDER_TEST_PG_BIN")));
                command.args(["--no-psqlrc", "--quiet", "--csv", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose"]);
                command.args(["--dbname", &pg_url()]);
                command
            }
            Database::MariaDb => MySqlServer::MariaDb.client(user),
            Database::MySql => MySqlServer::MySql.client(user),
            Database::Sqlite => {
                let mut command = Command::new("sqlite3");
                command.args(["-bail", "-batch", "-header", "-csv", &self.file()]);
                command
            }
        };
        let (output, error) = run(&mut command, &format!("{sql};\n"));
        let error = Some(error).filter(|error| !error.is_empty());
        Answer { rows: vec![[("output".to_owned(), Some(output))].into()], error, column: None }
    }

    fn file(&self) -> String {
        self.tool.directory().join("outbox.db").display().to_string()
    }
}

impl Answer {
    fn new(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let rows = answer["rows"].as_array().into_iter().flatten();
        let row =
            |row: &Value| row.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect();
        Self { rows: rows.map(row).collect(), error: text(&answer["error"]), column: text(&answer["column"]) }
    }

    /// The output of a command-line client.
    pub(super) fn output(&self) -> &str {
        self.rows[0]["output"].as_deref().unwrap()
    }

    /// The names of the columns, from the header that a command-line client prints.
    pub(super) fn header(&self) -> Vec<&str> {
        self.output().lines().next().unwrap_or_default().split([',', '\t']).collect()
    }
}

/// Runs a program with an input, and returns its output and its errors.
fn run(command: &mut Command, input: &str) -> (String, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}: run scripts/test"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_bytes().to_vec();
    // A program may end without reading all of its input.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ended = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.success(), errors.is_empty(), "{errors}");
    (String::from_utf8(ended.stdout).unwrap(), errors)
}
