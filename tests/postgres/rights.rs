//! What a program may do that has been given few rights.

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Email, Outbox, PgStore, Store, StoreErrorKind};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};

use super::{ada, new_schema, outbox, run, url};

/// The triggers act with their owner's rights; nobody may hang them on a table of their own and so write into the queue.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn nobody_may_borrow_a_trigger() {
    let (schema, pool, _outbox) = outbox().await;
    let role = new_schema();
    run(&pool, &format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO {role}")).await;
    run(&pool, &format!("GRANT EXECUTE ON FUNCTION \"{schema}\".enqueue TO {role}")).await;
    let stranger = url("PG").replacen("postgres@", &format!("{role}@"), 1);
    let stranger = PgPoolOptions::new().max_connections(1).connect(&stranger).await.unwrap();
    let enqueue = format!(
        "SELECT \"{schema}\".enqueue('{{\"from\":\"a@example.com\",\"to\":[\"Ada@Example.COM\",\"Ada@example.com\"],\"text\":\"x\"}}')"
    );
    let keyed = enqueue.replace("')", "', key => '')");
    let nameless = stranger.execute(AssertSqlSafe(keyed)).await.unwrap_err();
    assert_eq!(nameless.as_database_error().and_then(|error| error.code()).as_deref(), Some("23514"), "{nameless}");
    stranger.execute(AssertSqlSafe(enqueue)).await.expect("what it was let do");
    let named: i32 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT json_array_length(recipients) FROM \"{schema}\".deliveries")))
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(named, 1, "who is named twice is mailed once");

    let forged = "CREATE TEMP TABLE mine (id uuid, priority smallint, send_at timestamptz, created_at timestamptz, expires_at timestamptz)";
    stranger.execute(forged).await.unwrap();
    let trigger = format!(
        "CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS added FOR EACH STATEMENT
         EXECUTE FUNCTION \"{schema}\".take_in()"
    );
    let refused = stranger.execute(AssertSqlSafe(trigger)).await.unwrap_err();
    assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{refused}");
    stranger.close().await;
    run(&pool, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// A user who may do nothing yet, and a pool of that user's.
async fn user(pool: &PgPool) -> (String, PgPool) {
    let name = new_schema();
    run(pool, &format!("CREATE ROLE \"{name}\" LOGIN")).await;
    let options: PgConnectOptions = url("PG").parse().unwrap();
    let own = PgPoolOptions::new().max_connections(2).connect_with(options.username(&name)).await.unwrap();
    (name, own)
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn who_was_given_a_schema_needs_no_right_to_make_one() {
    let (schema, pool) = (new_schema(), PgPool::connect(&url("PG")).await.unwrap());
    let (name, own) = user(&pool).await;
    let store = PgStore::in_schema(own, &schema).unwrap();
    let refused = store.migrate().await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Rejected, "{refused}");
    run(&pool, &format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION \"{name}\"")).await;
    store.migrate().await.unwrap();
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn who_may_delete_a_delivery_needs_no_other_right_to_forget_it() {
    let (schema, pool, outbox) = outbox().await;
    let (name, own) = user(&pool).await;
    let rights = format!(
        "GRANT USAGE ON SCHEMA \"{schema}\" TO \"{name}\"; GRANT SELECT, DELETE ON \"{schema}\".deliveries TO \"{name}\""
    );
    run(&pool, &rights).await;
    outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
    run(&own, &format!("DELETE FROM \"{schema}\".deliveries")).await;
    assert_eq!(outbox.store().next_due().await.unwrap(), None);
    // What acts with its owner's rights can be attached to no table of somebody else's.
    run(&pool, &format!("CREATE SCHEMA AUTHORIZATION \"{name}\"")).await;
    let attach = format!(
        "CREATE TABLE \"{name}\".mine (id uuid);
         CREATE TRIGGER take_out AFTER DELETE ON \"{name}\".mine
             REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION \"{schema}\".take_out()"
    );
    let refused = sqlx::raw_sql(AssertSqlSafe(attach)).execute(&own).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{refused}");
}
