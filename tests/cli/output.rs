//! The tool's output for scripts and for people.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until};

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

fn assert_has_keys(object: &Value, wanted: &[&str]) {
    let keys = keys(object);
    for key in wanted {
        assert!(keys.contains(key), "{key} is missing in {object}");
    }
}

/// RFC 3339, in UTC, with milliseconds.
fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    let form = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    form == "0000-00-00T00:00:00.000Z"
}

#[test]
fn json_output_has_the_documented_keys() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Recipient("bob@example.com") => Answer::Refuse("550 5.1.1 no"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let dead = tool.enqueue(&["--template-id", "welcome"]);
    let summary = tool.drain(&server.url());
    assert_has_keys(&summary, &["sent", "retried", "dead", "in_doubt", "released", "lease_lost", "paused"]);
    let pending = tool.enqueue(&[]);

    let shown = tool.show(&dead);
    assert_has_keys(&shown, &["id", "state", "template_id", "created_at", "due_at", "recipients", "attempts"]);
    assert_has_keys(&shown["recipients"][0], &["address", "state", "reply"]);
    let attempt = &shown["attempts"][0];
    assert_has_keys(
        attempt,
        &["number", "cycle", "started_at", "finished_at", "outcome", "error", "reply", "provider_id"],
    );
    assert_eq!(attempt["transport"], "smtp");
    assert_eq!((&shown["id"], &shown["template_id"]), (&json!(dead), &json!("welcome")));
    assert_eq!(shown["due_at"], json!(null), "a dead delivery is not due");
    assert_eq!(
        (&attempt["number"], &attempt["cycle"], &attempt["outcome"]),
        (&json!(1), &json!(1), &json!("permanent"))
    );
    assert!(attempt["error"].as_str().unwrap().contains("550"));
    for time in [&shown["created_at"], &attempt["started_at"], &attempt["finished_at"], &tool.show(&pending)["due_at"]]
    {
        assert!(is_time(time), "{time}");
    }

    let listed = tool.list(&[]);
    assert_eq!(listed.len(), 2);
    for line in &listed {
        assert_has_keys(line, &["id", "state", "attempts", "due_at", "last_error"]);
    }
    assert_eq!((&listed[0]["state"], &listed[0]["attempts"]), (&json!("dead"), &json!(1)));
    assert!(listed[0]["last_error"].as_str().unwrap().contains("550"));
    assert_eq!((&listed[1]["last_error"], &listed[1]["attempts"]), (&json!(null), &json!(0)));

    let stats = tool.stats();
    assert_has_keys(&stats, &["pending", "leased", "sent", "dead", "in_doubt", "cancelled", "oldest_due_s", "relays"]);
    assert_eq!((&stats["pending"], &stats["dead"], &stats["sent"]), (&json!(1), &json!(1), &json!(0)));
    assert!(stats["oldest_due_s"].is_number());
}

#[test]
fn the_trace_context_and_the_host_of_a_relay_are_shown() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-00";
    let id = tool.enqueue(&["--traceparent", header]);
    assert_eq!(tool.show(&id)["traceparent"], header);
    assert!(tool.ok(&["show", &id]).contains(&format!("\ntrace       {header}\n")));
    let plain = tool.enqueue(&[]);
    assert_eq!(tool.show(&plain)["traceparent"], json!(null));
    assert!(!tool.ok(&["show", &plain]).contains("trace"));
    let wrong = tool.run(&[
        "enqueue",
        "--from",
        "a@example.com",
        "--to",
        "b@example.com",
        "--text",
        "x",
        "--traceparent",
        "00-1",
    ]);
    assert!(wrong.code == 2 && wrong.stderr.contains("fewer than 55"), "{}", wrong.stderr);

    let relay = tool.start(&["work", "--transport", &server.url()]);
    wait_until("the relay is listed", || tool.stats()["relays"].as_array().unwrap().len() == 1);
    // The name by the system's own tool.
    let host = std::process::Command::new("uname").arg("-n").output().unwrap().stdout;
    let host = String::from_utf8(host).unwrap().trim().to_owned();
    assert_eq!(tool.stats()["relays"][0]["host"], host);
    assert!(tool.ok(&["stats"]).contains(&format!(" on {host}  seen ")));
    relay.signal("TERM");
    assert_eq!(relay.wait().code, 0);
}

