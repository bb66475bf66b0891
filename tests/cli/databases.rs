//! Every command on the databases that a server keeps, as it is on SQLite.

use serde_json::json;

use crate::server::{Answer, Ask, Server};
use crate::servers::{MySql, new_name, pg_url, pgbouncer, postgres};
use crate::tool::{Tool, wait_until};

/// Each of these on each of the servers.
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
                    super::$test(super::MySql::MariaDb.tool().0);
                }
            )*
        }

        mod on_mysql {
            $(
                #[test]
                #[ignore = "needs MySQL: run scripts/test"]
                fn $test() {
                    super::$test(super::MySql::MySql.tool().0);
                }
            )*
        }
    };
}

on_each_server!(
    every_command_does_its_work,
    ten_starts_migrate_at_once,
    a_relay_sends_what_others_enqueue_until_it_is_told_to_stop,
    without_tables_every_command_says_to_migrate,
);

fn every_command_does_its_work(tool: Tool) {
    let server = Server::with(|ask| match ask {
        Ask::Recipient("nobody@example.com") => Answer::Say("550 5.1.1 no such user here"),
        Ask::Recipient("busy@example.com") => Answer::Say("450 4.2.0 try later"),
        _ => Answer::Yes,
    });
    tool.ok(&["migrate"]);
    tool.ok(&["migrate"]);

    let sent = tool.enqueue(&["--key", "order-1", "--template-id", "welcome", "--subject", "Grüße"]);
    assert_eq!(tool.enqueue(&["--key", "order-1"]), sent, "a key is taken once");
    let dead = tool.enqueue(&["--to", "nobody@example.com", "--priority", "9"]);
    let busy = tool.enqueue(&["--to", "busy@example.com"]);
    let later = tool.enqueue(&["--send-at", "2100-01-01T00:00:00Z"]);
    assert_eq!(tool.stats()["pending"], 4);

    let pass = tool.drain(&server.url());
    assert_eq!((&pass["sent"], &pass["dead"], &pass["retried"]), (&json!(1), &json!(1), &json!(1)), "{pass}");
    assert_eq!(server.accepted().len(), 1);
    assert_eq!(server.accepted()[0].delivery(), sent);

    let listed = tool.list(&[]);
    let in_order: Vec<_> = listed.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(in_order, [&sent, &dead, &busy, &later], "by age");
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

    let ran = tool.run(&["cancel", &later, &sent]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.stdout, format!("{later} cancelled\n{sent} left as it was: sent\n"));
    tool.ok(&["cancel", &busy]);
    tool.ok(&["resend", &dead, &sent, &later]);
    tool.drain_until_sent(&server.url(), 2);
    assert_eq!(server.accepted_count(), 3, "the one that was resent, and the one that was taken back");
    let again = tool.show(&sent);
    assert_eq!((&again["cycle"], &again["attempts"][1]["number"]), (&json!(2), &json!(2)));
    assert_eq!(tool.show(&dead)["cycle"], 2);
    assert_eq!(tool.stats()["cancelled"], 1);

    // Many at once, and by pages.
    let printed =
        tool.ok(&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "1100"]);
    assert_eq!(printed.lines().count(), 1100);
    tool.drain_until_sent(&server.url(), 1100);
    let listed = tool.list(&["--after", &later]);
    assert!(printed.lines().eq(listed.iter().map(|line| line["id"].as_str().unwrap())));
}

fn ten_starts_migrate_at_once(tool: Tool) {
    let starts: Vec<_> = (0..10).map(|_| tool.start(&["migrate"])).collect();
    for start in starts {
        let ran = start.wait();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    }
    tool.enqueue(&[]);
    assert_eq!(tool.drain(&Server::start().url())["sent"], 1);
}

