//! Claims due deliveries.

use std::collections::HashMap;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, SqlitePool};

use super::message::read_message;
use super::rows::{ids_as_json, read_id, read_outcomes};
use crate::clock::{from_millis, millis, to_millis};
use crate::store::blobs::MESSAGE_DELETED;
use crate::store::recipients::remove_completed;
use crate::store::row::{
    Columns, Problems, add_delivery_columns, corrupt, read_count, read_enum, read_last_attempt, read_traceparent,
};
use crate::store::session::Session;
use crate::store::{Claim, LastAttempt, Lease, LeaseKey, StoreError};

/// Selects the priorities with a due delivery, the most urgent first. Each costs one index lookup, so that the statement never scans rows
/// that are scheduled for later.
const DUE_PRIORITIES: &str = "
    SELECT p.column1 FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) p
    WHERE EXISTS (SELECT 1 FROM postrider_queue WHERE priority = p.column1 AND due_at <= ?1)";

const FIRST_DUE: &str = "
    SELECT min((SELECT min(due_at) FROM postrider_queue WHERE priority = p.column1))
    FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) p";

/// Selects due rows of one priority as long as their mails fit into the remaining bytes (`?4`), and one in any case if `?5` is true. A row
/// whose delivery is gone has no recipients.
const DUE: &str = "
    SELECT q.delivery_id, q.size, q.due, q.leased_at, q.token, q.attempts, q.cycle, q.charged_attempts, q.cycle_started_at, q.expires_at,
           max(d.created_at, coalesce(d.send_at, d.created_at)) AS dated_at, d.format, d.body, d.text, d.html, d.blobs,
           d.recipients, d.template_id, d.when_in_doubt, substr(d.traceparent, 1, 56) AS traceparent,
           EXISTS (SELECT 1 FROM postrider_recipients r WHERE r.delivery_id = q.delivery_id AND outcome IS NOT NULL) AS has_outcomes
    FROM (SELECT *, count(*) OVER () AS due, sum(size) OVER (ORDER BY due_at, delivery_id ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT * FROM postrider_queue WHERE priority = ?1 AND due_at <= ?2 ORDER BY due_at, delivery_id LIMIT ?3)) q
    LEFT JOIN postrider_deliveries d ON d.id = q.delivery_id
    WHERE q.total <= ?4 OR (?5 AND q.total = q.size)
    ORDER BY q.due_at, q.delivery_id";

/// Selects the attempt with the highest number of each delivery.
const LAST_ATTEMPTS: &str = "
    SELECT a.delivery_id, a.cycle, a.finished_at, a.outcome, a.scope, a.sure, substr(a.error, 1, 1000) AS error FROM json_each(?1) k
    CROSS JOIN postrider_attempts a ON a.delivery_id = k.value
        AND a.number = (SELECT max(number) FROM postrider_attempts l WHERE l.delivery_id = k.value)";

/// Leases rows. A counter stops just below its largest value: an overflow in one row would fail the whole claim.
const LEASE: &str = "
    UPDATE postrider_queue
    SET token = min(token, 9223372036854775806) + 1, leased_at = ?2, leased_by = ?4, due_at = ?3,
        attempts = min(attempts, 2147483646) + (leased_at IS NOT NULL), charged_attempts = min(charged_attempts, 2147483646) + (leased_at IS NOT NULL)
    WHERE delivery_id IN (SELECT value FROM json_each(?1))";

pub(super) async fn claim(pool: &SqlitePool, claim: Claim, now: i64) -> Result<Vec<Lease>, StoreError> {
    let due_by = claim.due_by.map_or(now, |time| to_millis(time).min(now));
    let mut session = Session::acquire_drop_safe(pool).await?;
    // A read takes no lock, so that an idle relay does not block writers.
    let priorities = sqlx::query_scalar(DUE_PRIORITIES).bind(due_by).fetch_all(&mut *session).await;
    let priorities: Vec<i64> = match priorities {
        Ok(priorities) if priorities.is_empty() || claim.limit == 0 => return session.finish(Ok(Vec::new())),
        Ok(priorities) => priorities,
        Err(error) => return session.finish(Err(error.into())),
    };
    let claimed = async {
        let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
        let leases = claim_in(&mut tx, priorities, claim, due_by, now).await?;
        tx.commit().await?;
        Ok(leases)
    };
    let claimed = claimed.await;
    session.finish(claimed)
}

async fn claim_in(
    connection: &mut SqliteConnection,
    priorities: Vec<i64>,
    claim: Claim,
    due_by: i64,
    now: i64,
) -> Result<Vec<Lease>, StoreError> {
    let bytes_left = i64::try_from(claim.max_bytes).unwrap_or(i64::MAX);
    let mut found = Found { limit: claim.limit, due_by, now, leases: Vec::new(), ids: Vec::new(), bytes_left };
    for priority in priorities {
        let all = find_due(connection, priority, &mut found).await?;
        if found.leases.len() >= claim.limit || !all {
            break;
        }
    }
    let Found { leases, ids, .. } = found;
    let ids = ids_as_json(ids);
    if leases.iter().any(|lease| lease.lost) {
        record_lost_attempts(connection, &ids, now).await?;
    }
    let until = now.saturating_add(millis(claim.lease));
    sqlx::query(LEASE).bind(&ids).bind(now).bind(until).bind(claim.id.number()).execute(&mut *connection).await?;
    if leases.iter().all(|lease| lease.attempts == 0) {
        return Ok(leases);
    }
    let rows = sqlx::query(LAST_ATTEMPTS).bind(&ids).fetch_all(connection).await?;
    let mut last: HashMap<DeliveryId, LastAttempt> =
        rows.iter().filter_map(|row| Some((read_id(row, "delivery_id").ok()?, read_last_attempt(row)?))).collect();
    Ok(leases
        .into_iter()
        .map(|lease| {
            let last = last.remove(&lease.key.id);
            lease.with_last(last)
        })
        .collect())
}

