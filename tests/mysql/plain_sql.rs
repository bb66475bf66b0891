//! What the tables do with a plain insert, and which indexes find a delivery.

use postrider::{Filter, RecipientState};
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Row};

use crate::support::database::MySql;
use crate::support::fixture::email;
use crate::{outbox, run, scalar};

/// The trigger reads the subject and the tags from the mail, if it has any, and adds the recipients.
pub(crate) async fn an_insert_gets_subject_tags_and_recipients(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let insert = async |format: &str, body: &str, recipients: &str| {
        let sql = format!("INSERT INTO {prefix}deliveries (format, body, recipients) VALUES ('{format}', ?, ?)");
        sqlx::query(AssertSqlSafe(sql)).bind(body.to_owned()).bind(recipients.to_owned()).execute(&pool).await.unwrap();
        let listed = outbox.list(&Filter::new()).await.unwrap();
        let newest = listed.iter().max_by_key(|summary| summary.created_at).unwrap();
        let shown = outbox.get(newest.id).await.unwrap().unwrap();
        assert_eq!(newest.subject, shown.subject);
        run(&pool, &format!("DELETE FROM {prefix}deliveries")).await;
        (shown.subject, shown.tags)
    };
    let one = r#"["ada@example.com"]"#;
    let long = "é".repeat(1_001);
    for (body, subject, tags) in [
        (
            r#"{"subject": "Gr\u00fc\u00dfe \ud834\udd1e \"✓\" \\", "tags": ["a", "✓ \u00fc"]}"#,
            Some("Grüße 𝄞 \"✓\" \\"),
            vec!["a", "✓ ü"],
        ),
        (r#"{"subject": "", "tags": []}"#, None, vec![]),
        (r#"{"subject": null, "tags": null}"#, None, vec![]),
        (r#"{"subject": 7, "tags": "a"}"#, None, vec![]),
        ("{}", None, vec![]),
        ("[]", None, vec![]),
        (&format!(r#"{{"subject": "{long}"}}"#), Some(&long[..2_000]), vec![]),
    ] {
        let (found, found_tags) = insert("email/1", body, one).await;
        assert_eq!(
            (found.as_deref(), found_tags),
            (subject, tags.into_iter().map(str::to_owned).collect()),
            "{body:.80}"
        );
    }
    assert_eq!(insert("other/1", r#"{"subject": "x"}"#, one).await, (None, vec![]));
    assert_eq!(insert("other/1", "no JSON", one).await, (None, vec![]));

    let three = r#"["ada@example.com", "Bob@Example.com", "cy@example.com", "Bob@Example.com"]"#;
    run(
        &pool,
        &format!("INSERT INTO {prefix}deliveries (format, body, recipients) VALUES ('email/1', '{{}}', '{three}')"),
    )
    .await;
    let rows = format!("SELECT COUNT(*) FROM {prefix}recipients WHERE outcome IS NULL");
    assert_eq!(scalar(&pool, rows.clone()).await, 2);
    outbox.enqueue(email(&["ada@example.com", "dee@example.com"])).await.unwrap();
    assert_eq!(scalar(&pool, rows).await, 3);
    // A recipient without an outcome has that of the delivery.
    let listed = outbox.list(&Filter::new()).await.unwrap();
    assert_eq!(listed.iter().map(|summary| summary.recipients).sum::<u32>(), 4 + 2);
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1, "a mail without a text becomes a dead letter");
    for summary in listed {
        let shown = outbox.get(summary.id).await.unwrap().unwrap();
        let state = if shown.recipients.len() == 2 { RecipientState::Sent } else { RecipientState::Dead };
        assert!(shown.recipients.iter().all(|status| status.state == state), "{shown:?}");
    }
}

pub(crate) async fn an_insert_that_breaks_a_rule_is_refused_with_the_name_of_the_column(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let one = r#"'["ada@example.com"]'"#;
    let long = "x".repeat(701);
    for (columns, values, column) in [
        ("", format!("'no JSON', {one}"), "body"),
        ("", format!("NULL, {one}"), "body"),
        ("", "'{}', 'ada@example.com'".to_owned(), "recipients"),
        ("", "'{}', '{}'".to_owned(), "recipients"),
        ("", "'{}', '[]'".to_owned(), "recipients"),
        ("", format!("'{{}}', '[\"a@example.com\", \"{long}\"]'"), "address"),
        ("", "'{}', '[\"a@example.com\", {}]'".to_owned(), "address"),
        ("", "'{}', NULL".to_owned(), "recipients"),
        (", priority", format!("'{{}}', {one}, 10"), "priority"),
        (", send_at", format!("'{{}}', {one}, 253402300800000000"), "send_at"),
        (", created_at", format!("'{{}}', {one}, 253402300800000000"), "created_at"),
        (", when_in_doubt", format!("'{{}}', {one}, 'maybe'"), "when_in_doubt"),
        (", template_id", format!("'{{}}', {one}, REPEAT('x', 256)"), "template_id"),
        (", `key`", format!("'{{}}', {one}, ''"), "key"),
    ] {
        let insert = format!(
            "INSERT INTO {prefix}deliveries (format, `body`, recipients{columns}) VALUES ('email/1', {values})"
        );
        let error = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&pool).await.unwrap_err().to_string();
        assert!(error.contains(column), "{values:.80}: {error}");
    }
    if !server.is_mariadb() {
        // MariaDB's default limit for a packet is smaller than that for a mail.
        let half = "REPEAT('x', 33554432)";
        let insert = format!(
            "INSERT INTO {prefix}deliveries (format, `body`, recipients, `text`) VALUES ('other/1', {half}, {one}, CONCAT({half}, 'x'))"
        );
        let error = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&pool).await.unwrap_err().to_string();
        assert!(error.contains("body_size"), "{error}");
    }
    assert_eq!(outbox.stats().await.unwrap().pending, 0);
    assert_eq!(scalar(&pool, format!("SELECT COUNT(*) FROM {prefix}recipients")).await, 0);
}

/// `TRUNCATE` calls no trigger. docs/sql.md says which rows stay.
pub(crate) async fn truncating_the_deliveries_alone_leaves_history_and_totals(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    outbox.enqueue_all([email(&["ada@example.com"]), email(&["bob@example.com"])]).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
    outbox.enqueue(email(&["cy@example.com"])).await.unwrap();
    run(&pool, &format!("TRUNCATE TABLE {prefix}deliveries")).await;
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 0);
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.pending, stats.leased, stats.sent), (0, 0, 2));
    assert_eq!(scalar(&pool, format!("SELECT COUNT(*) FROM {prefix}attempts")).await, 2);
    assert_eq!(scalar(&pool, format!("SELECT COUNT(*) FROM {prefix}mail")).await, 0);
}

/// A search by an address, a domain or the provider's id uses an index, however many deliveries there are.
pub(crate) async fn indexes_find_recipients_and_provider_ids(server: MySql) {
    let (prefix, pool, _) = outbox(&server).await;
    let fill = format!(
        "INSERT INTO {prefix}deliveries (id, format, body, recipients)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 900)
         SELECT UNHEX(LPAD(HEX(n), 32, '0')), 'email/1', '{{}}', CONCAT('[\"Ada', n, '@Example.com\", \"Bob', n, '@Example.org\"]') FROM n;
         INSERT INTO {prefix}attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome, provider_id)
         SELECT id, 1, 1, 1, 0, 0, 'sent', CONCAT('provider-', HEX(id)) FROM {prefix}deliveries;
         ANALYZE TABLE {prefix}deliveries, {prefix}recipients, {prefix}attempts"
    );
    run(&pool, &fill).await;
    let provider_id = format!("provider_id = 'provider-{}1'", "0".repeat(31));
    for (table, condition, index, found) in [
        ("deliveries", "reversed = REVERSE(LOWER('ADA7@example.com'))", "deliveries_reversed", 1),
        ("deliveries", "reversed LIKE REVERSE('1@example.com%')", "deliveries_reversed", 0),
        ("deliveries", "reversed LIKE 'moc.elpmaxe@77%'", "deliveries_reversed", 9),
        ("recipients", "reversed = REVERSE(LOWER('bob7@example.org'))", "recipients_reversed", 1),
        ("recipients", "reversed LIKE 'gro.elpmaxe@77%'", "recipients_reversed", 9),
        ("attempts", &provider_id, "attempts_provider_id", 1),
    ] {
        let count = format!("SELECT COUNT(*) FROM {prefix}{table} WHERE {condition}");
        assert_eq!(scalar(&pool, count.clone()).await, found, "{condition}");
        assert_eq!(index_of(&pool, &count).await, index, "{condition}");
    }
}

/// The index that a query uses.
async fn index_of(pool: &MySqlPool, query: &str) -> String {
    // MySQL's default form is a tree.
    let explain = format!("EXPLAIN {} {query}", if is_mysql(pool).await { "FORMAT=TRADITIONAL" } else { "" });
    let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(pool).await.unwrap();
    row.try_get::<Option<String>, _>("key").unwrap().unwrap_or_default()
}

async fn is_mysql(pool: &MySqlPool) -> bool {
    let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(pool).await.unwrap();
    !version.contains("MariaDB")
}