fn a_relay_sends_what_others_enqueue_until_it_is_told_to_stop(tool: Tool) {
    let server = Server::start();
    tool.ok(&["migrate"]);
    let running = tool.start(&["work", "--json", "--poll", "20ms", "--transport", &server.url()]);
    wait_until("the relay is seen", || tool.stats()["relays"].as_array().unwrap().len() == 1);
    let ids: Vec<_> = (0..3).map(|_| tool.enqueue(&[])).collect();
    wait_until("they are sent", || tool.stats()["sent"] == 3);
    running.signal("TERM");
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["sent"], 3);
    let mut arrived: Vec<_> = server.accepted().iter().map(crate::server::Mail::delivery).collect();
    arrived.sort();
    assert_eq!(arrived, ids, "each once");
    assert_eq!(tool.stats()["relays"], json!([]));
}

fn without_tables_every_command_says_to_migrate(tool: Tool) {
    let nobody = "00000000-0000-7000-8000-000000000000";
    let commands: [&[&str]; 6] = [
        &["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x"],
        &["list"],
        &["stats"],
        &["show", nobody],
        &["resend", nobody],
        &["work", "--drain", "--transport", "smtp://127.0.0.1:1"],
    ];
    for args in commands {
        let ran = tool.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("migrate"), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{args:?}: {}", ran.stderr);
    }
}

#[test]
#[ignore = "needs PostgreSQL, MariaDB and MySQL: run scripts/test"]
fn outboxes_beside_each_other_do_not_meet() {
    let mysql = [MySql::MariaDb, MySql::MySql].map(|server| (server.url(), "--table-prefix"));
    for (url, option) in [(pg_url(), "--schema")].into_iter().chain(mysql) {
        let (one, other) = (new_name(), new_name());
        let tool = Tool::of(vec![("DATABASE_URL", url)]);
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
fn a_database_that_refuses_gives_one_line_and_no_secret() {
    let with_password = |url: &str, user: &str, database: &str| {
        let (scheme, rest) = url.split_once("://").unwrap();
        let host = rest.split_once('@').unwrap().1.split_once('/').unwrap().0;
        format!("{scheme}://{user}:h0rse@{host}/{database}")
    };
    let mut refused = vec![
        (with_password(&pg_url(), "postgres", "no_such_database"), "does not exist"),
        (with_password(&pg_url(), "no_such_user", "postgres"), "does not exist"),
    ];
    for server in [MySql::MariaDb, MySql::MySql] {
        server.client("CREATE USER IF NOT EXISTS ada IDENTIFIED BY 'an0ther'");
        refused.extend(
            ["ada", "no_such_user"].map(|user| (with_password(&server.url(), user, "postrider"), "Access denied")),
        );
    }
    for (url, why) in refused {
        let tool = Tool::of(vec![("DATABASE_URL", url.clone())]);
        for args in [&["migrate"][..], &["stats"], &["work", "--drain", "--transport", "smtp://127.0.0.1:1"]] {
            let ran = tool.run_with(&[("RUST_LOG", "trace")], args);
            assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(why) && ran.stderr.contains("cannot be opened"), "{args:?}: {}", ran.stderr);
            assert!(!ran.stderr.contains("h0rse"), "{args:?}: {}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{args:?}: {}", ran.stderr);
        }
    }
}

/// MySQL's own way to log in takes the password through TLS, which the tool has; without TLS it says what is wrong. A server that knows the
/// password already lets it pass either way, so that the refusal comes first.
#[test]
#[ignore = "needs MySQL: run scripts/test"]
fn mysql_takes_a_password_through_tls() {
    let (name, server) = (format!("u{}", &new_name()[5..]), MySql::MySql);
    server.client(&format!("CREATE USER {name} IDENTIFIED BY 'h0rse'; GRANT ALL ON postrider.* TO {name}"));
    let url = server.url().replace("root@", &format!("{name}:h0rse@"));
    let with = |more: &str| {
        let prefix = ("POSTRIDER_TABLE_PREFIX", name.clone());
        Tool::of(vec![("DATABASE_URL", format!("{url}{more}")), prefix])
    };
    let ran = with("?ssl-mode=disabled").run(&["stats"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("only through TLS") && !ran.stderr.contains("h0rse"), "{}", ran.stderr);
    for more in ["", "?ssl-mode=required"] {
        assert!(with(more).run(&["stats"]).stderr.contains("postrider migrate"), "{more}");
    }
}
