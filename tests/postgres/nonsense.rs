//! What other programs may have written, in the outbox's tables and in databases of other encodings.

use postrider::Filter;
use sqlx::AssertSqlSafe;

use crate::nonsense_support::{Dialect, rows_that_make_no_sense_stop_nobody, rows_without_a_mail_are_removed};
use super::*;

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
    run(&pool, "INSERT INTO postrider.deliveries (format, body, recipients) VALUES ('email/1', '{}', E'[\"\\xff\"]')")
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
    assert_eq!(fresh().resend(id).await.unwrap(), postrider::Changed::Done);
    assert_eq!(fresh().cancel(id).await.unwrap(), postrider::Changed::Done);
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
