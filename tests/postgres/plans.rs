//! How many rows and pages a relay's statements read, whatever the server's statistics of the queue say.

use std::time::SystemTime;

use postrider::store::{Claim, Lease, LeaseKey, Settled};
use postrider::{AdminStore, DeliveryId, Email, Filter, Message, PgStore, State, Store};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};

use crate::support::database::{Database, Postgres};
use crate::support::fixture::{SECOND, ada, retry, sent};
use crate::{outbox, run};

/// SQL that enqueues `count` deliveries at a priority, each due at another time.
fn rows(count: u32, priority: u8, due: &str) -> String {
    format!(
        "WITH new AS (
             INSERT INTO \"{{s}}\".deliveries (id, recipients, priority, send_at)
             SELECT \"{{s}}\".new_id(), '[\"ada@example.com\"]', {priority}, now() + interval '{due}' + n * interval '1 millisecond'
             FROM generate_series(1, {count}) n RETURNING id, priority, send_at),
         messages AS (INSERT INTO \"{{s}}\".bodies (delivery_id, format, body) SELECT id, 'email/1', '{{}}' FROM new)
         INSERT INTO \"{{s}}\".queue (delivery_id, priority, size, due_at, cycle_started_at)
         SELECT id, priority, 2, send_at, send_at FROM new"
    )
}

/// Runs the statements, and then claims 32 and 500 deliveries, with custom and with generic plans. A claim must read the rows that it
/// takes, those that are leased before them, and few others; of the index, a few pages.
async fn claims_read_little(server: &Postgres, statements: &[String]) {
    let (schema, pool, outbox) = outbox(&server.another()).await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    for statement in statements {
        run(&pool, &statement.replace("{s}", &schema)).await;
    }
    outbox.enqueue_all((0..1_200).map(|_| ada())).await.unwrap();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let (one, store) = planning(mode, &pool, &schema).await;
        for limit in [32, 500] {
            let before = read_so_far(&one, &schema).await;
            let leases = store.claim(Claim::new(limit, SECOND * 60)).await.unwrap();
            assert_eq!(leases.len(), limit);
            let after = read_so_far(&one, &schema).await;
            let (rows, pages) = (after.0 - before.0, after.1 - before.1);
            assert!(rows < 1_000 + 4 * i64::try_from(limit).unwrap(), "{mode}: a claim of {limit} read {rows} rows");
            assert!(pages < 150, "{mode}: a claim of {limit} read {pages} pages of the index");
        }
    }
}

/// A pool of one connection with this `plan_cache_mode`, and a store over it.
async fn planning(mode: &str, pool: &PgPool, schema: &str) -> (PgPool, PgStore) {
    let options = pool.connect_options().as_ref().clone().options([("plan_cache_mode", mode)]);
    let one = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let store = PgStore::in_schema(one.clone(), schema).unwrap().without_listen();
    (one, store)
}

/// Rows of the queue and pages of its index by due time that were read, as the server counts them.
async fn read_so_far(pool: &PgPool, schema: &str) -> (i64, i64) {
    let rows = "(coalesce(t.idx_tup_fetch, 0) + coalesce(t.seq_tup_read, 0))::bigint";
    let pages = "(i.idx_blks_hit + i.idx_blks_read)::bigint";
    counted(pool, schema, &format!("{rows}, {pages}")).await
}

/// Pages of the queue and of its index by due time that were visited.
async fn visited_so_far(pool: &PgPool, schema: &str) -> i64 {
    let pages = "(h.heap_blks_hit + h.heap_blks_read + i.idx_blks_hit + i.idx_blks_read)::bigint";
    let (visited,) = counted(pool, schema, pages).await;
    visited
}

