//! Users with few rights.

use std::time::Duration;

use postrider::store::Claim;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Attachment, Blob, Recipient};
use postrider::{
    AdminStore, AuditFilter, Change, Email, Filter, NewDelivery, Outbox, PauseTarget, PgStore, Prune, State, Store,
    StoreErrorKind, UpdateOutcome,
};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::database::{Database, Postgres, unique_name};
use crate::support::fixture::{SECOND, ada, keyed_row, row};
use crate::{outbox, run};

/// The triggers run with their owner's rights. A user who may only enqueue must not attach them to another table, which would allow writes
/// to the queue.
pub(crate) async fn a_stranger_cannot_use_the_insert_trigger(server: Postgres) {
    let (schema, pool, _outbox) = outbox(&server).await;
    let role = unique_name();
    run(&pool, &format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO {role}")).await;
    run(&pool, &format!("GRANT EXECUTE ON FUNCTION \"{schema}\".enqueue TO {role}")).await;
    let stranger = server.url().replacen("postgres@", &format!("{role}@"), 1);
    let stranger = PgPoolOptions::new().max_connections(1).connect(&stranger).await.unwrap();
    let enqueue = format!(
        "SELECT \"{schema}\".enqueue('{{\"from\":\"a@example.com\",\"to\":[\"Ada@Example.COM\",\"Ada@example.com\"],\"text\":\"x\"}}')"
    );
    let keyed = enqueue.replace("')", "', key => '')");
    let nameless = stranger.execute(AssertSqlSafe(keyed)).await.unwrap_err();
    assert_eq!(nameless.as_database_error().and_then(|error| error.code()).as_deref(), Some("23514"), "{nameless}");
    stranger.execute(AssertSqlSafe(enqueue)).await.expect("the function may be called");
    let named: i32 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT json_array_length(recipients) FROM \"{schema}\".deliveries")))
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(named, 1, "a recipient named twice is mailed twice");

    let forged = "CREATE TEMP VIEW mine AS SELECT NULL::uuid AS id, 'x'::text AS body";
    stranger.execute(forged).await.unwrap();
    let trigger = format!(
        "CREATE TRIGGER mine INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION \"{schema}\".enqueue_delivery()"
    );
    let refused = stranger.execute(AssertSqlSafe(trigger)).await.unwrap_err();
    assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{refused}");
    stranger.close().await;
    run(&pool, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// The name of a new user without rights, and a pool of that user.
async fn user(server: &Postgres, pool: &PgPool) -> (String, PgPool) {
    let name = unique_name();
    run(pool, &format!("CREATE ROLE \"{name}\" LOGIN")).await;
    let own = PgPoolOptions::new().max_connections(2).connect_with(server.options().username(&name)).await.unwrap();
    (name, own)
}

pub(crate) async fn the_owner_of_a_schema_needs_no_right_to_create_one(server: Postgres) {
    let (schema, pool) = (unique_name(), server.pool(2).await);
    let (name, own) = user(&server, &pool).await;
    let store = PgStore::in_schema(own, &schema).unwrap();
    let refused = store.migrate().await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Rejected, "{refused}");
    run(&pool, &format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION \"{name}\"")).await;
    store.migrate().await.unwrap();
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

/// The delete trigger removes the rows of the queue and the history.
pub(crate) async fn the_right_to_delete_a_mail_is_enough_to_forget_it(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let (name, own) = user(&server, &pool).await;
    let rights = format!(
        "GRANT USAGE ON SCHEMA \"{schema}\" TO \"{name}\"; GRANT SELECT, DELETE ON \"{schema}\".deliveries TO \"{name}\""
    );
    run(&pool, &rights).await;
    outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
    run(&own, &format!("DELETE FROM \"{schema}\".deliveries")).await;
    assert_eq!(outbox.store().next_due().await.unwrap(), None);
    // The user cannot attach that trigger to a table of their own.
    run(&pool, &format!("CREATE SCHEMA AUTHORIZATION \"{name}\"")).await;
    let attach = format!(
        "CREATE TABLE \"{name}\".mine (id uuid);
         CREATE TRIGGER forget AFTER DELETE ON \"{name}\".mine
             REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION \"{schema}\".forget_delivery()"
    );
    let refused = sqlx::raw_sql(AssertSqlSafe(attach)).execute(&own).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{refused}");
}

