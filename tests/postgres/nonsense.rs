//! What other programs may have written, in the outbox's tables and in databases of other encodings.

use postrider::Filter;
use sqlx::AssertSqlSafe;

use super::*;
use crate::nonsense_support::{Dialect, rows_that_make_no_sense_stop_nobody, rows_without_a_mail_are_removed};

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn rows_of_the_queue_and_the_history_that_make_no_sense_stop_nobody() {
    let (schema, pool, outbox) = outbox().await;
    let dialect = Dialect {
        prefix: &format!("\"{schema}\"."),
        id: |id| format!("'{id}'"),
        times: ["'-infinity'", "'infinity'"],
        last_count: i32::MAX.into(),
        unruled: &[
            "ALTER DOMAIN {p}outcome DROP CONSTRAINT outcome_check",
            "ALTER DOMAIN {p}scope DROP CONSTRAINT scope_check",
            "ALTER TABLE {p}ended DROP CONSTRAINT ended_state_check",
            "ALTER TABLE {p}recipients DROP CONSTRAINT recipients_outcome_check",
        ],
    };
    rows_that_make_no_sense_stop_nobody(outbox.store().clone(), dialect, async |sql| run(&pool, &sql).await).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn rows_whose_mails_were_deleted_behind_the_triggers_are_removed() {
    let (schema, pool, outbox) = outbox().await;
    let lose = async |id: DeliveryId| {
        let lose = format!(
            "SET session_replication_role = replica; DELETE FROM \"{schema}\".deliveries WHERE id = '{id}';
             RESET session_replication_role"
        );
        run(&pool, &lose).await;
    };
    let queued = async || {
        let count = format!("SELECT count(*) FROM \"{schema}\".queue");
        sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&pool).await.unwrap()
    };
    rows_without_a_mail_are_removed(outbox.store().clone(), lose, queued).await;
    // Whoever empties the table of mails empties the outbox.
    outbox.enqueue_all([ada(), ada()]).await.unwrap();
    run(&pool, &format!("TRUNCATE \"{schema}\".deliveries")).await;
    assert_eq!((queued().await, outbox.store().next_due().await.unwrap()), (0, None));
    assert_eq!(outbox.stats().await.unwrap().sent, 0);
}

