//! Databases in other encodings than UTF-8.

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Email, Filter, Outbox, PgStore, State, StoreErrorKind, UpdateOutcome};
use sqlx::postgres::PgPool;

use crate::run;
use crate::support::database::{Postgres, unique_name};
use crate::support::fixture::ada;

/// A database without an encoding stores any bytes as text. Invariants 4, 5.
pub(crate) async fn a_text_that_is_not_utf_8_becomes_a_dead_letter(server: Postgres) {
    let (name, everywhere) = database(&server, "SQL_ASCII").await;
    let pool = PgPool::connect_with(everywhere.connect_options().as_ref().clone().database(&name)).await.unwrap();
    let outbox = Outbox::new(PgStore::new(pool.clone()), ScriptedTransport::<Email>::new());
    outbox.migrate().await.unwrap();
    let odd = "E'{\"text\": \"\\xff\"}'";
    for values in [[odd, "'{}'", "NULL"], ["'email/1'", odd, "NULL"], ["'email/1'", "'{}'", odd]] {
        let values = values.join(", ");
        let add = format!(
            "INSERT INTO postrider.outbox (format, body, template_id, recipients) VALUES ({values}, '[\"ada@example.com\"]')"
        );
        run(&pool, &add).await;
    }
    run(&pool, "INSERT INTO postrider.outbox (format, body, recipients) VALUES ('email/1', '{}', E'[\"\\xff@b.c\"]')")
        .await;
    let good = outbox.enqueue(ada()).await.unwrap();
    run(&pool, "UPDATE postrider.deliveries SET traceparent = E'\\xff'").await;
    let summary = outbox.relay().drain().await.unwrap();
    assert_eq!((summary.sent, summary.dead), (1, 4));
    let listed = outbox.list(&Filter::new().state(State::Dead)).await.unwrap();
    assert_eq!(listed.len(), 4);
    for dead in listed {
        assert!(dead.last_error.as_deref().unwrap().contains("the stored row cannot be read"), "{dead:?}");
        assert_eq!(outbox.get(dead.id).await.unwrap().unwrap().state, State::Dead);
    }
    let good = outbox.get(good).await.unwrap().unwrap();
    assert_eq!((good.state, good.traceparent, good.malformed), (State::Sent, None, None));
    // Each call uses a new store, so that each one has to handle the encoding.
    let fresh = || PgStore::new(pool.clone());
    let id = outbox.list(&Filter::new().state(State::Dead)).await.unwrap()[1].id;
    fresh().get(id).await.unwrap();
    fresh().message(id).await.unwrap_err();
    fresh().list(&Filter::new()).await.unwrap();
    assert_eq!(fresh().resend(id).await.unwrap(), UpdateOutcome::Updated);
    assert_eq!(fresh().cancel(id).await.unwrap(), UpdateOutcome::Updated);
    run(&pool, "INSERT INTO postrider.relays (id, seen_at, in_flight, paused) VALUES ('a', now(), 0, E'\\xff')").await;
    assert_eq!(fresh().stats().await.unwrap().relays.len(), 1);
    pool.close().await;
    run(&everywhere, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

/// If the encoding lacks a character of a server's reply, the relay could not record the attempt and would send the mail again.
pub(crate) async fn a_database_in_another_encoding_is_refused_in_one_line(server: Postgres) {
    let (name, everywhere) = database(&server, "LATIN1").await;
    let pool = PgPool::connect_with(everywhere.connect_options().as_ref().clone().database(&name)).await.unwrap();
    let error = PgStore::new(pool.clone()).migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected);
    assert!(error.to_string().contains("LATIN1") && !error.to_string().contains('\n'), "{error}");
    pool.close().await;
    run(&everywhere, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

/// The name of a new database in an encoding, and a pool on another database, which can drop it.
async fn database(server: &Postgres, encoding: &str) -> (String, PgPool) {
    let everywhere = PgPool::connect(&server.url()).await.unwrap();
    let name = unique_name();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
    run(&everywhere, &create).await;
    (name, everywhere)
}
