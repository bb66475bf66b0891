//! Every command on each database server.

use serde_json::json;

use crate::database_servers::{MySqlServer, pg_url, pgbouncer, postgres, unique_name};
use crate::operators::operators_act;
use crate::search::{
    a_list_shows_who_did_not_get_a_mail, a_relay_deletes_what_is_old, deliveries_are_found_pruned_and_erased,
};
use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until};

/// Generates each test for each server.
macro_rules! on_each_server {
    ($($test:ident),* $(,)?) => {
        mod on_postgres {
            $(
                #[test]
                #[ignore = "needs PostgreSQL: run scripts/test"]
                fn $test() {
                    super::$test(super::postgres().0);
                }
            )*
        }

        mod on_pgbouncer {
            $(
                #[test]
                #[ignore = "needs PgBouncer: run scripts/test"]
                fn $test() {
                    super::$test(super::pgbouncer());
                }
            )*
        }

        mod on_mariadb {
            $(
                #[test]
                #[ignore = "needs MariaDB: run scripts/test"]
                fn $test() {
                    super::$test(super::MySqlServer::MariaDb.tool().0);
                }
            )*
        }

        mod on_mysql {
            $(
                #[test]
                #[ignore = "needs MySQL: run scripts/test"]
                fn $test() {
                    super::$test(super::MySqlServer::MySql.tool().0);
                }
            )*
        }
    };
}

on_each_server!(
    every_command_works,
    deliveries_are_found_pruned_and_erased,
    a_list_shows_who_did_not_get_a_mail,
    a_relay_deletes_what_is_old,
    operators_act,
    ten_processes_can_migrate_at_once,
    a_relay_sends_mail_of_other_processes_until_a_signal,
    without_tables_every_command_asks_to_migrate,
);

fn every_command_works(tool: Tool) {
    let server = SmtpServer::with_script(|step| match step {
        Step::Recipient("nobody@example.com") => Answer::Refuse("550 5.1.1 no such user here"),
        Step::Recipient("busy@example.com") => Answer::Refuse("450 4.2.0 try later"),
        _ => Answer::Accept,
    });
    tool.ok(&["migrate"]);
    tool.ok(&["migrate"]);

    let sent = tool.enqueue(&["--key", "order-1", "--template-id", "welcome", "--subject", "Grüße"]);
    assert_eq!(tool.enqueue(&["--key", "order-1"]), sent, "the same key gives the same delivery");
    let dead = tool.enqueue(&["--to", "nobody@example.com", "--priority", "9"]);
    let busy = tool.enqueue(&["--to", "busy@example.com"]);
    let later = tool.enqueue(&["--send-at", "2100-01-01T00:00:00Z"]);
    assert_eq!(tool.stats()["pending"], 4);

    let pass = tool.drain(&server.url());
    assert_eq!((&pass["sent"], &pass["dead"], &pass["retried"]), (&json!(1), &json!(1), &json!(1)), "{pass}");
    assert_eq!(server.accepted().len(), 1);
    assert_eq!(server.accepted()[0].delivery_id(), sent);

    let listed = tool.list(&[]);
    let in_order: Vec<_> = listed.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(in_order, [&sent, &dead, &busy, &later], "oldest first");
    let states: Vec<_> = listed.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["sent", "dead", "pending", "pending"]);
    assert_eq!(tool.list(&["--state", "pending", "--limit", "1"])[0]["id"].as_str(), Some(busy.as_str()));
    assert_eq!(tool.list(&["--after", &busy])[0]["id"].as_str(), Some(later.as_str()));
    assert!(tool.ok(&["list"]).lines().any(|line| line.contains("550 5.1.1")));

    let shown = tool.show(&sent);
    assert_eq!((&shown["state"], &shown["key"]), (&json!("sent"), &json!("order-1")));
    assert_eq!((&shown["template_id"], &shown["attempts"][0]["outcome"]), (&json!("welcome"), &json!("sent")));
    assert_eq!(tool.show(&dead)["recipients"][0]["reply"], "550 5.1.1 no such user here");
    assert_eq!(tool.show(&busy)["attempts"][0]["outcome"], "transient");
    for id in [&sent, &dead, &busy] {
        assert_eq!(tool.show(id)["attempts"][0]["transport"], "smtp");
    }
    assert_eq!(tool.show(&later)["due_at"], "2100-01-01T00:00:00.000Z");
    assert!(tool.ok(&["show", &dead]).contains("nobody@example.com"));

    let stats = tool.stats();
    assert_eq!(
        (&stats["pending"], &stats["sent"], &stats["dead"], &stats["leased"]),
        (&json!(2), &json!(1), &json!(1), &json!(0))
    );

    let output = tool.run(&["cancel", &later, &sent]);
    assert_eq!(output.code, 1);
    assert_eq!(output.stdout, format!("{later} cancelled\n{sent} unchanged: sent\n"));
    tool.ok(&["cancel", &busy]);
    tool.ok(&["resend", &dead, &sent, &later]);
    tool.drain_until_sent(&server.url(), 2);
    assert_eq!(server.accepted_count(), 3, "the resent mail, and the resent cancelled mail");
    let again = tool.show(&sent);
    assert_eq!((&again["cycle"], &again["attempts"][1]["number"]), (&json!(2), &json!(2)));
    assert_eq!(tool.show(&dead)["cycle"], 2);
    assert_eq!(tool.stats()["cancelled"], 1);

    // More than one batch to enqueue, and more than one page to list.
    let printed =
        tool.ok(&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "1100"]);
    assert_eq!(printed.lines().count(), 1100);
    tool.drain_until_sent(&server.url(), 1100);
    let listed = tool.list(&["--after", &later]);
    assert!(printed.lines().eq(listed.iter().map(|line| line["id"].as_str().unwrap())));
}

