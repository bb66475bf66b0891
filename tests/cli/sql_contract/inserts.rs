//! Inserts by the command-line clients of the servers, and what they refuse.

use super::{assert_sent, is_version_7};
use crate::database_servers::{MySqlServer, postgres, psql};
use crate::smtp_server::Mail;

#[test]
#[ignore = "needs PostgreSQL: run scripts/test"]
fn psql_enqueues_with_the_function() {
    let (tool, schema) = postgres();
    psql(&tool.ok(&["migrate", "--print"]));
    tool.ok(&["migrate"]);
    let enqueue = |arguments: &str| psql(&format!("SELECT \"{schema}\".enqueue({arguments})")).trim_end().to_owned();

    let mail = r#"{"from": "Shop <shop@example.com>", "to": ["Ada <ada@example.com>", "bob@example.com"],
        "cc": [{"name": "Cy <the third>", "address": "cy@example.com"}], "bcc": ["dee@example.com"], "subject": "Grüße", "text": "Hello",
        "template_id": "welcome"}"#;
    let first = enqueue(&format!("'{mail}', key => 'order-1', priority => 7, when_in_doubt => 'hold'"));
    assert!(is_version_7(&first), "{first}");
    let shown = tool.show(&first);
    assert_eq!((&shown["template_id"], &shown["key"]), (&"welcome".into(), &"order-1".into()));
    assert_eq!((&shown["priority"], &shown["when_in_doubt"]), (&7.into(), &"hold".into()));
    assert_eq!(enqueue(&format!("'{mail}', key => 'order-1'")), first, "the same key gives the same delivery");

    let later = enqueue(
        r#"'{"from": "a@example.com", "to": ["b@example.com"], "text": "x"}', send_at => '2100-01-01T00:00:00Z'"#,
    );
    assert!(later > first, "ids sort by age");
    let overridden = r#"jsonb_build_object('from', 'a@example.com', 'to', '["list@example.com"]'::jsonb, 'text', 'x'), recipients => '{eve@example.com}'"#;
    enqueue(overridden);
    // The mail is rolled back with the caller's transaction.
    let bare = r#"'{"from": "a@example.com", "to": ["nobody@example.com"], "text": "x"}'"#;
    psql(&format!("BEGIN; SELECT \"{schema}\".enqueue({bare}); ROLLBACK"));

    let everybody = ["ada@example.com", "bob@example.com", "cy@example.com", "dee@example.com"];
    let mails = assert_sent(&tool, &[&everybody, &["eve@example.com"]]);
    assert!(mails.iter().any(|mail| mail.delivery_id() == first), "the function returns the id of the delivery");
    assert_eq!(tool.show(&later)["due_at"], "2100-01-01T00:00:00.000Z");
    assert_eq!(tool.list(&[]).len(), 3);
}

#[test]
#[ignore = "needs PostgreSQL: run scripts/test"]
fn the_function_refuses_invalid_arguments() {
    let (tool, schema) = postgres();
    tool.ok(&["migrate"]);
    for arguments in [
        "NULL",
        "'[]'",
        r#"'{"from": "a@example.com", "text": "x"}'"#,
        r#"'{"from": "a@example.com", "to": [], "text": "x"}'"#,
        r#"'{"from": "a@example.com", "to": [null], "text": "x"}'"#,
        r#"'{"from": "a@example.com", "to": "b@example.com", "text": "x"}'"#,
        r#"'{"from": "a@example.com", "text": "x", "to": ["b@example.com"]}', recipients => '{}'"#,
        r#"'{"from": "a@example.com", "text": "x", "to": ["b@example.com"]}', recipients => '{NULL}'"#,
        r#"'{"from": "a@example.com", "text": "x", "to": ["b@example.com"]}', priority => 10"#,
        r#"'{"from": "a@example.com", "text": "x", "to": ["b@example.com"]}', when_in_doubt => 'maybe'"#,
        r#"'{"from": "a@example.com", "text": "x", "to": ["b@example.com"]}', send_at => 'infinity'"#,
        "'no JSON'",
    ] {
        let refused = format!(
            "DO $test$ BEGIN PERFORM \"{schema}\".enqueue({arguments}); RAISE 'it was taken'; EXCEPTION
                 WHEN check_violation OR invalid_text_representation THEN NULL; END $test$"
        );
        psql(&refused);
    }
    assert_eq!(tool.stats()["pending"], 0);
}