/// Reads the server's counters of the queue (`t`, `h`) and of its index by due time (`i`).
async fn counted<T>(pool: &PgPool, schema: &str, what: &str) -> T
where
    T: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin,
{
    // A connection flushes its counters when it is idle, or on demand.
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(pool).await.unwrap();
    sqlx::query("SELECT 1").execute(pool).await.unwrap();
    let sql = format!(
        "SELECT {what}
         FROM pg_stat_user_tables t JOIN pg_statio_user_tables h USING (relid) JOIN pg_statio_user_indexes i USING (relid)
         WHERE t.schemaname = '{schema}' AND t.relname = 'queue' AND i.indexrelname = 'queue_due'"
    );
    sqlx::query_as(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

pub(crate) async fn a_claim_skips_deliveries_that_are_not_due(server: Postgres) {
    let analyze = "ANALYZE \"{s}\".queue".to_owned();
    let dead = "INSERT INTO \"{s}\".ended (delivery_id, state, ended_at, token, attempts, cycle)
        SELECT gen_random_uuid(), 'dead', now(), 1, 1, 1 FROM generate_series(1, 20000)";
    claims_read_little(&server, &[rows(60_000, 9, "1 day"), dead.to_owned(), analyze]).await;
}

pub(crate) async fn a_claim_does_not_sort_the_backlog_before_the_first_analyze(server: Postgres) {
    claims_read_little(&server, &[rows(20_000, 5, "-1 hour")]).await;
}

pub(crate) async fn a_claim_does_not_sort_the_backlog_after_an_old_analyze(server: Postgres) {
    let analyze = "ANALYZE \"{s}\".queue".to_owned();
    // At the time of the ANALYZE all were scheduled for later, or the queue was empty.
    for before in [rows(20_000, 5, "1 day"), String::new()] {
        claims_read_little(&server, &[before, analyze.clone(), rows(20_000, 5, "-1 hour")]).await;
    }
}

/// Claims 500 deliveries and settles them as sent, `claims` times. Returns the pages that a claim visits at the end: the smaller count of
/// the last two.
async fn claim_and_settle(store: &PgStore, one: &PgPool, schema: &str, claims: usize) -> i64 {
    let mut read = Vec::new();
    for _ in 0..claims {
        let before = visited_so_far(one, schema).await;
        let leases = store.claim(Claim::new(500, SECOND * 60)).await.unwrap();
        read.push(visited_so_far(one, schema).await - before);
        assert_eq!(leases.len(), 500);
        let settlements: Vec<_> = leases.iter().map(sent).collect();
        let settled = store.settle(&settlements).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == Settled::Applied));
    }
    // Once a second a claim starts from the beginning, but not twice in a row.
    *read[read.len() - 2..].iter().min().unwrap()
}

pub(crate) async fn a_long_transaction_does_not_make_claims_walk_over_sent_deliveries(server: Postgres) {
    let (schema, pool, _outbox) = outbox(&server).await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    // In one transaction, so that all are due at the same moment.
    let rows = rows(20_000, 5, "0").replace("n * interval '1 millisecond'", "interval '0'");
    run(&pool, &rows.replace("{s}", &schema)).await;
    let mut open = pool.begin().await.unwrap();
    sqlx::query("SELECT txid_current()").execute(&mut *open).await.unwrap();
    let (one, store) = planning("auto", &pool, &schema).await;
    let read = claim_and_settle(&store, &one, &schema, 24).await;
    // Another relay has no cursor, and starts from the beginning.
    let other = PgStore::in_schema(one.clone(), &schema).unwrap().without_listen();
    let without_cursor = claim_and_settle(&other, &one, &schema, 2).await;
    assert!(2 * read < without_cursor, "a claim visited {read} pages, and {without_cursor} from the beginning");
    open.rollback().await.unwrap();
}

/// Runs every statement of a relay on the queue once.
async fn run_each_statement(store: &PgStore) {
    let leases = store.claim(Claim::new(4, SECOND * 60)).await.unwrap();
    let unknown = LeaseKey { id: DeliveryId::new(), token: 1 };
    store.renew(&leases.iter().map(|lease| lease.key).chain([unknown]).collect::<Vec<_>>(), SECOND * 60).await.unwrap();
    let lost = Lease::new(unknown, SystemTime::now(), ada().encode().unwrap(), Vec::new());
    let settlements: Vec<_> = leases.iter().chain([&lost]).map(sent).collect();
    store.settle(&settlements[..2.min(settlements.len())]).await.unwrap();
    let settlements: Vec<_> = leases.iter().chain([&lost]).map(|lease| retry(lease, SECOND)).collect();
    store.settle(&settlements).await.unwrap();
    store.next_due().await.unwrap();
}

