//! Leasing what is due.

use std::collections::HashMap;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, SqlitePool};

use super::rows::{id, recorded};
use crate::clock::{from_millis, millis, to_millis};
use crate::store::recipients::remove_completed;
use crate::store::row::{Columns, Problems, addressed, corrupt, count, last_attempt, word};
use crate::store::session::Session;
use crate::store::{Claim, LastAttempt, Lease, LeaseKey, StoreError};

/// The priorities that have something due, most urgent first. Each costs one look at the index, so that rows scheduled for later
/// are never walked over.
const LEVELS_DUE: &str = "
    SELECT p.column1 FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) p
    WHERE EXISTS (SELECT 1 FROM postrider_queue WHERE priority = p.column1 AND due_at <= ?1)";

const FIRST_DUE: &str = "
    SELECT min((SELECT min(due_at) FROM postrider_queue WHERE priority = p.column1))
    FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) p";

/// As many of what is due as fit into the octets of mail that are left, and one in any case if `?5` says so. A row whose mail is gone
/// comes without a body.
const DUE: &str = "
    SELECT q.delivery_id, q.size, q.due, q.leased_at, q.token, q.attempts, q.cycle, q.spent, q.cycle_started_at, q.expires_at,
           max(d.created_at, coalesce(d.send_at, d.created_at)) AS dated_at, d.format, d.body, d.recipients, d.template_id, d.when_in_doubt,
           EXISTS (SELECT 1 FROM postrider_recipients r WHERE r.delivery_id = q.delivery_id) AS partial
    FROM (SELECT *, count(*) OVER () AS due, sum(size) OVER (ORDER BY due_at, delivery_id ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT * FROM postrider_queue WHERE priority = ?1 AND due_at <= ?2 ORDER BY due_at, delivery_id LIMIT ?3)) q
    LEFT JOIN postrider_deliveries d ON d.id = q.delivery_id
    WHERE q.total <= ?4 OR (?5 AND q.total = q.size)
    ORDER BY q.due_at, q.delivery_id";

/// The attempt with the highest number of each.
const LAST_ATTEMPTS: &str = "
    SELECT a.delivery_id, a.cycle, a.finished_at, a.outcome, a.scope, a.sure, substr(a.error, 1, 1000) AS error FROM json_each(?1) k
    CROSS JOIN postrider_attempts a ON a.delivery_id = k.value
        AND a.number = (SELECT max(number) FROM postrider_attempts l WHERE l.delivery_id = k.value)";

/// Numbers stop before their end, where the table would refuse the whole claim for the sake of one row.
const TAKE: &str = "
    UPDATE postrider_queue
    SET token = min(token, 9223372036854775806) + 1, leased_at = ?2, leased_by = ?4, due_at = ?3,
        attempts = min(attempts, 2147483646) + (leased_at IS NOT NULL), spent = min(spent, 2147483646) + (leased_at IS NOT NULL)
    WHERE delivery_id IN (SELECT value FROM json_each(?1))";

pub(super) async fn claim(pool: &SqlitePool, claim: Claim, now: i64) -> Result<Vec<Lease>, StoreError> {
    let due_by = claim.due_by.map_or(now, |time| to_millis(time).min(now));
    let mut session = Session::returning(pool).await?;
    // Looking takes no lock: an idle relay does not keep writers waiting.
    let levels = sqlx::query_scalar(LEVELS_DUE).bind(due_by).fetch_all(&mut *session).await;
    let levels: Vec<i64> = match levels {
        Ok(levels) if levels.is_empty() || claim.limit == 0 => return session.finish(Ok(Vec::new())),
        Ok(levels) => levels,
        Err(error) => return session.finish(Err(error.into())),
    };
    let claimed = async {
        let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
        let leases = claim_in(&mut tx, levels, claim, due_by, now).await?;
        tx.commit().await?;
        Ok(leases)
    };
    let claimed = claimed.await;
    session.finish(claimed)
}

async fn claim_in(
    connection: &mut SqliteConnection,
    levels: Vec<i64>,
    claim: Claim,
    due_by: i64,
    now: i64,
) -> Result<Vec<Lease>, StoreError> {
    let mut found =
        Found { leases: Vec::new(), ids: Vec::new(), octets: i64::try_from(claim.max_bytes).unwrap_or(i64::MAX) };
    for level in levels {
        let all = find(connection, level, claim.limit, due_by, now, &mut found).await?;
        if found.leases.len() >= claim.limit || !all {
            break;
        }
    }
    let Found { leases, ids, .. } = found;
    let ids = json(ids);
    if leases.iter().any(|lease| lease.lost) {
        record_losses(connection, &ids, now).await?;
    }
    let until = now.saturating_add(millis(claim.lease));
    sqlx::query(TAKE).bind(&ids).bind(now).bind(until).bind(claim.id.number()).execute(&mut *connection).await?;
    if leases.iter().all(|lease| lease.attempts == 0) {
        return Ok(leases);
    }
    let rows = sqlx::query(LAST_ATTEMPTS).bind(&ids).fetch_all(connection).await?;
    let mut last: HashMap<DeliveryId, LastAttempt> =
        rows.iter().filter_map(|row| Some((id(row, "delivery_id").ok()?, last_attempt(row)?))).collect();
    Ok(leases
        .into_iter()
        .map(|lease| {
            let last = last.remove(&lease.key.id);
            lease.with_last(last)
        })
        .collect())
}