#[test]
#[ignore = "needs PostgreSQL: run scripts/test"]
fn a_role_with_the_right_to_enqueue_can_only_enqueue() {
    let (tool, schema) = postgres();
    tool.ok(&["migrate"]);
    let role = format!("{schema}shop");
    let call =
        format!(r#"SELECT "{schema}".enqueue('{{"from": "a@example.com", "to": ["b@example.com"], "text": "x"}}')"#);
    let denied = |statement: &str| {
        format!(
            "DO $test$ BEGIN EXECUTE $${statement}$$; RAISE 'it was allowed'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $test$;"
        )
    };
    psql(&format!(
        r#"CREATE ROLE "{role}"; GRANT USAGE ON SCHEMA "{schema}" TO "{role}"; SET ROLE "{role}"; {}
           RESET ROLE; GRANT EXECUTE ON FUNCTION "{schema}".enqueue TO "{role}"; SET ROLE "{role}"; {call}; {}"#,
        denied(&call),
        denied(&format!("SELECT body FROM \"{schema}\".bodies")),
    ));
    psql(&format!(
        r#"REVOKE EXECUTE ON FUNCTION "{schema}".enqueue FROM "{role}"; GRANT INSERT ON "{schema}".outbox TO "{role}"; SET ROLE "{role}"; {}
           INSERT INTO "{schema}".outbox (format, body, recipients)
           VALUES ('email/1', '{{"from": "a@example.com", "to": ["c@example.com"], "text": "x"}}', '["c@example.com"]')"#,
        denied(&call),
    ));
    assert_sent(&tool, &[&["b@example.com"], &["c@example.com"]]);
    psql(&format!(r#"DROP OWNED BY "{role}"; DROP ROLE "{role}""#));
}

#[test]
#[ignore = "needs PostgreSQL: run scripts/test"]
fn psql_enqueues_many_mails_with_one_insert() {
    let (tool, schema) = postgres();
    tool.ok(&["migrate"]);
    let ids = psql(&format!(
        r#"INSERT INTO "{schema}".outbox (format, body, recipients)
           SELECT 'email/1', json_build_object('from', 'shop@example.com', 'to', json_build_array(mail), 'text', 'Hello'), jsonb_build_array(mail)
           FROM (VALUES ('ada@example.com'), ('bob@example.com')) customers (mail) RETURNING id"#
    ));
    assert!(ids.lines().count() == 2 && ids.lines().all(is_version_7), "{ids}");
    assert_sent(&tool, &[&["ada@example.com"], &["bob@example.com"]]);
}

/// Checks the text of a mail with a mail parser.
fn assert_text(mail: &Mail) {
    let parsed = mail_parser::MessageParser::default().parse(&mail.content).unwrap();
    let text = parsed.body_text(0).map(|text| text.replace("\r\n", "\n"));
    assert_eq!(text.as_deref(), Some("Grüße, and some more words that nobody need encode,\n\"Ada\""));
}

#[test]
#[ignore = "needs PostgreSQL: run scripts/test"]
fn psql_writes_and_reads_a_text_beside_the_json_object() {
    let (tool, schema) = postgres();
    tool.ok(&["migrate"]);
    psql(&format!(
        r#"INSERT INTO "{schema}".outbox (format, body, text, recipients)
           VALUES ('email/1', '{{"from": "shop@example.com", "to": ["ada@example.com"]}}',
               E'Grüße, and some more words that nobody need encode,\n"Ada"', '["ada@example.com"]')"#
    ));
    assert_text(&assert_sent(&tool, &[&["ada@example.com"]])[0]);

    let id =
        tool.enqueue(&["--from", "a@example.com", "--to", "b@example.com", "--subject", "Grüße", "--text", "One\nTwo"]);
    let subject = format!("body::json ->> 'subject', text FROM \"{schema}\".outbox WHERE id = '{id}'");
    assert_eq!(psql(&format!("SELECT {subject}")).trim_end(), "Grüße|One\nTwo");
}

/// Generates each test for each server's command-line client.
macro_rules! for_each_client {
    ($($test:ident),* $(,)?) => {
        mod mariadb {
            $(
                #[test]
                #[ignore = "needs MariaDB: run scripts/test"]
                fn $test() {
                    super::$test(super::MySqlServer::MariaDb);
                }
            )*
        }

        mod mysql {
            $(
                #[test]
                #[ignore = "needs MySQL: run scripts/test"]
                fn $test() {
                    super::$test(super::MySqlServer::MySql);
                }
            )*
        }
    };
}

for_each_client!(the_client_writes_the_text_into_a_column, the_client_enqueues_with_an_insert);

fn the_client_writes_the_text_into_a_column(server: MySqlServer) {
    let (tool, prefix) = server.tool();
    tool.ok(&["migrate"]);
    server.run_sql(&format!(
        r#"SET @t = 'Grüße, and some more words that nobody need encode,\n"Ada"';
           INSERT INTO {prefix}deliveries (format, body, text, recipients)
           VALUES ('email/1', '{{"from": "shop@example.com", "to": ["ada@example.com"]}}', @t, '["ada@example.com"]')"#
    ));
    assert_text(&assert_sent(&tool, &[&["ada@example.com"]])[0]);
}

fn the_client_enqueues_with_an_insert(server: MySqlServer) {
    let (tool, prefix) = server.tool();
    server.run_sql(&tool.ok(&["migrate", "--print"]));
    tool.ok(&["migrate"]);
    let insert = |more: &str, values: &str, end: &str| {
        server.run_sql(&format!(
            r#"INSERT INTO {prefix}deliveries (format, body, recipients{more}) VALUES ('email/1',
               '{{"from": "Shop <shop@example.com>", "to": ["ada@example.com"], "subject": "Grüße", "text": "Hello"}}',
               '["ada@example.com"]'{values}) {end}"#
        ))
    };
    insert(", `key`, template_id", ", 'order-1', 'welcome'", "ON DUPLICATE KEY UPDATE id = id");
    insert(", `key`, template_id", ", 'order-1', 'again'", "ON DUPLICATE KEY UPDATE id = id");
    insert(", send_at", ", TIMESTAMPDIFF(MICROSECOND, '1970-01-01', '2100-01-01')", "");
    server.run_sql(&format!(
        r#"START TRANSACTION;
           INSERT INTO {prefix}deliveries (format, body, recipients) VALUES ('email/1', '{{}}', '["nobody@example.com"]'); ROLLBACK"#
    ));
    let listed = tool.list(&[]);
    let ids: Vec<_> = listed.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| is_version_7(id)), "{ids:?}");
    let first = tool.show(ids[0]);
    assert_eq!((&first["key"], &first["template_id"]), (&"order-1".into(), &"welcome".into()));
    assert_eq!(tool.show(ids[1])["due_at"], "2100-01-01T00:00:00.000Z");
    let mails = assert_sent(&tool, &[&["ada@example.com"]]);
    assert_eq!(mails[0].delivery_id(), ids[0]);
}
