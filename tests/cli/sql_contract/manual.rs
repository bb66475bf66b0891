//! Every statement of docs/sql.md, by each client of each database.

use std::collections::BTreeMap;

use mail_parser::{MessageParser, MimeHeaders};
use serde_json::{Value, json};

use super::clients::{Answer, Client, Database, Session};
use super::page::{mail_columns, statements};
use crate::smtp_server::SmtpServer;

/// The delivery that the page reads by its id.
const ID: &str = "01a22c73-ac08-7fb2-a763-fc77197a54ba";
/// The trace context in the statements of the page.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
const KEY: &str = "schlüssel-ключ-🔑";

macro_rules! clients {
    ($($database:ident $variant:ident $reason:literal)*) => {
        $(mod $database {
            use super::{Client, Database};

            #[test]
            #[ignore = $reason]
            fn the_command_line_client_runs_every_statement() {
                super::every_statement_works(Database::$variant, Client::CommandLine);
            }

            #[test]
            #[ignore = $reason]
            fn the_python_driver_runs_every_statement() {
                super::every_statement_works(Database::$variant, Client::Python);
            }

            #[test]
            #[ignore = $reason]
            fn the_node_driver_runs_every_statement() {
                super::every_statement_works(Database::$variant, Client::Node);
            }

            #[test]
            #[ignore = $reason]
            fn the_view_shows_pending_leased_and_dead_mail() {
                super::the_view_shows_pending_leased_and_dead_mail(Database::$variant);
            }
        })*
    };
}

clients! {
    postgres Postgres "needs PostgreSQL and the drivers: run scripts/test"
    mariadb MariaDb "needs MariaDB and the drivers: run scripts/test"
    mysql MySql "needs MySQL and the drivers: run scripts/test"
    sqlite Sqlite "needs sqlite3 and the drivers: run scripts/test"
}

/// A mail as it should arrive.
#[derive(Debug, PartialEq)]
struct Expected {
    subject: String,
    text: String,
    html: Option<String>,
    attachment: Option<(String, Vec<u8>)>,
}

fn mail(subject: &str, text: &str) -> Expected {
    Expected { subject: subject.to_owned(), text: text.to_owned(), html: None, attachment: None }
}

/// Lines that are hard to write in SQL and to send, about 300 KiB together.
fn long_text() -> String {
    (0..6_000).map(|n| format!("{n}: \"äöü\" 'x' \\n %s $1 ? \u{2028}\u{7f}\u{1}\t 😀 e\u{301}\n.\n")).collect()
}

