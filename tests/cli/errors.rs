//! Every mistake gets one clear line, and no success.

use crate::tool::{Ran, Tool};

/// It failed with `code`, in one line that says `why` and gives no secret away.
fn refused(ran: &Ran, code: i32, why: &str, what: &[&str]) {
    let said = &ran.stderr;
    assert_eq!(ran.code, code, "{what:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{what:?}: {said}");
    assert!(said.starts_with("postrider: ") && said.contains(why), "{what:?}: {said}");
    assert!(!said.contains("h0rse") && !ran.stdout.contains("h0rse"), "{what:?}: {said}");
    assert!(ran.stdout.is_empty(), "{what:?}: {}", ran.stdout);
}

const MAIL: [&str; 7] = ["enqueue", "--from", "ada@example.com", "--to", "bob@example.com", "--text", "Hello!"];

#[test]
fn a_command_line_that_makes_no_sense() {
    let tool = Tool::new();
    for (args, why) in [
        (&[][..], "command"),
        (&["fly"], "fly"),
        (&["list", "--fast"], "--fast"),
        (&["list", "--state", "bogus"], "pending, leased, sent, dead, in_doubt, cancelled"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--limit", "many"], "--limit"),
        (&["list", "--after", "yesterday"], "UUID"),
        (&["show"], "<ID>"),
        (&["show", "17"], "UUID"),
        (&["resend"], "<ID>"),
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
        refused(&tool.run(args), 2, why, args);
    }
}

#[test]
fn a_mail_that_cannot_be() {
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
        refused(&tool.run(&args), 2, why, more);
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
        refused(&tool.run(args), 2, why, args);
    }
    for (more, why) in [
        (&["--attach", "nowhere.pdf"][..], "nowhere.pdf"),
        (&["--attach", "/dev"], "directory"),
        (&["--html", "@nowhere.html"], "nowhere.html"),
    ] {
        let args = [&MAIL[..], more].concat();
        refused(&tool.run(&args), 1, why, more);
    }
    assert_eq!(tool.stats()["pending"], 0, "nothing of it was enqueued");
}

#[test]
fn a_database_that_cannot_be() {
    let tool = Tool::bare();
    tool.file("empty.db", "");
    tool.file("notes.txt", "This is no database, whatever its name, and it is long enough to tell.".repeat(20));
    for (url, code, why) in [
        ("", 2, "no database is named"),
        ("outbox.db", 2, "sqlite://"),
        ("oracle://ada:h0rse@db", 2, "sqlite://"),
        ("ada:h0rse@db", 2, "no scheme"),
        // Known or not, according to what was built in.
        #[cfg(not(feature = "postgres"))]
        ("postgres://ada:h0rse@db/shop", 2, "`postgres`"),
        #[cfg(feature = "postgres")]
        ("postgres://ada:h0rse@127.0.0.1:1/shop", 1, "cannot be opened"),
        #[cfg(feature = "postgres")]
        ("postgresql://ada:h0rse@127.0.0.1:no/shop", 2, "no PostgreSQL URL"),
        #[cfg(not(feature = "mysql"))]
        ("mariadb://ada:h0rse@db/shop", 2, "`mysql`"),
        #[cfg(feature = "mysql")]
        ("mariadb://ada:h0rse@127.0.0.1:1/shop", 1, "cannot be opened"),
        #[cfg(feature = "mysql")]
        ("mysql://ada:h0rse@127.0.0.1:no/shop", 2, "no MySQL URL"),
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
            let ran = tool.run_with(&[("DATABASE_URL", url)], args);
            let what = [&[url], args].concat();
            refused(&ran, code, why, &what);
        }
    }
    assert!(!tool.directory().join("outbox.db").exists(), "only migrate makes a database");

    for (url, why) in
        [("sqlite://no/such/directory/outbox.db", "cannot be opened"), ("sqlite://notes.txt", "not a database")]
    {
        refused(&tool.run_with(&[("DATABASE_URL", url)], &["migrate"]), 1, why, &[url]);
    }
}