#[test]
fn text_output_escapes_control_characters() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Content => Answer::Refuse("552 5.3.4 \x1b[2Jgone \x07"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let id = tool.enqueue(&["--subject", "x"]);
    assert_eq!(tool.drain(&server.url())["dead"], 1);
    let table = tool.ok(&["list"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines.len() == 2, "{table}");
    assert!(lines[1].starts_with(&id) && lines[1].contains("dead") && lines[1].contains("552"), "{table}");
    let shown = tool.ok(&["show", &id]);
    assert!(shown.contains("gone"));
    assert!(shown.lines().any(|line| line.trim() == "transport: smtp"), "{shown}");
    assert!(!table.contains(['\x1b', '\x07']) && !shown.contains(['\x1b', '\x07']));
    assert!(tool.ok(&["stats"]).lines().any(|line| line.split_whitespace().eq(["dead", "1"])));
}

#[test]
fn a_closed_output_is_not_an_error() {
    let tool = Tool::new();
    tool.ok(&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "2000"]);
    for args in [&["list"][..], &["list", "--json"], &["stats"], &["--help"], &["migrate", "--print"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(args)
            .current_dir(tool.directory())
            .env("DATABASE_URL", "sqlite://outbox.db")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", output.status);
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_printed_statements_create_the_tables() {
    let tool = Tool::without_tables();
    let statements = tool.ok(&["migrate", "--print"]);
    assert_eq!(tool.ok(&["migrate", "--print", "--from", "0"]), statements);
    let from_1 = tool.ok(&["migrate", "--print", "--from", "1"]);
    assert!(from_1.contains("postrider_audit") && statements.ends_with(&from_1), "{from_1}");
    let newest = statements.matches("INSERT INTO postrider_migrations (version) VALUES").count();
    let from_newest = tool.ok(&["migrate", "--print", "--from", &newest.to_string()]);
    assert!(newest >= 3 && from_newest.is_empty(), "{newest} versions: {from_newest}");
    assert!(!tool.directory().join("outbox.db").exists(), "printing creates no file");
    execute(&tool, statements);
    tool.enqueue(&[]);
    assert_eq!(tool.stats()["pending"], 1);
}

/// If a newer release has upgraded the tables, `migrate` fails, and all other commands work.
#[test]
fn a_newer_database_is_refused_by_migrate_alone() {
    let tool = Tool::new();
    execute(&tool, "INSERT INTO postrider_migrations (version) VALUES (98), (99)".to_owned());
    let output = tool.run(&["migrate"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("version 99") && output.stderr.contains("a newer release"), "{}", output.stderr);
    tool.enqueue(&[]);
    assert_eq!(tool.stats()["pending"], 1);
}

/// Runs statements on the tool's SQLite database.
fn execute(tool: &Tool, statements: String) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(tool.directory().join("outbox.db"));
        let pool = sqlx::SqlitePool::connect_with(options.create_if_missing(true)).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

#[test]
fn help_and_version_succeed_without_secrets() {
    let tool = Tool::without_tables();
    for args in [&["--help"][..], &["-h"], &["--version"], &["work", "--help"], &["help", "enqueue"]] {
        let output = tool
            .run_with_env(&[("TRANSPORT_URL", "smtp://ada:h0rse@localhost"), ("DATABASE_URL", "x://a:h0rse@h")], args);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}");
        assert!(!output.stdout.is_empty() && !output.stdout.contains("h0rse"), "{args:?}");
    }
    assert!(tool.ok(&["--help"]).contains("3  the transport is paused"), "the help has no exit codes");
}
