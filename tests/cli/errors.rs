//! Every error is one line on standard error.

use crate::tool::{Output, Tool};

/// Checks that a command failed with `code` and one line that contains `why` and no secret. `what` names the command in panics.
fn assert_refused(output: &Output, code: i32, why: &str, what: &[&str]) {
    let stderr = &output.stderr;
    assert_eq!(output.code, code, "{what:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what:?}: {stderr}");
    assert!(stderr.starts_with("postrider: ") && stderr.contains(why), "{what:?}: {stderr}");
    assert!(!stderr.contains("h0rse") && !output.stdout.contains("h0rse"), "{what:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{what:?}: {}", output.stdout);
}

const MAIL: [&str; 7] = ["enqueue", "--from", "ada@example.com", "--to", "bob@example.com", "--text", "Hello!"];

#[test]
fn an_invalid_command_line() {
    let tool = Tool::new();
    for (args, why) in [
        (&[][..], "command"),
        (&["fly"], "fly"),
        (&["list", "--fast"], "--fast"),
        (&["list", "--state", "bogus"], "pending, leased, sent, dead, in_doubt, cancelled"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--limit", "many"], "--limit"),
        (&["list", "--after", "yesterday"], "UUID"),
        (&["migrate", "--from", "1"], "--print"),
        (&["migrate", "--print", "--from", "99"], "version 99"),
        (&["show"], "<ID>"),
        (&["show", "17"], "UUID"),
        (&["resend"], "--state"),
        (&["cancel", "ada@example.com"], "UUID"),
        (&["enqueue"], "--from"),
        (&["work", "smtp://ada:h0rse@localhost"], "unexpected"),
        (&["work", "--transport"], "--transport"),
        (&["work", "--concurrency", "0"], "--concurrency"),
        (&["work", "--concurrency", "18446744073709551615"], "--concurrency"),
        (&["work", "--poll", "500000000000years"], "hundred years"),
        (&["work", "--lease", "1ms"], "100ms"),
        (&["work", "--lease", "5"], "unit"),
        (&["work", "--poll", "0s"], "--poll"),
        (&["work", "--retry-base=-5s"], "--retry-base"),
        (&["work", "--retry-base", "2h", "--retry-cap", "1h", "--transport", "smtp://localhost"], "--retry-base"),
        (&["work", "--attempts", "0"], "--attempts"),
        (&["work", "--max-age", "soon"], "--max-age"),
        (&["work", "--factor", "0.5"], "--factor"),
        (&["work", "--jitter", "NaN"], "--jitter"),
    ] {
        assert_refused(&tool.run(args), 2, why, args);
    }
}

#[test]
fn an_invalid_mail() {
    let tool = Tool::new();
    tool.file("latin-1.txt", [b'G', b'r', 0xfc, 0xdf]);
    for (more, why) in [
        (&["--html", "@latin-1.txt"][..], "UTF-8"),
        (&["--attach", "/dev/zero"], "limit"),
        (&["--to", "bob"], "--to (number 2): the address has no @"),
        (&["--cc", "x@example.com\r\nBcc: y@example.com"], "--cc"),
        (
            &["--to", r#""L, Ada" <ada@example.com>, "B" <bob@example.com>"#],
            "--to (number 2): the address is more than one mailbox",
        ),
        (&["--bcc", "Friends: ada@example.com, bob@example.com;"], "--bcc: the address is more than one mailbox"),
        (&["--reply-to", "Ada <ada@example.com> x"], "--reply-to: the address has text after the >"),
        (&["--bcc", ""], "--bcc"),
        (&["--reply-to", "Ada <ada@>"], "--reply-to"),
        (&["--subject", "a\nb"], "subject"),
        (&["--header", "no colon"], "colon"),
        (&["--header", "Subject: twice"], "Subject"),
        (&["--header", "X-A: b\r\nX-C: d"], "X-A"),
        (&["--template-id", ""], "template"),
        (&["--key", ""], "key"),
        (&["--priority", "10"], "--priority"),
        (&["--send-at", "tomorrow"], "--send-at"),
        (&["--send-at", "2030-01-01T00:00:00"], "--send-at"),
        (&["--expires-in", "soon"], "--expires-in"),
        (&["--count", "0"], "--count"),
        (&["--html", "-", "--text", "-"], "--text"),
    ] {
        let args = [&MAIL[..], more].concat();
        assert_refused(&tool.run(&args), 2, why, more);
    }
    for (args, why) in [
        (
            &["enqueue", "--from", "ada.example.com", "--to", "b@example.com", "--text", "x"][..],
            "--from: the address has no @",
        ),
        (&["enqueue", "--from", "a@example.com", "--text", "x"], "no recipient"),
        (&["enqueue", "--from", "a@example.com", "--to", "b@example.com"], "no body"),
        (&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--html", "-", "--text", "-"], "not both"),
    ] {
        assert_refused(&tool.run(args), 2, why, args);
    }
    for (more, why) in [
        (&["--attach", "nowhere.pdf"][..], "nowhere.pdf"),
        (&["--attach", "/dev"], "directory"),
        (&["--html", "@nowhere.html"], "nowhere.html"),
    ] {
        let args = [&MAIL[..], more].concat();
        assert_refused(&tool.run(&args), 1, why, more);
    }
    assert_eq!(tool.stats()["pending"], 0, "an invalid mail was enqueued");
}

#[test]
fn an_invalid_database() {
    let tool = Tool::without_tables();
    tool.file("empty.db", "");
    tool.file("notes.txt", "This is not a database, and it is long enough for SQLite to see that.".repeat(20));
    for (url, code, why) in [
        ("", 2, "no database is given"),
        ("outbox.db", 2, "sqlite://"),
        ("oracle://ada:h0rse@db", 2, "sqlite://"),
        ("ada:h0rse@db", 2, "no known scheme"),
        // The error depends on the features.
        #[cfg(not(feature = "postgres"))]
        ("postgres://ada:h0rse@db/shop", 2, "`postgres`"),
        #[cfg(feature = "postgres")]
        ("postgres://ada:h0rse@127.0.0.1:1/shop", 1, "cannot be opened"),
        #[cfg(feature = "postgres")]
        ("postgresql://ada:h0rse@127.0.0.1:no/shop", 2, "not a PostgreSQL URL"),
        #[cfg(not(feature = "mysql"))]
        ("mariadb://ada:h0rse@db/shop", 2, "`mysql`"),
        #[cfg(feature = "mysql")]
        ("mariadb://ada:h0rse@127.0.0.1:1/shop", 1, "cannot be opened"),
        #[cfg(feature = "mysql")]
        ("mysql://ada:h0rse@127.0.0.1:no/shop", 2, "not a MySQL URL"),
        ("sqlite://", 2, "must name a file"),
        ("sqlite::memory:", 2, "must name a file"),
        ("sqlite://outbox.db?mode=memory", 2, "must name a file"),
        ("sqlite://outbox.db?speed=high", 2, "speed"),
        ("sqlite://outbox.db", 1, "run `postrider migrate` first"),
        ("sqlite://outbox.db?mode=rwc", 1, "run `postrider migrate` first"),
        ("sqlite://no/such/directory/outbox.db", 1, "run `postrider migrate` first"),
        ("sqlite://empty.db", 1, "run `postrider migrate` first"),
        ("sqlite://.", 1, "directory"),
        ("sqlite://notes.txt", 1, "not a database"),
    ] {
        let commands: [&[&str]; 6] = [
            &MAIL,
            &["list"],
            &["stats"],
            &["show", "00000000-0000-7000-8000-000000000000"],
            &["cancel", "00000000-0000-7000-8000-000000000000"],
            &["work", "--drain", "--transport", "smtp://127.0.0.1:1"],
        ];
        for args in commands {
            let output = tool.run_with_env(&[("DATABASE_URL", url)], args);
            let what = [&[url], args].concat();
            assert_refused(&output, code, why, &what);
        }
    }
    assert!(!tool.directory().join("outbox.db").exists(), "only migrate creates the file");

    for (url, why) in
        [("sqlite://no/such/directory/outbox.db", "cannot be opened"), ("sqlite://notes.txt", "not a database")]
    {
        assert_refused(&tool.run_with_env(&[("DATABASE_URL", url)], &["migrate"]), 1, why, &[url]);
    }
}

#[test]
fn an_option_of_another_database_is_refused() {
    let tool = Tool::new();
    for (url, args, why) in [
        ("sqlite://outbox.db", ["--schema", "other"], "--schema (POSTRIDER_SCHEMA) is only for PostgreSQL"),
        ("mysql://ada:h0rse@127.0.0.1:1/shop", ["--schema", "other"], "is only for PostgreSQL"),
        ("sqlite://outbox.db", ["--table-prefix", "other_"], "(POSTRIDER_TABLE_PREFIX) is only for MySQL and MariaDB"),
        ("postgres://ada:h0rse@127.0.0.1:1/shop", ["--table-prefix", "other_"], "is only for MySQL and MariaDB"),
    ] {
        for command in [&["stats"][..], &["migrate"], &["migrate", "--print"]] {
            let args = [command, &args].concat();
            assert_refused(&tool.run_with_env(&[("DATABASE_URL", url)], &args), 2, why, &args);
        }
    }
    for url in ["sqlite://outbox.db", "mysql://ada:h0rse@127.0.0.1:1/shop"] {
        let why = "--pgbouncer (POSTRIDER_PGBOUNCER) is only for PostgreSQL";
        assert_refused(&tool.run_with_env(&[("DATABASE_URL", url)], &["stats", "--pgbouncer"]), 2, why, &[url]);
        assert_refused(
            &tool.run_with_env(&[("DATABASE_URL", url), ("POSTRIDER_PGBOUNCER", "1")], &["stats"]),
            2,
            why,
            &[url],
        );
    }
    tool.ok(&["stats"]);
    assert_eq!(tool.run_with_env(&[("POSTRIDER_PGBOUNCER", "0")], &["stats"]).code, 0, "POSTRIDER_PGBOUNCER=0 is off");
    for (variable, why) in [("POSTRIDER_SCHEMA", "--schema"), ("POSTRIDER_TABLE_PREFIX", "--table-prefix")] {
        assert_refused(&tool.run_with_env(&[(variable, "other")], &["stats"]), 2, why, &[variable]);
    }
    #[cfg(feature = "postgres")]
    for name in ["", "a-b", "1st", "a\"b"] {
        let output =
            tool.run_with_env(&[("DATABASE_URL", "postgres://localhost")], &["migrate", "--print", "--schema", name]);
        assert_refused(&output, 2, "schema's name", &[name]);
    }
    #[cfg(feature = "mysql")]
    for name in ["", "a-b", "1st", "a`b"] {
        let args = ["migrate", "--print", "--table-prefix", name];
        assert_refused(&tool.run_with_env(&[("DATABASE_URL", "mysql://localhost")], &args), 2, "table prefix", &[name]);
    }
}

#[test]
fn an_option_overrides_the_environment() {
    let tool = Tool::without_tables();
    let url = format!("sqlite://{}/other.db", tool.directory().display());
    tool.ok(&["migrate", "--database", &url]);
    tool.ok(&["--database", &url, "stats"]);
    assert!(tool.directory().join("other.db").exists());
    tool.ok(&["migrate", "--database", &url]);
}

#[test]
fn an_invalid_transport() {
    let tool = Tool::new();
    tool.enqueue(&[]);
    for (url, why) in [
        ("", "no transport is given"),
        ("ada:h0rse@localhost", "no known scheme"),
        ("pigeon://ada:h0rse@localhost", "smtp://"),
        ("ses://key:h0rse@eu-west-1", if cfg!(feature = "ses") { "ses URL" } else { "`ses`" }),
        ("sendgrid://h0rse@", if cfg!(feature = "sendgrid") { "lacks a host" } else { "`sendgrid`" }),
        ("postmark://h0rse", if cfg!(feature = "postmark") { "lacks a key" } else { "`postmark`" }),
        ("smtp://", "host"),
        ("smtp://ada:h0rse@localhost:99999", "port"),
        ("smtp://ada:h0/rse@localhost", "smtp URL"),
        ("smtp://ada:h0rse@localhost?tls=maybe", "tls"),
        ("smtp://ada:h0rse@localhost?speed=high", "option"),
        ("smtp://localhost?pool=0", "at least 1"),
        ("smtps://ada:h0rse@localhost?tls=none", "tls"),
        ("smtp://localhost?ca=nowhere.pem", "certificate"),
        ("failover(smtp://ada:h0rse@localhost)", "two transports"),
        ("failover(smtp://ada:h0rse@localhost smtp://ada:h0rse@localhost", "not closed"),
        ("failover(smtp://localhost smtp://ada:h0rse@localhost:99999)", "URL number 2 of the transport: "),
        ("failover(smtp://localhost pigeon://ada:h0rse@localhost)", "smtp://"),
        ("round-robin(2*smtp://ada:h0rse@localhost smtp://ada:(h0rse)@localhost)", "%28"),
        ("pigeons(smtp://ada:h0rse@localhost)", "only failover, round-robin"),
        ("timeout(h0rse smtp://ada:h0rse@localhost)", "timeout(60s URL)"),
        ("redirect(h0rse smtp://ada:h0rse@localhost)", "redirect(ADDRESS URL)"),
        #[cfg(not(feature = "rate-limit"))]
        ("rate-limit(1/1s smtp://ada:h0rse@localhost)", "`rate-limit`"),
    ] {
        assert_refused(&tool.run(&["work", "--drain", "--transport", url]), 2, why, &[url]);
        assert_refused(&tool.run_with_env(&[("TRANSPORT_URL", url)], &["work", "--drain"]), 2, why, &[url]);
    }
    assert_refused(&tool.run(&["work", "--drain"]), 2, "TRANSPORT_URL", &["no transport"]);
    let args = ["work", "--drain", "--transport", "smtp://127.0.0.1:1"];
    assert_refused(&tool.run_with_env(&[("RUST_LOG", "postrider=loud")], &args), 2, "RUST_LOG", &args);
    assert_eq!(tool.stats()["pending"], 1);
}

#[test]
fn an_unknown_delivery() {
    let tool = Tool::new();
    let unknown = "00000000-0000-7000-8000-000000000000";
    assert_refused(&tool.run(&["show", unknown]), 1, unknown, &["show"]);
    assert_refused(&tool.run(&["show", unknown, "--json"]), 1, unknown, &["show --json"]);
    let output = tool.run(&["resend", unknown]);
    assert_eq!((output.code, output.stdout), (1, format!("{unknown} not found\n")));
}
