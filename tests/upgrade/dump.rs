//! Dumps by the servers' own tools.

use std::process::Command;

/// The tables in an order in which they can be loaded.
const TABLES: [&str; 9] =
    ["blobs", "deliveries", "body_blobs", "recipients", "queue", "ended", "attempts", "totals", "hourly"];

/// Runs a tool, and returns the statements of its output.
fn statements(tool: &str, args: &[&str]) -> String {
    let output = Command::new(tool).args(args).output().unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let other = ["--", "/*", "\\", "SET ", "SELECT ", "PRAGMA ", "BEGIN", "COMMIT"];
    let lines = text.lines().filter(|line| !line.is_empty() && !other.iter().any(|other| line.starts_with(other)));
    lines.map(|line| format!("{line}\n")).collect()
}

pub(crate) fn sqlite(options: &sqlx::sqlite::SqliteConnectOptions) -> String {
    let file = options.get_filename().to_str().unwrap().to_owned();
    let dump = |table| statements("sqlite3", &[&file, &format!(".dump --data-only postrider_{table}")]);
    TABLES.into_iter().map(dump).collect()
}

#[cfg(feature = "postgres")]
pub(crate) fn postgres(url: &str, schema: &str) -> String {
    let dump = statements("pg_dump", &["--data-only", "--column-inserts", "--no-owner", "--schema", schema, url]);
    let ours = dump.replace(&format!("INSERT INTO {schema}."), "INSERT INTO postrider.");
    ours.split_inclusive('\n').filter(|line| !line.contains("INSERT INTO postrider.migrations ")).collect()
}

#[cfg(feature = "mysql")]
pub(crate) fn mysql(options: &sqlx::mysql::MySqlConnectOptions, prefix: &str) -> String {
    let (host, port) = (options.get_host(), options.get_port().to_string());
    let dump = |table| {
        let arguments = ["--no-create-info", "--complete-insert", "--hex-blob", "--skip-triggers", "--compact"];
        let connection = ["--host", host, "--port", &port, "--user", options.get_username()];
        let table = format!("{prefix}{table}");
        let what = [options.get_database().unwrap(), &table];
        statements("mariadb-dump", &[&arguments[..], &connection, &what].concat()).replace(prefix, "postrider_")
    };
    TABLES.into_iter().map(dump).collect()
}