/// The deliveries that a claim has found so far.
struct Found {
    limit: usize,
    due_by: i64,
    now: i64,
    leases: Vec<Lease>,
    ids: Vec<String>,
    /// How many more bytes of mail fit into the claim.
    bytes_left: i64,
}

/// Finds the due deliveries of one priority, and returns whether all of them fit. It deletes rows without a delivery, and then repeats the
/// query.
async fn find_due(connection: &mut SqliteConnection, priority: i64, found: &mut Found) -> Result<bool, StoreError> {
    loop {
        let remaining = i64::try_from(found.limit - found.leases.len()).unwrap_or(i64::MAX);
        let query = sqlx::query(DUE).bind(priority).bind(found.due_by).bind(remaining);
        let rows = query.bind(found.bytes_left).bind(found.leases.is_empty()).fetch_all(&mut *connection).await?;
        let all = match rows.first() {
            Some(row) => i64::try_from(rows.len()) == Ok(row.number("due")?),
            None => found.leases.is_empty(),
        };
        let mut orphans = Vec::new();
        for row in &rows {
            let id = row.text_or_null("delivery_id")?.unwrap_or_default();
            if row.bytes("recipients")?.is_none() {
                orphans.push(id);
                continue;
            }
            found.bytes_left = found.bytes_left.saturating_sub(row.number("size")?);
            found.leases.push(build_lease(connection, row, found.now).await?);
            found.ids.push(id);
        }
        if orphans.is_empty() {
            return Ok(all);
        }
        let others = rows.len() > orphans.len();
        delete_orphans(connection, orphans).await?;
        if others {
            // The deliveries found so far are not leased yet, and another query would find them again.
            return Ok(false);
        }
    }
}

/// Deletes the rows of deliveries whose mails are gone.
async fn delete_orphans(connection: &mut SqliteConnection, ids: Vec<String>) -> Result<(), StoreError> {
    crate::store::warn_of_orphans(ids.len());
    let ids = ids_as_json(ids);
    for table in ["queue", "ended", "attempts", "recipients", "body_blobs"] {
        let text = format!("DELETE FROM postrider_{table} WHERE delivery_id IN (SELECT value FROM json_each(?1))");
        sqlx::query(AssertSqlSafe(text)).bind(&ids).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Records the lost attempts of relays that vanished. Their tokens are still in the rows.
async fn record_lost_attempts(connection: &mut SqliteConnection, ids: &str, now: i64) -> Result<(), StoreError> {
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

/// Builds the lease as it is after the update. A malformed column makes the lease malformed.
async fn build_lease(connection: &mut SqliteConnection, row: &SqliteRow, now: i64) -> Result<Lease, StoreError> {
    let mut problems = Problems::default();
    let lost = row.number_or_null("leased_at")?.is_some();
    let token = row.number("token")?;
    if token > i64::MAX - 2 {
        problems.unwrap_or(Err(corrupt("the token has its largest value")), ());
    }
    let key = LeaseKey { id: read_id(row, "delivery_id")?, token: token.min(i64::MAX - 1) + 1 };
    let message = match row.bytes("body")? {
        Some(_) => problems.unwrap_or(read_message(connection, row).await?, Encoded::new("", "")),
        None => problems.unwrap_or(Err(corrupt(MESSAGE_DELETED)), Encoded::new("", "")),
    };
    let template_id = match row.bytes("template_id")? {
        Some(_) => problems.unwrap_or(row.text("template_id").map(|id| Some(id.to_owned())), None),
        None => None,
    };
    let count = |problems: &mut Problems, column| problems.unwrap_or(read_count(row, column), 0);
    let lease = Lease {
        dated_at: row.time("dated_at")?,
        template_id,
        traceparent: read_traceparent(row)?,
        attempts: count(&mut problems, "attempts").saturating_add(u32::from(lost)),
        cycle: count(&mut problems, "cycle"),
        charged_attempts: count(&mut problems, "charged_attempts").saturating_add(u32::from(lost)),
        cycle_started_at: row.time("cycle_started_at")?,
        expires_at: row.time_or_null("expires_at")?,
        lost,
        ..Lease::new(key, from_millis(now), message, Vec::new())
    };
    let mut lease = add_delivery_columns(lease, row.text("recipients"), read_enum(row, "when_in_doubt"), problems);
    if row.flag("has_outcomes")? {
        remove_completed(&mut lease, &read_outcomes(connection, row.text("delivery_id")?).await?);
    }
    Ok(lease)
}

/// The first time at which a delivery is due or a lease ends. `None` if the queue is empty.
pub(super) async fn first_due(connection: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar(FIRST_DUE).fetch_one(connection).await?)
}