/// What a claim has found so far.
struct Found {
    leases: Vec<Lease>,
    ids: Vec<String>,
    /// How many octets of mail still fit.
    octets: i64,
}

/// Finds what is due of one priority, and returns whether all of it fitted. Rows without a mail are removed, and it looks again.
async fn find(
    connection: &mut SqliteConnection,
    level: i64,
    limit: usize,
    due_by: i64,
    now: i64,
    found: &mut Found,
) -> Result<bool, StoreError> {
    loop {
        let room = i64::try_from(limit - found.leases.len()).unwrap_or(i64::MAX);
        let query = sqlx::query(DUE).bind(level).bind(due_by).bind(room);
        let rows = query.bind(found.octets).bind(found.leases.is_empty()).fetch_all(&mut *connection).await?;
        let all = match rows.first() {
            Some(row) => i64::try_from(rows.len()) == Ok(row.number("due")?),
            None => found.leases.is_empty(),
        };
        let mut orphans = Vec::new();
        for row in &rows {
            let id = row.text_or_null("delivery_id")?.unwrap_or_default();
            if row.octets("body")?.is_none() {
                orphans.push(id);
                continue;
            }
            found.octets = found.octets.saturating_sub(row.number("size")?);
            found.leases.push(lease(connection, row, now).await?);
            found.ids.push(id);
        }
        if orphans.is_empty() {
            return Ok(all);
        }
        let others = rows.len() > orphans.len();
        forget(connection, orphans).await?;
        if others {
            // What is found is not leased yet, and would be found again.
            return Ok(false);
        }
    }
}

/// Removes what is known of deliveries whose mails are gone.
async fn forget(connection: &mut SqliteConnection, ids: Vec<String>) -> Result<(), StoreError> {
    crate::store::tell_of_orphans(ids.len());
    let ids = json(ids);
    for table in ["queue", "ended", "attempts", "recipients"] {
        let text = format!("DELETE FROM postrider_{table} WHERE delivery_id IN (SELECT value FROM json_each(?1))");
        sqlx::query(AssertSqlSafe(text)).bind(&ids).execute(&mut *connection).await?;
    }
    Ok(())
}

fn json(ids: Vec<String>) -> String {
    serde_json::Value::from(ids).to_string()
}

/// The attempts of holders that vanished. They held the token that is still in the row.
async fn record_losses(connection: &mut SqliteConnection, ids: &str, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO postrider_attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
         SELECT delivery_id, attempts + 1, cycle, token, leased_at, ?2, 'lost' FROM postrider_queue
         WHERE leased_at IS NOT NULL AND delivery_id IN (SELECT value FROM json_each(?1))
         ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The lease as it will be once the update is made. What makes no sense in the row is in the lease.
async fn lease(connection: &mut SqliteConnection, row: &SqliteRow, now: i64) -> Result<Lease, StoreError> {
    let mut problems = Problems::default();
    let lost = row.number_or_null("leased_at")?.is_some();
    let token = row.number("token")?;
    if token > i64::MAX - 2 {
        problems.or(Err(corrupt("the token is at its end")), ());
    }
    let key = LeaseKey { id: id(row, "delivery_id")?, token: token.min(i64::MAX - 1) + 1 };
    let format = problems.or(row.text("format"), "").to_owned();
    let body = problems.or(row.text("body"), "").to_owned();
    let template_id = match row.octets("template_id")? {
        Some(_) => problems.or(row.text("template_id").map(|id| Some(id.to_owned())), None),
        None => None,
    };
    let count = |problems: &mut Problems, column| problems.or(count(row, column), 0);
    let lease = Lease {
        dated_at: row.time("dated_at")?,
        template_id,
        attempts: count(&mut problems, "attempts").saturating_add(u32::from(lost)),
        cycle: count(&mut problems, "cycle"),
        charged_attempts: count(&mut problems, "spent").saturating_add(u32::from(lost)),
        cycle_started_at: row.time("cycle_started_at")?,
        expires_at: row.time_or_null("expires_at")?,
        lost,
        ..Lease::new(key, from_millis(now), Encoded { format, body }, Vec::new())
    };
    let mut lease = addressed(lease, row.text("recipients"), word(row, "when_in_doubt"), problems);
    if row.flag("partial")? {
        remove_completed(&mut lease, &recorded(connection, row.text("delivery_id")?).await?);
    }
    Ok(lease)
}

/// When the first is due, be it leased or not.
pub(super) async fn first_due(connection: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar(FIRST_DUE).fetch_one(connection).await?)
}