fn every_statement_works(database: Database, client: Client) {
    let session = Session::new(database, client);
    let page = |heading: &str| statements(session.heading(), heading);
    let customers: Vec<_> = (0..1_000).map(|n| format!("('customer{n}@example.com')")).collect();
    session.ok(&[
        "CREATE TABLE customers (mail VARCHAR(100) NOT NULL)".to_owned(),
        format!("INSERT INTO customers (mail) VALUES {}", customers.join(", ")),
    ]);
    let enqueue = page("Enqueue");
    let keyed: Vec<_> = enqueue.iter().filter(|statement| statement.contains("-471")).cloned().collect();
    session.ok(&enqueue);
    session.ok(&page("Enqueue many"));
    session.ok(&page("Trace context"));
    // The keys are taken.
    session.ok(&keyed);

    let mut expected: BTreeMap<String, Expected> =
        (0..1_000).map(|n| (format!("customer{n}@example.com"), mail("News", "Sale!"))).collect();
    let welcome = mail("Grüße 🎉", "Good to have you.");
    let order = Expected {
        html: Some("<p>Good to have <b>you</b>.</p>".to_owned()),
        ..mail("Your \"order\"", "Good to have you.")
    };
    let lines = if database == Database::Sqlite { 2 } else { 20 };
    let csv = ("invoice.csv".to_owned(), b"item;1.00\n".repeat(lines));
    let invoice = Expected { attachment: Some(csv), ..mail("Invoice", "See the attachment.") };
    expected.extend(
        [("ada", welcome), ("bob", order), ("cy", invoice)].map(|(name, mail)| (format!("{name}@example.com"), mail)),
    );
    let traced: &[&str] = if database == Database::Postgres { &["eve", "fay"] } else { &["eve"] };
    for name in traced {
        expected.insert(format!("{name}@example.com"), mail("Traced", "Hello"));
    }
    if client == Client::CommandLine {
        a_refused_row_names_the_column(&session, &keyed);
        if database != Database::Sqlite {
            the_rights_are_enough(&session, &page("Rights"), &[keyed.clone(), page("Read")].concat());
        }
    } else {
        a_driver_enqueues(&session, &page("From a driver")[0]);
        expected.insert("dee@example.com".to_owned(), mail("Ключ 鍵 ✓", &long_text()));
    }

    let server = SmtpServer::start();
    let summary = session.tool.drain(&server.url());
    assert_eq!((&summary["sent"], &summary["dead"]), (&expected.len().into(), &0.into()), "{summary}");
    let sent = expected.len();
    for received in server.accepted() {
        let [to] = &received.to[..] else { panic!("several recipients: {:?}", received.to) };
        assert_eq!(Some(parse(&received.content)), expected.remove(to), "{to}");
    }
    assert!(expected.is_empty());

    for name in traced {
        let id = session.tool.list(&["--to", &format!("{name}@example.com")])[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(session.tool.show(&id)["traceparent"], TRACEPARENT, "{name}");
    }
    let read = page("Read");
    for (statement, answer) in read.iter().zip(session.ok(&read)) {
        check_rows(&session, statement, &answer, sent);
    }
    let delete = page("Delete");
    session.ok(&delete[..1]);
    assert_eq!(session.tool.stats()["sent"], sent - 1);
    if delete.len() > 1 {
        session.ok(&delete[1..]);
        assert_eq!(session.tool.stats()["sent"], 0);
        assert_eq!(session.tool.list(&[]).len(), 0);
    }
}

/// Reads a mail with a parser that we did not write.
fn parse(content: &[u8]) -> Expected {
    let parsed = MessageParser::default().parse(content).unwrap();
    let html = parsed.html_bodies().any(|part| part.is_text_html()).then(|| parsed.body_html(0).unwrap());
    let attachment = parsed.attachments().next();
    Expected {
        subject: parsed.subject().unwrap().to_owned(),
        text: parsed.body_text(0).unwrap().replace("\r\n", "\n"),
        html: html.map(|html| html.trim_end().to_owned()),
        attachment: attachment.map(|part| (part.attachment_name().unwrap().to_owned(), part.contents().to_vec())),
    }
}

fn check_rows(session: &Session, statement: &str, answer: &Answer, sent: usize) {
    let whole_row = statement.contains("SELECT *") && statement.contains("mail");
    if session.client == Client::CommandLine {
        let output = answer.output();
        if whole_row && !output.is_empty() {
            assert_eq!(answer.header(), mail_columns(), "{statement}");
        }
        let found = if statement.contains("LIMIT 20") && !statement.contains("WHERE") {
            output.lines().count() == 21
        } else if statement.contains("order-4712") {
            output.lines().count() == 2 && output.contains("sent")
        } else if statement.contains("overview") {
            output.replace('\t', ",").contains(&format!("\nsent,{sent},"))
        } else {
            true
        };
        assert!(found, "{statement}: {output}");
        return;
    }
    let names: Vec<_> =
        answer.rows.iter().flat_map(BTreeMap::keys).map(String::as_str).take(mail_columns().len()).collect();
    if whole_row && !answer.rows.is_empty() {
        let mut columns = mail_columns();
        columns.sort_unstable();
        assert_eq!(names, columns, "{statement}");
    }
    let field = |row: usize, name: &str| answer.rows[row][name].as_deref();
    let count = answer.rows.len();
    if statement.contains("LIMIT 20") && !statement.contains("WHERE") {
        assert_eq!(count, 20);
        assert!(answer.rows.iter().all(|row| row["enqueued_at"].as_ref().unwrap().starts_with("20")), "{answer:?}");
    } else if statement.contains(ID) {
        assert_eq!(
            (count, field(0, "id"), field(0, "state"), field(0, "attempts")),
            (1, Some(ID), Some("sent"), Some("1"))
        );
    } else if statement.contains("order-4712") {
        assert_eq!((count, field(0, "state"), field(0, "last_error")), (1, Some("sent"), None), "{answer:?}");
        if whole_row {
            let fields =
                ["recipient", "recipients", "subject", "template_id", "transport", "next_attempt_at", "leased_by"];
            let values = fields.map(|name| field(0, name));
            assert_eq!(
                values,
                [Some("bob@example.com"), Some("1"), Some("Your \"order\""), Some("order"), Some("smtp"), None, None]
            );
            assert!(field(0, "finished_at") >= field(0, "enqueued_at"));
        }
    } else if statement.contains("'dead'") {
        assert_eq!(count, 0);
    } else {
        let states: Vec<_> = (0..count).map(|row| field(row, "state").unwrap()).collect();
        assert_eq!(states, ["pending", "leased", "sent", "dead", "in_doubt", "cancelled", "dismissed"]);
        let numbers: Vec<_> = (0..count).map(|row| field(row, "deliveries").unwrap().to_owned()).collect();
        assert_eq!(numbers, ["0", "0", &sent.to_string(), "0", "0", "0", "0"]);
    }
}

/// Typed parameters, `NULL`, a long text, a taken key, and rows that break a rule.
fn a_driver_enqueues(session: &Session, statement: &str) {
    let good = [
        json!({ "uuid": ID }),
        json!({ "json": { "from": "Shop <shop@example.com>", "to": ["dee@example.com"], "subject": "Ключ 鍵 ✓" } }),
        json!(long_text()),
        json!({ "json": ["dee@example.com"] }),
        Value::Null,
        json!(KEY),
        json!(9),
        json!("hold"),
        Value::Null,
        json!({ "time": 4_102_444_800_000_i64 }),
    ];
    let with = |place: usize, value: Value| {
        let mut values = good.clone();
        values[0] = json!({ "uuid": "01a22c73-ac08-7fb2-a763-fc77197a54bb" });
        values[5] = json!("another key");
        values[place] = value;
        (statement.to_owned(), Some(Value::from(values.to_vec())))
    };
    let refused = [
        (1, json!("no JSON"), "body"),
        (3, json!({ "json": [] }), "recipients"),
        (4, json!("x".repeat(256)), "template_id"),
        (5, json!(""), "key"),
        (6, json!(10), "priority"),
        (7, json!("maybe"), "when_in_doubt"),
    ];
    let mut steps = vec![(statement.to_owned(), Some(Value::from(good.to_vec()))), with(5, json!(KEY))];
    steps.extend(refused.iter().map(|(place, value, _)| with(*place, value.clone())));
    let answers = session.run(&steps);
    for answer in &answers[..2] {
        assert!(answer.error.is_none() && answer.rows.is_empty(), "{answer:?}");
    }
    for (answer, (_, _, column)) in answers[2..].iter().zip(refused) {
        let error = answer.error.as_deref().unwrap_or_else(|| panic!("{column} is accepted"));
        if session.database == Database::Postgres && column == "body" {
            assert!(error.contains("invalid input syntax for type json"), "{error}");
        } else {
            assert!(error.contains(column), "{column}: {error}");
            let is_named = answer.column.as_deref() == Some(column);
            assert_eq!(is_named, session.database == Database::Postgres, "{answer:?}");
        }
    }
    let shown = session.tool.show(ID);
    let fields = ["key", "priority", "when_in_doubt", "template_id", "expires_at"].map(|name| shown[name].clone());
    let expected = [json!(KEY), json!(9), json!("hold"), Value::Null, json!("2100-01-01T00:00:00.000Z")];
    assert_eq!(fields, expected, "{shown}");
}

fn a_refused_row_names_the_column(session: &Session, keyed: &[String]) {
    let order =
        keyed.iter().find(|statement| statement.contains("order-4712")).unwrap().replace("order-4712", "order-1");
    let answers = session.run(&[(order.replace("'[\"bob@example.com\"]'", "'[]'"), None)]);
    let error = answers[0].error.as_deref().unwrap();
    assert!(error.contains("recipients"), "{error}");
    if session.database == Database::Postgres {
        assert!(error.contains("COLUMN NAME:  recipients"), "{error}");
    }
}

/// Another user can enqueue and read with the documented rights, and do nothing else.
fn the_rights_are_enough(session: &Session, rights: &[String], allowed: &[String]) {
    let user = session.user();
    let create = if session.database == Database::Postgres { "ROLE" } else { "USER" };
    session.ok(&[format!("CREATE {create} {user}")]);
    let as_user = |statement: &str| {
        let statement = session.adapt(statement);
        match session.database {
            Database::Postgres => session.command_line(&format!("SET ROLE {user};\n{statement}"), None),
            _ => session.command_line(&statement, Some(&user)),
        }
    };
    if session.database != Database::Postgres {
        // With the first right, a plain insert.
        session.ok(&rights[..1]);
        let (plain, _) = allowed[0].split_once("\nON DUPLICATE").unwrap();
        assert!(as_user(plain).error.is_some_and(|error| error.contains("1062")), "the key is taken");
        assert!(as_user(&plain.replace("welcome-4711", "rights")).error.is_none());
        session.ok(&["DELETE FROM postrider_deliveries WHERE `key` = 'rights'".to_owned()]);
    }
    session.ok(rights);
    for statement in allowed {
        let answer = as_user(statement);
        assert!(answer.error.is_none(), "{statement}: {answer:?}");
    }
    let (private, delete) = match session.database {
        Database::Postgres => ("SELECT body FROM postrider.outbox", "DELETE FROM postrider.deliveries"),
        _ => ("SELECT body FROM postrider_deliveries", "DELETE FROM postrider_deliveries"),
    };
    for statement in [private, delete] {
        assert!(as_user(statement).error.is_some_and(|error| error.contains("denied")), "{statement}");
    }
}

/// The row of a pending, a leased and a dead delivery.
fn the_view_shows_pending_leased_and_dead_mail(database: Database) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::smtp_server::{Answer as Reply, Step};
    use crate::tool::wait_until;

    let session = Session::new(database, Client::Python);
    let release = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&release);
    let server = SmtpServer::with_script(move |step| match step {
        Step::Recipient("nobody@example.com") => Reply::Refuse("550 5.1.1 no such user here"),
        Step::Recipient("slow@example.com") => {
            while !released.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Reply::Accept
        }
        _ => Reply::Accept,
    });
    let (tool, relation) =
        (&session.tool, if database == Database::Postgres { "postrider.mail" } else { "postrider_mail" });
    let later =
        tool.enqueue(&["--send-at", "2100-01-01T00:00:00Z", "--to", "later@example.com", "--to", "b@example.com"]);
    let slow = tool.enqueue(&["--to", "slow@example.com", "--subject", "Grüße"]);
    let dead = tool.enqueue(&["--to", "nobody@example.com"]);
    let view = || {
        let answer = session.ok(&[format!("SELECT * FROM {relation} LIMIT 20")]).remove(0);
        assert_eq!(answer.rows.len(), 3, "{answer:?}");
        answer.rows
    };
    let running = tool.start(&["work", "--poll", "20ms", "--transport", &server.url()]);
    wait_until("the relay has called for both", || {
        view().iter().filter(|row| row["state"].as_deref() == Some("dead")).count() == 1
    });
    let rows = view();
    let ids: Vec<_> = rows.iter().map(|row| row["id"].clone().unwrap()).collect();
    assert_eq!(ids, [&*dead, &slow, &later], "the newest first");
    let fields = |row: usize, names: [&str; 6]| names.map(|name| rows[row][name].clone().unwrap_or_default());
    let relay = tool.stats()["relays"][0]["id"].as_str().unwrap().to_owned();
    let names = ["state", "attempts", "recipient", "recipients", "subject", "leased_by"];
    assert_eq!(fields(0, names), ["dead", "1", "nobody@example.com", "1", "", ""]);
    assert_eq!(fields(1, names), ["leased", "0", "slow@example.com", "1", "Grüße", &relay[relay.len() - 6..]]);
    assert_eq!(fields(2, names), ["pending", "0", "later@example.com", "2", "", ""]);
    let names = ["last_error", "last_reply", "next_attempt_at", "leased_until", "finished_at", "transport"];
    let [error, reply, next, until, finished, transport] = fields(0, names);
    assert!(
        error.contains("550 5.1.1") && reply == "550 5.1.1 no such user here" && transport == "smtp",
        "{error}, {reply}"
    );
    assert!(next.is_empty() && until.is_empty() && finished.starts_with("20"), "{rows:?}");
    let [_, _, next, until, finished, _] = fields(1, names);
    assert!(next.is_empty() && until > rows[1]["enqueued_at"].clone().unwrap() && finished.is_empty(), "{rows:?}");
    let [_, _, next, until, finished, _] = fields(2, names);
    assert!(next.starts_with("2100-01-01 00:00:00") && until.is_empty() && finished.is_empty(), "{rows:?}");
    release.store(true, Ordering::Relaxed);
    running.signal("TERM");
    assert_eq!(running.wait().code, 0);
    assert_eq!(view()[1]["state"].as_deref(), Some("sent"));
}
