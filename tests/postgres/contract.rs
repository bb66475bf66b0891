//! The rules of the SQL contract: the insert trigger, and the function `enqueue`.

use postrider::Store;
use sqlx::AssertSqlSafe;

use crate::outbox;
use crate::support::database::{Harness, Postgres};
use crate::support::fixture::ada;

/// The error names the column. Invariant 5.
pub(crate) async fn the_insert_trigger_names_the_rule_that_a_row_breaks(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let good = ["'email/1'", "'{}'", "'[\"ada@example.com\"]'", "NULL", "NULL", "5", "'resend'", "NULL", "NULL"];
    let columns =
        ["format", "body", "recipients", "template_id", "key", "priority", "when_in_doubt", "send_at", "expires_at"];
    let many = |n: u32| format!("(SELECT json_agg('ada@example.com'::text) FROM generate_series(1, {n}))");
    let bad = [
        (0, "repeat('x', 65)".to_owned()),
        (1, "repeat('x', 67108865)".to_owned()),
        (1, "'[]'".to_owned()),
        (1, r#"'{"subject": "\ud800"}'"#.to_owned()),
        (2, "'[]'".to_owned()),
        (2, r#"'["a\ud800@example.com"]'"#.to_owned()),
        (2, "'{}'".to_owned()),
        (2, "'[7]'".to_owned()),
        (2, "'[\"nobody\"]'".to_owned()),
        (2, "'[\"ada@example.com\", \"nobody\"]'".to_owned()),
        (2, "'[\"a\\u0000@example.com\"]'".to_owned()),
        (2, format!("'[\"{}@example.com\"]'", "x".repeat(700))),
        (2, many(10_001)),
        (3, "repeat('x', 256)".to_owned()),
        (4, "repeat('x', 256)".to_owned()),
        (4, "''".to_owned()),
        (5, "10".to_owned()),
        (6, "'odd'".to_owned()),
        (7, "'infinity'".to_owned()),
        (7, "'10000-01-01'".to_owned()),
        (8, "'infinity'".to_owned()),
    ];
    let insert = async |values: [&str; 9]| {
        let (columns, values) = (columns.join(", "), values.join(", "));
        let add = format!("INSERT INTO \"{schema}\".outbox ({columns}) VALUES ({values})");
        sqlx::raw_sql(AssertSqlSafe(add)).execute(&pool).await
    };
    for (place, value) in &bad {
        let mut values = good;
        values[*place] = value;
        let error = insert(values).await.expect_err(value).to_string();
        assert!(error.contains(columns[*place]), "{value:.60}: {error}");
    }
    insert(good).await.unwrap();
    let text = "repeat('x', 255)";
    let most = ["'pager/1'", "'x'", &many(10_000), text, text, "9", "'hold'", "'2100-01-01'", "'2100-01-01'"];
    insert(most).await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 2);
    // Every driver knows the columns' types.
    let types: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, coalesce(domain_name, udt_name)::text FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = 'outbox'",
    )
    .bind(&schema)
    .fetch_all(&pool)
    .await
    .unwrap();
    let known = ["uuid", "timestamptz", "text", "json", "int2"];
    assert!(types.iter().all(|(_, name)| known.contains(&name.as_str())), "{types:?}");
}

/// The function reads the mail itself: it finds a misspelt field, a malformed mailbox, and two mailboxes in one. Invariant 5.
pub(crate) async fn the_function_names_what_is_wrong_with_a_mail(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let enqueue = async |mail: &str| {
        let enqueue = format!("SELECT \"{schema}\".enqueue($1::jsonb)");
        sqlx::query(AssertSqlSafe(enqueue)).bind(mail).execute(&pool).await
    };
    for (mail, named) in [
        (r#"[]"#, "not a JSON object"),
        (r#"{"from": "s@example.com", "to": ["a@b.c"], "sujbect": "Hi", "text": "x"}"#, "sujbect"),
        (r#"{"from": "s@example.com", "to": ["nobody"], "text": "x"}"#, "\"to\", entry 1"),
        (
            r#"{"from": "s@example.com", "to": ["a@b.c", {"name": "x", "address": "y"}], "text": "x"}"#,
            "\"to\", entry 2",
        ),
        (r#"{"from": "s@example.com", "to": "a@b.c", "text": "x"}"#, "\"to\" must be an array"),
        (r#"{"from": "nobody", "to": ["a@b.c"], "text": "x"}"#, "\"from\", entry 1"),
        (r#"{"from": "s@example.com", "to": ["\"L, Ada\" <a@b.c>, \"B\" <b@b.c>"], "text": "x"}"#, "\"to\", entry 1"),
        (r#"{"from": "s@example.com", "cc": ["a@b.c, Bob <b@b.c>"], "text": "x"}"#, "\"cc\", entry 1"),
        (r#"{"from": "s@example.com", "to": ["a@b.c, b@b.c"], "text": "x"}"#, "\"to\", entry 1"),
        (r#"{"to": ["a@b.c"], "text": "x"}"#, "must have a \"from\""),
        (r#"{"from": "s@example.com", "to": ["a@b.c"]}"#, "\"text\" or \"html\""),
        (r#"{"from": "s@example.com", "text": "x"}"#, "no recipient"),
    ] {
        let error = enqueue(mail).await.expect_err(mail).to_string();
        assert!(error.contains(named), "{mail}: {error}");
    }
    let good = r#"{"from": {"name": "Shop", "address": "s@example.com"}, "to": ["\"L, Ada <x>\" <ada@example.com>", "Bob <bob@example.com>"],
        "cc": ["\"a b\"@example.com"], "bcc": [{"name": "", "address": "eve@example.com"}], "text": "x"}"#;
    enqueue(good).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    let sent: Vec<_> = outbox.transport().calls()[0].recipients.iter().map(|r| r.as_str().to_owned()).collect();
    assert_eq!(sent, ["ada@example.com", "bob@example.com", "\"a b\"@example.com", "eve@example.com"]);
}

pub(crate) async fn emptying_the_table_of_mails_empties_the_outbox(server: Postgres) {
    let harness = Harness::new(server).await;
    harness.outbox.enqueue_all([ada(), ada()]).await.unwrap();
    harness.run("TRUNCATE {t}deliveries").await;
    assert_eq!(harness.number("SELECT count(*) FROM {t}queue").await, 0);
    assert_eq!(harness.outbox.store().next_due().await.unwrap(), None);
    assert_eq!(harness.outbox.stats().await.unwrap().sent, 0);
}