fn ten_processes_can_migrate_at_once(tool: Tool) {
    let starts: Vec<_> = (0..10).map(|_| tool.start(&["migrate"])).collect();
    for start in starts {
        let output = start.wait();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    }
    tool.enqueue(&[]);
    assert_eq!(tool.drain(&SmtpServer::start().url())["sent"], 1);
}

fn a_relay_sends_mail_of_other_processes_until_a_signal(tool: Tool) {
    let server = SmtpServer::start();
    tool.ok(&["migrate"]);
    let running = tool.start(&["work", "--json", "--poll", "20ms", "--transport", &server.url()]);
    wait_until("the relay is listed", || tool.stats()["relays"].as_array().unwrap().len() == 1);
    let ids: Vec<_> = (0..3).map(|_| tool.enqueue(&[])).collect();
    wait_until("all mail is sent", || tool.stats()["sent"] == 3);
    running.signal("TERM");
    let output = running.wait();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap()["sent"], 3);
    let mut arrived: Vec<_> = server.accepted().iter().map(crate::smtp_server::Mail::delivery_id).collect();
    arrived.sort();
    assert_eq!(arrived, ids, "each mail arrives once");
    assert_eq!(tool.stats()["relays"], json!([]));
}

fn without_tables_every_command_asks_to_migrate(tool: Tool) {
    let unknown = "00000000-0000-7000-8000-000000000000";
    let commands: [&[&str]; 8] = [
        &["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x"],
        &["list"],
        &["stats"],
        &["show", unknown],
        &["resend", unknown],
        &["prune", "messages", "--state", "sent", "--older-than", "1d"],
        &["erase", "ada@example.com"],
        &["work", "--drain", "--transport", "smtp://127.0.0.1:1"],
    ];
    for args in commands {
        let output = tool.run(args);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains("migrate"), "{args:?}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{args:?}: {}", output.stderr);
    }
}

#[test]
#[ignore = "needs PostgreSQL, MariaDB and MySQL: run scripts/test"]
fn outboxes_in_one_database_are_separate() {
    let mysql = [MySqlServer::MariaDb, MySqlServer::MySql].map(|server| (server.url(), "--table-prefix"));
    for (url, option) in [(pg_url(), "--schema")].into_iter().chain(mysql) {
        let (one, other) = (unique_name(), unique_name());
        let tool = Tool::with_env(vec![("DATABASE_URL", url)]);
        for name in [&one, &other] {
            tool.ok(&["migrate", option, name]);
        }
        tool.enqueue(&[option, &one]);
        assert_eq!(tool.json(&["stats", "--json", option, &one])["pending"], 1);
        assert_eq!(tool.json(&["stats", "--json", option, &other])["pending"], 0);
    }
}

#[test]
#[ignore = "needs PostgreSQL, MariaDB and MySQL: run scripts/test"]
fn a_refused_login_gives_one_line_without_the_password() {
    let with_password = |url: &str, user: &str, database: &str| {
        let (scheme, rest) = url.split_once("://").unwrap();
        let host = rest.split_once('@').unwrap().1.split_once('/').unwrap().0;
        format!("{scheme}://{user}:h0rse@{host}/{database}")
    };
    let mut refused = vec![
        (with_password(&pg_url(), "postgres", "no_such_database"), "does not exist"),
        (with_password(&pg_url(), "no_such_user", "postgres"), "does not exist"),
    ];
    for server in [MySqlServer::MariaDb, MySqlServer::MySql] {
        server.run_sql("CREATE USER IF NOT EXISTS ada IDENTIFIED BY 'an0ther'");
        refused.extend(
            ["ada", "no_such_user"].map(|user| (with_password(&server.url(), user, "postrider"), "Access denied")),
        );
    }
    for (url, why) in refused {
        let tool = Tool::with_env(vec![("DATABASE_URL", url.clone())]);
        for args in [&["migrate"][..], &["stats"], &["work", "--drain", "--transport", "smtp://127.0.0.1:1"]] {
            let output = tool.run_with_env(&[("RUST_LOG", "trace")], args);
            assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{args:?}: {}", output.stderr);
            assert!(
                output.stderr.contains(why) && output.stderr.contains("cannot be opened"),
                "{args:?}: {}",
                output.stderr
            );
            assert!(!output.stderr.contains("h0rse"), "{args:?}: {}", output.stderr);
            assert_eq!(output.stderr.lines().count(), 1, "{args:?}: {}", output.stderr);
        }
    }
}

/// MySQL's default authentication sends the password through TLS only. The login without TLS comes first, because the server caches the
/// password after a login, and then accepts it without TLS as well.
#[test]
#[ignore = "needs MySQL: run scripts/test"]
fn mysql_accepts_a_password_only_through_tls() {
    let (name, server) = (format!("u{}", &unique_name()[5..]), MySqlServer::MySql);
    server.run_sql(&format!("CREATE USER {name} IDENTIFIED BY 'h0rse'; GRANT ALL ON postrider.* TO {name}"));
    let url = server.url().replace("root@", &format!("{name}:h0rse@"));
    let with_options = |options: &str| {
        let prefix = ("POSTRIDER_TABLE_PREFIX", name.clone());
        Tool::with_env(vec![("DATABASE_URL", format!("{url}{options}")), prefix])
    };
    let output = with_options("?ssl-mode=disabled").run(&["stats"]);
    assert_eq!((output.code, output.stderr.lines().count()), (1, 1), "{}", output.stderr);
    assert!(output.stderr.contains("only through TLS") && !output.stderr.contains("h0rse"), "{}", output.stderr);
    for options in ["", "?ssl-mode=required"] {
        assert!(with_options(options).run(&["stats"]).stderr.contains("postrider migrate"), "{options}");
    }
}
