//! Rows with unusual values from another program. Each row has one of three results: an error that names the column, a sent mail, or a dead
//! letter with a reason. None makes the view unreadable. Invariants 4, 5.

use serde_json::{Value, json};

use super::clients::{Client, Database, Session};
use super::page::statements;
use crate::smtp_server::SmtpServer;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Sent,
    Dead,
    /// The error names the column.
    Refused,
    /// The databases differ: some refuse the row, and on others it becomes a dead letter.
    RefusedOrDead,
}
use End::{Dead, Refused, RefusedOrDead, Sent};

/// The parameters of the documented insert.
const COLUMNS: [&str; 10] =
    ["id", "body", "text", "recipients", "template_id", "key", "priority", "when_in_doubt", "send_at", "expires_at"];

/// A mail with this JSON in the place of its subject.
fn with_subject(subject: &str) -> Value {
    json!(format!(r#"{{"from": "shop@example.com", "to": ["ada@example.com"], "subject": {subject}}}"#))
}

/// A mail with this JSON behind its other fields.
fn with_field(field: &str) -> Value {
    json!(format!(r#"{{"from": "shop@example.com", "to": ["ada@example.com"], {field}}}"#))
}

fn cases(database: Database) -> Vec<(&'static str, Value, End)> {
    let nested = format!("\"metadata\": {}{}", "[".repeat(200), "]".repeat(200));
    let mut cases = vec![
        ("body", with_subject("\"plain\""), Sent),
        ("body", with_subject("\"\""), Sent),
        ("body", with_subject(r#""\ud83d\ude00""#), Sent),
        ("body", with_subject("\"a\", \"subject\": \"b\""), Dead),
        ("body", with_subject("12345678901234567890123"), Dead),
        ("body", with_subject("1e400"), RefusedOrDead),
        ("body", with_subject(r#""a\ud800b""#), RefusedOrDead),
        ("body", with_subject(r#""a\udc00b""#), RefusedOrDead),
        ("body", with_subject(r#""a\u0000b""#), Dead),
        ("body", with_subject(r#""a\r\nBcc: eve@example.com""#), Dead),
        ("body", with_field(r#""tags": ["\ud800"]"#), RefusedOrDead),
        ("body", with_field(r#""tags": ["\u0000"]"#), Dead),
        ("body", with_field(r#""tags": [7, {"a": "b"}]"#), Dead),
        ("body", with_field(&nested), RefusedOrDead),
        // The text is in the column too.
        ("body", with_field(r#""text": "twice""#), Dead),
        ("body", with_field(r#""text": """#), Dead),
        ("body", json!("[]"), RefusedOrDead),
        ("body", json!("null"), RefusedOrDead),
        ("body", Value::Null, Refused),
        ("text", json!(""), Sent),
        ("text", Value::Null, Dead),
        ("recipients", json!("[]"), Refused),
        ("recipients", json!("[\"ada@example.com\",  \"ada@example.com\"]"), Sent),
        ("recipients", json!("[\"\"]"), RefusedOrDead),
        ("recipients", json!("[null]"), RefusedOrDead),
        ("recipients", json!("[[\"ada@example.com\"]]"), RefusedOrDead),
        ("recipients", json!(r#"["a\ud800@example.com"]"#), Refused),
        ("recipients", json!(r#"["ada@example.com", "a\ud800@example.com"]"#), Refused),
        ("recipients", json!(r#"["a\u0000@example.com"]"#), RefusedOrDead),
        ("recipients", json!(r#"["ada@example.com\r\nRCPT TO:<eve@example.com>"]"#), Dead),
        ("recipients", json!("[\"Ada <ada@example.com>\"]"), Dead),
        ("template_id", json!(""), Sent),
        ("key", json!(" key "), Sent),
        ("key", json!(""), Refused),
        ("priority", json!(-1), Refused),
        ("when_in_doubt", json!("RESEND"), Refused),
        ("expires_at", json!({ "time": 1_700_000_000 }), Dead),
    ];
    let id = "01A22C73-AC08-7FB2-A763-FC77197A54BA";
    cases.push(("id", json!(id), if database == Database::Sqlite { Refused } else { Sent }));
    // A time in a unit that is a thousand times smaller: a day in tens of thousands of years.
    match database {
        Database::Postgres => cases.push(("send_at", json!("20000-01-01"), Refused)),
        Database::Sqlite => cases.push(("send_at", json!(1_900_000_000_000_000_i64), Refused)),
        Database::MariaDb | Database::MySql => cases.push(("send_at", json!(1_900_000_000_000_000_000_i64), Refused)),
    }
    cases
}

fn check_unusual_rows(database: Database) {
    let session = Session::new(database, Client::Python);
    let statement = statements(session.heading(), "From a driver").remove(0);
    let cases = cases(database);
    let step = |number: usize, column: &str, value: &Value| {
        let mut values = [
            json!(format!("01a22c73-ac08-7fb2-a763-{number:012x}")),
            with_subject("\"odd\""),
            json!("Hello!"),
            json!("[\"ada@example.com\"]"),
            Value::Null,
            Value::Null,
            json!(5),
            json!("resend"),
            Value::Null,
            Value::Null,
        ];
        values[COLUMNS.iter().position(|name| *name == column).unwrap()] = value.clone();
        (statement.clone(), Some(Value::from(values.to_vec())))
    };
    let steps: Vec<_> = cases.iter().enumerate().map(|(n, (column, value, _))| step(n, column, value)).collect();
    let answers = session.run(&steps);
    let server = SmtpServer::start();
    session.tool.drain(&server.url());
    let mut accepted = 0;
    for (number, ((column, value, end), answer)) in cases.iter().zip(&answers).enumerate() {
        let found = if let Some(error) = &answer.error {
            // The servers' own errors about JSON do not name the column.
            let own = error.contains("invalid input syntax for type json") || error.contains("3157");
            assert!(
                own || error.contains(column) || answer.column.as_deref() == Some(*column),
                "{column} {value}: {error}"
            );
            Refused
        } else {
            accepted += 1;
            let id = if *column == "id" {
                value.as_str().unwrap().to_lowercase()
            } else {
                format!("01a22c73-ac08-7fb2-a763-{number:012x}")
            };
            let shown = session.tool.show(&id);
            match shown["state"].as_str().unwrap() {
                "sent" => Sent,
                "dead" => {
                    assert!(shown["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{shown}");
                    Dead
                }
                state => panic!("{column} {value}: {state}"),
            }
        };
        let expected = *end == found || (*end == RefusedOrDead && found != Sent);
        assert!(expected, "{column} {value}: {found:?}, {answer:?}");
    }
    assert_eq!(session.tool.list(&["--limit", "100"]).len(), accepted);
    let relation = if database == Database::Postgres { "postrider.mail" } else { "postrider_mail" };
    assert_eq!(session.ok(&[format!("SELECT * FROM {relation}")])[0].rows.len(), accepted);
}

#[test]
#[ignore = "needs PostgreSQL and the drivers: run scripts/test"]
fn unusual_rows_are_refused_sent_or_dead_on_postgres() {
    check_unusual_rows(Database::Postgres);
}

#[test]
#[ignore = "needs MariaDB and the drivers: run scripts/test"]
fn unusual_rows_are_refused_sent_or_dead_on_mariadb() {
    check_unusual_rows(Database::MariaDb);
}

#[test]
#[ignore = "needs MySQL and the drivers: run scripts/test"]
fn unusual_rows_are_refused_sent_or_dead_on_mysql() {
    check_unusual_rows(Database::MySql);
}

#[test]
#[ignore = "needs the drivers: run scripts/test"]
fn unusual_rows_are_refused_sent_or_dead_on_sqlite() {
    check_unusual_rows(Database::Sqlite);
}