#[test]
fn an_outbox_is_named_as_its_database_names_it() {
    let tool = Tool::new();
    for (url, args, why) in [
        ("sqlite://outbox.db", ["--schema", "other"], "--schema, or POSTRIDER_SCHEMA, is for PostgreSQL"),
        ("mysql://ada:h0rse@127.0.0.1:1/shop", ["--schema", "other"], "is for PostgreSQL"),
        ("sqlite://outbox.db", ["--table-prefix", "other_"], "POSTRIDER_TABLE_PREFIX, is for MySQL and MariaDB"),
        ("postgres://ada:h0rse@127.0.0.1:1/shop", ["--table-prefix", "other_"], "is for MySQL and MariaDB"),
    ] {
        for command in [&["stats"][..], &["migrate"], &["migrate", "--print"]] {
            let args = [command, &args].concat();
            refused(&tool.run_with(&[("DATABASE_URL", url)], &args), 2, why, &args);
        }
    }
    for url in ["sqlite://outbox.db", "mysql://ada:h0rse@127.0.0.1:1/shop"] {
        let why = "--pgbouncer, or POSTRIDER_PGBOUNCER, is for PostgreSQL";
        refused(&tool.run_with(&[("DATABASE_URL", url)], &["stats", "--pgbouncer"]), 2, why, &[url]);
        refused(&tool.run_with(&[("DATABASE_URL", url), ("POSTRIDER_PGBOUNCER", "1")], &["stats"]), 2, why, &[url]);
    }
    tool.ok(&["stats"]);
    assert_eq!(tool.run_with(&[("POSTRIDER_PGBOUNCER", "0")], &["stats"]).code, 0, "it was not asked for");
    for (variable, why) in [("POSTRIDER_SCHEMA", "--schema"), ("POSTRIDER_TABLE_PREFIX", "--table-prefix")] {
        refused(&tool.run_with(&[(variable, "other")], &["stats"]), 2, why, &[variable]);
    }
    #[cfg(feature = "postgres")]
    for name in ["", "a-b", "1st", "a\"b"] {
        let ran = tool.run_with(&[("DATABASE_URL", "postgres://localhost")], &["migrate", "--print", "--schema", name]);
        refused(&ran, 2, "schema's name", &[name]);
    }
    #[cfg(feature = "mysql")]
    for name in ["", "a-b", "1st", "a`b"] {
        let args = ["migrate", "--print", "--table-prefix", name];
        refused(&tool.run_with(&[("DATABASE_URL", "mysql://localhost")], &args), 2, "table prefix", &[name]);
    }
}

#[test]
fn the_option_beats_the_environment() {
    let tool = Tool::bare();
    let url = format!("sqlite://{}/other.db", tool.directory().display());
    tool.ok(&["migrate", "--database", &url]);
    tool.ok(&["--database", &url, "stats"]);
    assert!(tool.directory().join("other.db").exists());
    tool.ok(&["migrate", "--database", &url]);
}

#[test]
fn a_transport_that_cannot_be() {
    let tool = Tool::new();
    tool.enqueue(&[]);
    for (url, why) in [
        ("", "no transport is named"),
        ("ada:h0rse@localhost", "no scheme"),
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
        ("failover(smtp://localhost smtp://ada:h0rse@localhost:99999)", "the transport's URL number 2: "),
        ("failover(smtp://localhost pigeon://ada:h0rse@localhost)", "smtp://"),
        ("round-robin(2*smtp://ada:h0rse@localhost smtp://ada:(h0rse)@localhost)", "%28"),
        ("pigeons(smtp://ada:h0rse@localhost)", "made of others by failover"),
        ("timeout(h0rse smtp://ada:h0rse@localhost)", "timeout(60s URL)"),
        ("redirect(h0rse smtp://ada:h0rse@localhost)", "redirect(ADDRESS URL)"),
        #[cfg(not(feature = "rate-limit"))]
        ("rate-limit(1/1s smtp://ada:h0rse@localhost)", "`rate-limit`"),
    ] {
        refused(&tool.run(&["work", "--drain", "--transport", url]), 2, why, &[url]);
        refused(&tool.run_with(&[("TRANSPORT_URL", url)], &["work", "--drain"]), 2, why, &[url]);
    }
    refused(&tool.run(&["work", "--drain"]), 2, "TRANSPORT_URL", &["no transport"]);
    let args = ["work", "--drain", "--transport", "smtp://127.0.0.1:1"];
    refused(&tool.run_with(&[("RUST_LOG", "postrider=loud")], &args), 2, "RUST_LOG", &args);
    assert_eq!(tool.stats()["pending"], 1);
}

#[test]
fn a_delivery_that_is_not_there() {
    let tool = Tool::new();
    let nobody = "00000000-0000-7000-8000-000000000000";
    refused(&tool.run(&["show", nobody]), 1, nobody, &["show"]);
    refused(&tool.run(&["show", nobody, "--json"]), 1, nobody, &["show --json"]);
    let ran = tool.run(&["resend", nobody]);
    assert_eq!((ran.code, ran.stdout), (1, format!("{nobody} not found\n")));
}
