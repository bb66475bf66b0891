//! How much a relay's statements read, whatever the server believes of the queue.

use postrider::Message;
use postrider::store::{Lease, LeaseKey, Next};

use super::*;

/// Deliveries at a priority, each due at a moment of its own.
fn rows(count: u32, priority: u8, due: &str) -> String {
    format!(
        "INSERT INTO \"{{s}}\".deliveries (format, body, recipients, priority, send_at)
             SELECT 'email/1', '{{}}', '[\"ada@example.com\"]', {priority}, now() + interval '{due}' + n * interval '1 millisecond'
             FROM generate_series(1, {count}) n"
    )
}

/// Claims 32 and then 500 of what these statements left, by plans for these parameters and by plans for any. A claim must read what it
/// takes, what is leased before it, and little more; of the index, a few pages.
async fn claims_read_little(statements: &[String]) {
    let (schema, pool, outbox) = outbox().await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    for statement in statements {
        run(&pool, &statement.replace("{s}", &schema)).await;
    }
    outbox.enqueue_all((0..1_200).map(|_| ada())).await.unwrap();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let (one, store) = planning(mode, &pool, &schema).await;
        for limit in [32, 500] {
            let before = read_so_far(&one, &schema).await;
            let leases = store.claim(postrider::store::Claim::new(limit, SECOND * 60)).await.unwrap();
            assert_eq!(leases.len(), limit);
            let after = read_so_far(&one, &schema).await;
            let (rows, pages) = (after.0 - before.0, after.1 - before.1);
            assert!(rows < 1_000 + 4 * i64::try_from(limit).unwrap(), "{mode}: a claim of {limit} read {rows} rows");
            assert!(pages < 150, "{mode}: a claim of {limit} read {pages} pages of the index");
        }
    }
}

/// A single connection that plans in this way, and the store over it.
async fn planning(mode: &str, pool: &PgPool, schema: &str) -> (PgPool, PgStore) {
    let options = pool.connect_options().as_ref().clone().options([("plan_cache_mode", mode)]);
    let one = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let store = PgStore::in_schema(one.clone(), schema).unwrap().without_listen();
    (one, store)
}

/// How many rows of the queue and how many pages of its index by due time were read, by the server's own count.
async fn read_so_far(pool: &PgPool, schema: &str) -> (i64, i64) {
    let rows = "(coalesce(t.idx_tup_fetch, 0) + coalesce(t.seq_tup_read, 0))::bigint";
    let pages = "(i.idx_blks_hit + i.idx_blks_read)::bigint";
    counted(pool, schema, &format!("{rows}, {pages}")).await
}

/// How many pages of the queue and of its index by due time were visited.
async fn visited_so_far(pool: &PgPool, schema: &str) -> i64 {
    let pages = "(h.heap_blks_hit + h.heap_blks_read + i.idx_blks_hit + i.idx_blks_read)::bigint";
    let (visited,) = counted(pool, schema, pages).await;
    visited
}

