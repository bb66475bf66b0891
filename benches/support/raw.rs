//! The SQL of the PostgreSQL store without a relay: two loops that claim 1,024 deliveries, read the mails, and settle them as sent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::{PgPool, Row};
use uuid::Uuid;

const CLAIM: &str = r#"
    WITH claimed AS (
        UPDATE postrider.queue q
        SET lease_until = now() + interval '60 seconds', leased_at = now(), abandoned_at = leased_at,
            token = greatest(token + 1, -token), attempts = attempts + (leased_at IS NOT NULL)::int,
            charged_attempts = charged_attempts + (leased_at IS NOT NULL)::int
        WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM postrider.queue
            WHERE (priority, due_at) >= (5, '-infinity'::timestamptz) AND (priority, due_at) <= (5, now()) AND lease_until <= now()
            ORDER BY priority, due_at LIMIT 1024 FOR UPDATE SKIP LOCKED))
        RETURNING q.delivery_id, q.token)
    SELECT c.delivery_id, c.token, b.format, b.body, d.recipients::text, b.text
    FROM claimed c JOIN postrider.deliveries d ON d.id = c.delivery_id JOIN postrider.bodies b ON b.delivery_id = c.delivery_id"#;

const SETTLE: &str = r#"
    WITH u AS MATERIALIZED (
        SELECT * FROM unnest((SELECT $1::uuid[]), (SELECT $2::bigint[]), (SELECT $3::bigint[])) u (id, token, at)),
    gone AS (
        DELETE FROM postrider.queue q USING u WHERE q.delivery_id = u.id AND q.token = u.token RETURNING u.*)
    INSERT INTO postrider.attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
    SELECT id, 1, 1, token, to_timestamp(at / 1000000.0), to_timestamp(at / 1000000.0), 'sent' FROM gone"#;

/// Drains the outbox, and returns the deliveries per second.
pub(crate) async fn drain(pool: &PgPool) -> f64 {
    let start = Instant::now();
    let loops = (0..2).map(|_| tokio::spawn(work(pool.clone())));
    let sent: u64 = futures_util::future::join_all(loops).await.into_iter().map(|sent| sent.expect("it works")).sum();
    sent as f64 / start.elapsed().as_secs_f64()
}

async fn work(pool: PgPool) -> u64 {
    let mut connection = pool.acquire().await.expect("a connection");
    let mut sent = 0;
    loop {
        let rows = sqlx::query(CLAIM).fetch_all(&mut *connection).await.expect("a claim");
        if rows.is_empty() {
            return sent;
        }
        let (mut ids, mut tokens, mut times): (Vec<Uuid>, Vec<i64>, Vec<i64>) = Default::default();
        for row in &rows {
            let mail: (&str, &str, &str) = (row.get(2), row.get(3), row.get(4));
            std::hint::black_box(mail);
            ids.push(row.get(0));
            tokens.push(row.get(1));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            times.push(i64::try_from(now.as_micros()).expect("a time"));
        }
        let settled = sqlx::query(SETTLE).bind(ids).bind(tokens).bind(times).execute(&mut *connection).await;
        sent += settled.expect("a settlement").rows_affected();
    }
}