/// A database without an encoding keeps any octets as a text.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_text_that_is_no_utf_8_becomes_a_dead_letter() {
    let (name, everywhere) = database("SQL_ASCII").await;
    let pool = PgPool::connect_with(everywhere.connect_options().as_ref().clone().database(&name)).await.unwrap();
    let outbox = Outbox::new(PgStore::new(pool.clone()), ScriptedTransport::<Email>::new());
    outbox.migrate().await.unwrap();
    let odd = "E'{\"text\": \"\\xff\"}'";
    for values in [[odd, "'{}'", "NULL"], ["'email/1'", odd, "NULL"], ["'email/1'", "'{}'", odd]] {
        let values = values.join(", ");
        let add = format!(
            "INSERT INTO postrider.deliveries (format, body, template_id, recipients) VALUES ({values}, '[\"ada@example.com\"]')"
        );
        run(&pool, &add).await;
    }
    run(
        &pool,
        "INSERT INTO postrider.deliveries (format, body, recipients) VALUES ('email/1', '{}', E'[\"\\xff@b.c\"]')",
    )
    .await;
    let good = outbox.enqueue(ada()).await.unwrap();
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!((pass.sent, pass.dead), (1, 4));
    let listed = outbox.list(&Filter::new().state(State::Dead)).await.unwrap();
    assert_eq!(listed.len(), 4);
    for dead in listed {
        assert!(dead.last_error.as_deref().unwrap().contains("the stored row cannot be read"), "{dead:?}");
        assert_eq!(outbox.get(dead.id).await.unwrap().unwrap().state, State::Dead);
    }
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
    // Each call by itself finds out.
    let fresh = || PgStore::new(pool.clone());
    let id = outbox.list(&Filter::new().state(State::Dead)).await.unwrap()[1].id;
    fresh().get(id).await.unwrap();
    fresh().message(id).await.unwrap_err();
    fresh().list(&Filter::new()).await.unwrap();
    assert_eq!(fresh().resend(id).await.unwrap(), postrider::UpdateOutcome::Updated);
    assert_eq!(fresh().cancel(id).await.unwrap(), postrider::UpdateOutcome::Updated);
    run(&pool, "INSERT INTO postrider.relays (id, seen_at, in_flight, paused) VALUES ('a', now(), 0, E'\\xff')").await;
    assert_eq!(fresh().stats().await.unwrap().relays.len(), 1);
    pool.close().await;
    run(&everywhere, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

/// Where not every character has a place, a server's reply might not be written down, and the mail would be sent again.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_database_of_another_encoding_is_refused_in_one_line() {
    let (name, everywhere) = database("LATIN1").await;
    let pool = PgPool::connect_with(everywhere.connect_options().as_ref().clone().database(&name)).await.unwrap();
    let error = PgStore::new(pool.clone()).migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected);
    assert!(error.to_string().contains("LATIN1") && !error.to_string().contains('\n'), "{error}");
    pool.close().await;
    run(&everywhere, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

/// A new database of an encoding, and where to drop it.
async fn database(encoding: &str) -> (String, PgPool) {
    let everywhere = PgPool::connect(&url("PG")).await.unwrap();
    let name = new_schema();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
    run(&everywhere, &create).await;
    (name, everywhere)
}

/// What a relay could not send is named when it is enqueued, with the field that is wrong, also by size.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_breaks_a_rule_is_refused_at_once_and_named() {
    let (schema, pool, outbox) = outbox().await;
    let good = ["'email/1'", "'{}'", "'[\"ada@example.com\"]'", "NULL", "NULL", "5", "'resend'", "NULL"];
    let columns = ["format", "body", "recipients", "template_id", "key", "priority", "when_in_doubt", "send_at"];
    let many = |n: u32| format!("(SELECT json_agg('ada@example.com'::text) FROM generate_series(1, {n}))");
    let bad = [
        (0, "repeat('x', 65)".to_owned()),
        (1, "repeat('x', 67108865)".to_owned()),
        (2, "'[]'".to_owned()),
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
    ];
    let insert = async |values: [&str; 8]| {
        let (columns, values) = (columns.join(", "), values.join(", "));
        let add = format!("INSERT INTO \"{schema}\".deliveries ({columns}) VALUES ({values})");
        sqlx::raw_sql(AssertSqlSafe(add)).execute(&pool).await
    };
    for (place, value) in &bad {
        let mut values = good;
        values[*place] = value;
        let error = insert(values).await.expect_err(value).to_string();
        assert!(error.contains(columns[*place]), "{value:.60}: {error}");
    }
    insert(good).await.unwrap();
    let most =
        ["'pager/1'", "'x'", &many(10_000), "repeat('x', 255)", "repeat('x', 255)", "9", "'hold'", "'2100-01-01'"];
    insert(most).await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 2);
    // The columns are of types that every driver knows.
    let types: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, coalesce(domain_name, udt_name)::text FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = 'deliveries'",
    )
    .bind(&schema)
    .fetch_all(&pool)
    .await
    .unwrap();
    let known = ["uuid", "timestamptz", "text", "json", "int2"];
    assert!(types.iter().all(|(_, name)| known.contains(&name.as_str())), "{types:?}");
}

/// The function looks at the mail itself: a field that is misspelt, a mailbox that is none, or that is two.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn the_function_names_what_is_wrong_with_a_mail() {
    let (schema, pool, outbox) = outbox().await;
    let enqueue = async |mail: &str| {
        let enqueue = format!("SELECT \"{schema}\".enqueue($1::jsonb)");
        sqlx::query(AssertSqlSafe(enqueue)).bind(mail).execute(&pool).await
    };
    for (mail, named) in [
        (r#"[]"#, "no JSON object"),
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