/// What the server has counted of the queue (`t`, `h`) and of its index by due time (`i`).
async fn counted<T>(pool: &PgPool, schema: &str, what: &str) -> T
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    // The counters of the present connection are handed in when it is idle, or when asked.
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(pool).await.unwrap();
    sqlx::query("SELECT 1").execute(pool).await.unwrap();
    let sql = format!(
        "SELECT {what}
         FROM pg_stat_user_tables t JOIN pg_statio_user_tables h USING (relid) JOIN pg_statio_user_indexes i USING (relid)
         WHERE t.schemaname = '{schema}' AND t.relname = 'queue' AND i.indexrelname = 'queue_due'"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_claim_walks_over_nothing_that_is_not_due() {
    let analyze = "ANALYZE \"{s}\".queue".to_owned();
    let dead = "INSERT INTO \"{s}\".ended (delivery_id, state, ended_at, token, attempts, cycle)
        SELECT gen_random_uuid(), 'dead', now(), 1, 1, 1 FROM generate_series(1, 20000)";
    claims_read_little(&[rows(60_000, 9, "1 day"), dead.to_owned(), analyze]).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_claim_does_not_sort_what_is_due_when_nothing_was_ever_counted() {
    claims_read_little(&[rows(20_000, 5, "-1 hour")]).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_claim_does_not_sort_what_is_due_when_it_was_counted_at_another_time() {
    let analyze = "ANALYZE \"{s}\".queue".to_owned();
    // All was scheduled for later, or nothing was there.
    for before in [rows(20_000, 5, "1 day"), String::new()] {
        claims_read_little(&[before, analyze.clone(), rows(20_000, 5, "-1 hour")]).await;
    }
}

/// Claims as many again and again, and writes that all are sent; how much the last two claims read, the smaller count.
async fn send_away(store: &PgStore, one: &PgPool, schema: &str, claims: usize) -> i64 {
    let mut read = Vec::new();
    for _ in 0..claims {
        let before = visited_so_far(one, schema).await;
        let leases = store.claim(postrider::store::Claim::new(500, SECOND * 60)).await.unwrap();
        read.push(visited_so_far(one, schema).await - before);
        assert_eq!(leases.len(), 500);
        let settlements: Vec<_> = leases.iter().map(pool::sent).collect();
        let settled = store.settle(&settlements).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == postrider::store::Settled::Applied));
    }
    // Now and then a claim looks from the beginning, but not twice in a row.
    *read[read.len() - 2..].iter().min().unwrap()
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_transaction_held_open_does_not_make_claims_walk_over_what_was_sent() {
    let (schema, pool, _outbox) = outbox().await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    // In one transaction, so that all are due at the same moment.
    let rows = format!(
        "INSERT INTO \"{schema}\".deliveries (format, body, recipients)
             SELECT 'email/1', '{{}}', '[\"ada@example.com\"]' FROM generate_series(1, 20000)"
    );
    run(&pool, &rows).await;
    let mut open = pool.begin().await.unwrap();
    sqlx::query("SELECT txid_current()").execute(&mut *open).await.unwrap();
    let (one, store) = planning("auto", &pool, &schema).await;
    let read = send_away(&store, &one, &schema, 24).await;
    // Another relay does not know how far this one has come, and begins at the beginning.
    let other = PgStore::in_schema(one.clone(), &schema).unwrap().without_listen();
    let newcomer = send_away(&other, &one, &schema, 2).await;
    assert!(2 * read < newcomer, "a claim visited {read} pages, and {newcomer} from the beginning");
    open.rollback().await.unwrap();
}

/// Every statement of a relay on the queue, once.
async fn all_of_a_relay(store: &PgStore) {
    let leases = store.claim(postrider::store::Claim::new(4, SECOND * 60)).await.unwrap();
    let unknown = LeaseKey { id: DeliveryId::new(), token: 1 };
    store.renew(&leases.iter().map(|lease| lease.key).chain([unknown]).collect::<Vec<_>>(), SECOND * 60).await.unwrap();
    let lost = Lease::new(unknown, std::time::SystemTime::now(), ada().encode().unwrap(), Vec::new());
    let mut settlements: Vec<_> = leases.iter().chain([&lost]).map(pool::sent).collect();
    store.settle(&settlements[..2.min(settlements.len())]).await.unwrap();
    for settlement in &mut settlements {
        settlement.next = Next::Pending { after: SECOND };
    }
    store.settle(&settlements).await.unwrap();
    store.next_due().await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn plans_that_were_made_over_an_empty_queue_do_not_stay() {
    let (schema, pool, _outbox) = outbox().await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    run(&pool, &format!("VACUUM ANALYZE \"{schema}\".queue")).await;
    let (one, store) = planning("auto", &pool, &schema).await;
    // More often than the server plans for the parameters of the moment.
    for _ in 0..10 {
        all_of_a_relay(&store).await;
    }
    run(&pool, &rows(1_000, 5, "-1 hour").replace("{s}", &schema)).await;
    for scheduled in [18_000, 60_000] {
        run(&pool, &rows(scheduled, 5, "1 day").replace("{s}", &schema)).await;
        // Longer than a relay believes in a size.
        tokio::time::sleep(SECOND / 2).await;
        for _ in 0..10 {
            let before = read_so_far(&one, &schema).await;
            all_of_a_relay(&store).await;
            let (rows, _) = read_so_far(&one, &schema).await;
            assert!(rows - before.0 < 3_000, "beside {scheduled} it read {} rows", rows - before.0);
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_is_renewed_or_settled_is_looked_for_by_its_key() {
    let (schema, pool, _outbox) = outbox().await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    run(&pool, &rows(20_000, 5, "-1 hour").replace("{s}", &schema)).await;
    run(&pool, &format!("VACUUM ANALYZE \"{schema}\".queue")).await;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let (one, store) = planning(mode, &pool, &schema).await;
        let leases = store.claim(postrider::store::Claim::new(1_000, SECOND * 60)).await.unwrap();
        let keys: Vec<_> = leases.iter().map(|lease| lease.key).collect();
        let (sent, retried) = leases.split_at(500);
        let sent: Vec<_> = sent.iter().map(pool::sent).collect();
        let again = |lease: &Lease| {
            let mut settlement = pool::sent(lease);
            settlement.next = Next::Pending { after: SECOND * 60 };
            settlement
        };
        let retried: Vec<_> = retried.iter().map(again).collect();
        let mut before = read_so_far(&one, &schema).await.0;
        for what in ["renewing", "sent", "retried"] {
            let done = match what {
                "renewing" => store.renew(&keys, SECOND * 60).await,
                "sent" => store.settle(&sent).await,
                _ => store.settle(&retried).await,
            };
            assert!(done.unwrap().iter().all(|settled| *settled == postrider::store::Settled::Applied));
            let after = read_so_far(&one, &schema).await.0;
            assert!(after - before < 5_000, "{mode}, {what}: {} rows of the queue were read", after - before);
            before = after;
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_long_mail_is_compressed_in_the_quick_way_where_the_server_knows_it() {
    let (schema, pool, outbox) = outbox().await;
    let long = Email::builder().from("shop@example.com").to("ada@example.com").text("As ordered.\n".repeat(1_000));
    outbox.enqueue(long.build().unwrap()).await.unwrap();
    let known = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'";
    let quick: bool = sqlx::query_scalar(known).fetch_one(&pool).await.unwrap();
    let text = format!("SELECT pg_column_compression(body) FROM \"{schema}\".deliveries");
    let used: String = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&pool).await.unwrap();
    assert_eq!(used, if quick { "lz4" } else { "pglz" });
}