pub(crate) async fn plans_made_over_an_empty_queue_do_not_stay(server: Postgres) {
    let (schema, pool, _outbox) = outbox(&server).await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    run(&pool, &format!("VACUUM ANALYZE \"{schema}\".queue")).await;
    let (one, store) = planning("auto", &pool, &schema).await;
    // After five executions the server may choose a generic plan.
    for _ in 0..10 {
        run_each_statement(&store).await;
    }
    run(&pool, &rows(1_000, 5, "-1 hour").replace("{s}", &schema)).await;
    for scheduled in [18_000, 60_000] {
        run(&pool, &rows(scheduled, 5, "1 day").replace("{s}", &schema)).await;
        for _ in 0..10 {
            let before = read_so_far(&one, &schema).await;
            run_each_statement(&store).await;
            let (rows, _) = read_so_far(&one, &schema).await;
            assert!(
                rows - before.0 < 3_000,
                "with {scheduled} scheduled deliveries, the statements read {} rows",
                rows - before.0
            );
        }
    }
}

pub(crate) async fn renewing_and_settling_read_rows_by_key(server: Postgres) {
    let (schema, pool, _outbox) = outbox(&server).await;
    run(&pool, &format!("ALTER TABLE \"{schema}\".queue SET (autovacuum_enabled = false)")).await;
    run(&pool, &rows(20_000, 5, "-1 hour").replace("{s}", &schema)).await;
    run(&pool, &format!("VACUUM ANALYZE \"{schema}\".queue")).await;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let (one, store) = planning(mode, &pool, &schema).await;
        let leases = store.claim(Claim::new(1_000, SECOND * 60)).await.unwrap();
        let keys: Vec<_> = leases.iter().map(|lease| lease.key).collect();
        let (accepted, refused) = leases.split_at(500);
        let accepted: Vec<_> = accepted.iter().map(sent).collect();
        let refused: Vec<_> = refused.iter().map(|lease| retry(lease, SECOND * 60)).collect();
        let mut before = read_so_far(&one, &schema).await.0;
        for what in ["renewing", "sent", "retried"] {
            let done = match what {
                "renewing" => store.renew(&keys, SECOND * 60).await,
                "sent" => store.settle(&accepted).await,
                _ => store.settle(&refused).await,
            };
            assert!(done.unwrap().iter().all(|settled| *settled == Settled::Applied));
            let after = read_so_far(&one, &schema).await.0;
            assert!(after - before < 5_000, "{mode}, {what}: {} rows of the queue were read", after - before);
            before = after;
        }
    }
}

pub(crate) async fn a_long_mail_is_compressed_with_lz4_if_the_server_has_it(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let long = Email::builder().from("shop@example.com").to("ada@example.com").text("As ordered.\n".repeat(1_000));
    outbox.enqueue(long.build().unwrap()).await.unwrap();
    let known = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'";
    let has_lz4: bool = sqlx::query_scalar(known).fetch_one(&pool).await.unwrap();
    let text = format!("SELECT pg_column_compression(text) FROM \"{schema}\".bodies");
    let used: String = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&pool).await.unwrap();
    assert_eq!(used, if has_lz4 { "lz4" } else { "pglz" });
}

/// The newest deliveries have no attempt yet. A search for older, attempted ones does not read each of them.
pub(crate) async fn a_search_passes_over_a_backlog(server: Postgres) {
    let (schema, pool, _outbox) = outbox(&server).await;
    let attempts = "INSERT INTO \"{s}\".attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
        SELECT delivery_id, 1, 1, 1, now(), now(), 'sent' FROM \"{s}\".queue; DELETE FROM \"{s}\".queue";
    for statement in [&rows(5_000, 5, "-1 hour"), attempts, &rows(5_000, 5, "-1 hour"), "ANALYZE"] {
        run(&pool, &statement.replace("{s}", &schema)).await;
    }
    let (one, store) = planning("auto", &pool, &schema).await;
    let all = || Filter::new().newest_first().limit(5);
    for filter in [
        all().state(State::Sent),
        all().finished_from(SystemTime::UNIX_EPOCH),
        all().finished_before(SystemTime::now() + SECOND * 60),
    ] {
        let (before, _) = read_so_far(&one, &schema).await;
        assert_eq!(store.list(&filter).await.unwrap().len(), 5, "{filter:?}");
        let rows = read_so_far(&one, &schema).await.0 - before;
        assert!(rows < 100, "{filter:?}: {rows} rows of the queue read");
    }
}