/// The rights that the documentation of the store names for a program that only enqueues.
pub(crate) async fn a_program_that_enqueues_needs_few_rights(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let (name, own) = user(&server, &pool).await;
    let store = PgStore::in_schema(own, &schema).unwrap();
    let grant = async |right: &str| run(&pool, &format!("GRANT {right} TO \"{name}\"").replace("{s}", &schema)).await;
    grant("USAGE ON SCHEMA \"{s}\"").await;
    let mut large = row();
    large.message.blobs = vec![Blob::new(vec![7; 50_000])];
    assert_eq!(store.insert(vec![row()]).await.unwrap_err().kind(), StoreErrorKind::Rejected);
    for right in ["insert_delivery", "insert_deliveries"] {
        grant(&format!("EXECUTE ON FUNCTION \"{{s}}\".{right}")).await;
    }
    store.insert(vec![row()]).await.unwrap();
    store.insert(vec![row(), row()]).await.unwrap();
    let first = store.insert(vec![keyed_row("order 1")]).await.unwrap();
    assert_eq!(store.insert(vec![keyed_row("order 1")]).await.unwrap(), first);
    let several = vec![keyed_row("order 1"), keyed_row("order 1")];
    assert_eq!(store.insert(several.clone()).await.unwrap_err().kind(), StoreErrorKind::Rejected);
    grant("SELECT ON \"{s}\".deliveries").await;
    assert_eq!(store.insert(several).await.unwrap(), [first[0], first[0]]);
    assert_eq!(store.insert(vec![large.clone()]).await.unwrap_err().kind(), StoreErrorKind::Rejected);
    grant("SELECT, INSERT, UPDATE ON \"{s}\".blobs").await;
    store.insert(vec![large]).await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 5);
    assert_eq!(store.claim(Claim::new(1, SECOND)).await.unwrap_err().kind(), StoreErrorKind::Rejected);
}

/// The rights that `docs/operating.md` names, for a program that enqueues and for a relay and operators.
pub(crate) async fn the_rights_of_the_manual_are_enough(server: Postgres) {
    let (schema, pool, _outbox) = outbox(&server).await;
    let (shop, shop_pool) = user(&server, &pool).await;
    let (mailer, mailer_pool) = user(&server, &pool).await;
    let manual = include_str!("../../docs/operating.md");
    let grants = manual.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let grants = grants
        .replace("postrider.", &format!("\"{schema}\"."))
        .replace("SCHEMA postrider", &format!("SCHEMA \"{schema}\""));
    let grants = grants.replace(" shop", &format!(" \"{shop}\"")).replace(" mailer", &format!(" \"{mailer}\""));
    assert_eq!(grants.matches("GRANT ").count(), 6, "{grants}");
    run(&pool, &grants).await;

    let enqueues = Outbox::<PgStore>::enqueue_only(PgStore::in_schema(shop_pool, &schema).unwrap());
    let keyed = |key: &str| NewDelivery::new(ada()).key(key);
    let ids = enqueues.enqueue_all(vec![keyed("1"), keyed("2"), keyed("1")]).await.unwrap();
    let attached = Attachment::new("a.bin", "application/octet-stream", vec![7; 50_000]).unwrap();
    let large = Email::builder().from("shop@example.com").to("bob@example.com").text("Hello").attach(attached);
    let large = enqueues.enqueue(large.build().unwrap()).await.unwrap();
    assert_eq!(enqueues.stats().await.unwrap_err().kind(), StoreErrorKind::Rejected);

    let store = PgStore::in_schema(mailer_pool, &schema).unwrap();
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    let operator = outbox.operator("ada");
    assert!(operator.pause(PauseTarget::Outbox).await.unwrap());
    assert!(operator.resume(PauseTarget::Outbox).await.unwrap());
    operator.probe().await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 3);
    assert_eq!(operator.change(Change::Resend, ids[0]).await.unwrap(), UpdateOutcome::Updated);
    let cancelled = operator.change_all(Change::Cancel, &Filter::new().state(State::Pending)).await.unwrap();
    assert_eq!((cancelled.updated, outbox.stats().await.unwrap().sent), (1, 2));
    assert!(outbox.get(large).await.unwrap().is_some());
    assert_eq!(operator.prune(&Prune::messages(Duration::ZERO).state(State::Sent)).await.unwrap(), 2);
    assert_eq!(operator.erase(&Recipient::new("bob@example.com")).await.unwrap().deliveries, 1);
    assert_eq!(outbox.audit(&AuditFilter::new()).await.unwrap().len(), 9);
    run(&pool, &format!("DROP OWNED BY \"{shop}\", \"{mailer}\"")).await;
}
