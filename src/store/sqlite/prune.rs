//! Deletes old data of finished deliveries.

use postrider_transport::DeliveryId;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, SqlitePool};

use super::rows::ids_as_json;
use crate::clock::millis;
use crate::prune::{Prune, PruneStep, PrunedPart};
use crate::store::StoreError;
use crate::store::row::corrupt;
use crate::store::session::{Session, retry_conflicts};

/// Selects the next deliveries that may have the part to delete, in the order of their ids.
fn scan(part: PrunedPart) -> &'static str {
    match part {
        PrunedPart::Messages => "SELECT id FROM postrider_deliveries WHERE id > ?1 AND created_at < ?2 AND body IS NOT NULL ORDER BY id LIMIT ?3",
        PrunedPart::History => {
            "SELECT delivery_id AS id FROM postrider_attempts a
             WHERE delivery_id > ?1 AND ?2 IS NOT NULL
               AND number = (SELECT min(number) FROM postrider_attempts f WHERE f.delivery_id = a.delivery_id)
               AND EXISTS (SELECT 1 FROM postrider_attempts l WHERE l.delivery_id = a.delivery_id AND l.number > a.number)
             ORDER BY delivery_id LIMIT ?3"
        }
        PrunedPart::Deliveries => "SELECT id FROM postrider_deliveries WHERE id > ?1 AND created_at < ?2 ORDER BY id LIMIT ?3",
    }
}

/// Selects those of the given deliveries that ended before a time, in one of the given states.
const ENDED: &str = "
    SELECT d.id FROM json_each(?1) w CROSS JOIN postrider_deliveries d ON d.id = w.value
    LEFT JOIN postrider_ended e ON e.delivery_id = d.id
    WHERE d.key_until IS NULL AND NOT EXISTS (SELECT 1 FROM postrider_queue q WHERE q.delivery_id = d.id)
      AND coalesce(e.state, 'sent') IN (SELECT value FROM json_each(?3))
      AND coalesce(e.ended_at,
                   (SELECT finished_at FROM postrider_attempts a WHERE a.delivery_id = d.id ORDER BY number DESC LIMIT 1),
                   d.created_at) < ?2";

pub(super) async fn step(
    pool: &SqlitePool,
    prune: &Prune,
    after: Option<DeliveryId>,
    limit: u32,
    now: i64,
) -> Result<PruneStep, StoreError> {
    let states = serde_json::Value::from(prune.finished_states()).to_string();
    if prune.finished_states().is_empty() {
        return Ok(PruneStep::new(0, None));
    }
    let before = now.saturating_sub(millis(prune.older_than));
    // The deliveries are found without a lock, and then checked under the lock: an operator may have resent one in between.
    let mut session = Session::acquire_drop_safe(pool).await?;
    let scanned = sqlx::query_scalar(scan(prune.part))
        .bind(after.map_or_else(String::new, |id| id.to_string()))
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&mut *session)
        .await;
    let scanned: Vec<String> = match scanned {
        Ok(scanned) => scanned,
        Err(error) => return session.finish(Err(error.into())),
    };
    let more = scanned.len() == usize::try_from(limit).unwrap_or(usize::MAX);
    let last = scanned.last().filter(|_| more).map(|id| id.parse().map_err(|_| corrupt("an id is not a UUID")));
    let scanned = ids_as_json(scanned);
    let query = sqlx::query_scalar(ENDED).bind(&scanned).bind(before).bind(&states);
    let found: Result<Vec<String>, _> = query.fetch_all(&mut *session).await;
    let expired =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM postrider_deliveries WHERE key_until < ?1)").bind(now);
    let expired: Result<bool, _> = expired.fetch_one(&mut *session).await;
    let (found, expired) = session.finish(found.and_then(|found| Ok((found, expired?))).map_err(StoreError::from))?;
    let last = last.transpose()?;
    let free = !more && prune.part == PrunedPart::Deliveries && expired;
    if found.is_empty() && !free {
        return Ok(PruneStep::new(0, last));
    }
    let affected = retry_conflicts(|| async {
        let mut session = Session::acquire_drop_safe(pool).await?;
        let affected = async {
            let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
            let query = sqlx::query_scalar(ENDED).bind(&scanned).bind(before).bind(&states);
            let ids: Vec<String> = query.fetch_all(&mut *tx).await?;
            let affected = u64::try_from(ids.len()).unwrap_or(u64::MAX);
            delete(&mut tx, prune, ids_as_json(ids), now).await?;
            if free {
                free_keys(&mut tx, now).await?;
            }
            tx.commit().await?;
            Ok(affected)
        };
        let affected = affected.await;
        session.finish(affected)
    });
    Ok(PruneStep::new(affected.await?, last))
}

async fn delete(connection: &mut SqliteConnection, prune: &Prune, ids: String, now: i64) -> Result<(), StoreError> {
    const CHOSEN: &str = "IN (SELECT value FROM json_each(?1))";
    if prune.part == PrunedPart::Deliveries
        && let Some(age) = prune.keep_keys
    {
        return delete_and_keep_keys(connection, &ids, millis(age), now).await;
    }
    let statements = match prune.part {
        PrunedPart::Messages => vec![
            format!("DELETE FROM postrider_body_blobs WHERE delivery_id {CHOSEN}"),
            format!("UPDATE postrider_deliveries SET body = NULL, text = NULL, html = NULL, blobs = NULL WHERE id {CHOSEN}"),
        ],
        // The last attempt stays: a resend continues its number.
        PrunedPart::History => vec![format!(
            "DELETE FROM postrider_attempts WHERE delivery_id {CHOSEN}
             AND number < (SELECT max(number) FROM postrider_attempts l WHERE l.delivery_id = postrider_attempts.delivery_id)"
        )],
        // A trigger deletes the rows of the other tables.
        PrunedPart::Deliveries => vec![format!("DELETE FROM postrider_deliveries WHERE id {CHOSEN}")],
    };
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).bind(&ids).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes deliveries, but leaves a row for each key that is to stay taken.
async fn delete_and_keep_keys(
    connection: &mut SqliteConnection,
    ids: &str,
    age: i64,
    now: i64,
) -> Result<(), StoreError> {
    let young = "id IN (SELECT value FROM json_each(?1)) AND key IS NOT NULL AND created_at >= ?2";
    let kept: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT id FROM postrider_deliveries WHERE {young}")))
            .bind(ids)
            .bind(now.saturating_sub(age))
            .fetch_all(&mut *connection)
            .await?;
    let kept = ids_as_json(kept);
    sqlx::query(
        "UPDATE postrider_totals SET count = count - (
             SELECT count(*) FROM json_each(?1) k LEFT JOIN postrider_ended e ON e.delivery_id = k.value
             WHERE coalesce(e.state, 'sent') = postrider_totals.state)",
    )
    .bind(&kept)
    .execute(&mut *connection)
    .await?;
    for table in ["ended", "attempts", "recipients", "body_blobs"] {
        let text = format!("DELETE FROM postrider_{table} WHERE delivery_id IN (SELECT value FROM json_each(?1))");
        sqlx::query(AssertSqlSafe(text)).bind(&kept).execute(&mut *connection).await?;
    }
    sqlx::query(
        "UPDATE postrider_deliveries
         SET key_until = created_at + ?2, recipients = '[\"\"]', body = NULL, text = NULL, html = NULL, blobs = NULL, subject = NULL,
             template_id = NULL, tags = NULL, traceparent = NULL
         WHERE id IN (SELECT value FROM json_each(?1))",
    )
    .bind(&kept)
    .bind(age)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM postrider_deliveries WHERE id IN (SELECT value FROM json_each(?1)) AND key_until IS NULL")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Frees keys that were kept long enough.
async fn free_keys(connection: &mut SqliteConnection, now: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM postrider_deliveries WHERE key_until < ?1").bind(now).execute(connection).await?;
    Ok(())
}

pub(super) async fn sweep_blobs(pool: &SqlitePool, limit: u32) -> Result<u64, StoreError> {
    const UNUSED: &str = "SELECT hash FROM postrider_blobs c
        WHERE NOT EXISTS (SELECT 1 FROM postrider_body_blobs b WHERE b.hash = c.hash) LIMIT ?1";
    retry_conflicts(|| async {
        let mut session = Session::acquire_drop_safe(pool).await?;
        // A deletion locks the database even if it deletes nothing.
        let unused = sqlx::query(UNUSED).bind(1).fetch_optional(&mut *session).await;
        if matches!(unused, Ok(None)) {
            return session.finish(Ok(0));
        }
        let delete = AssertSqlSafe(format!("DELETE FROM postrider_blobs WHERE hash IN ({UNUSED})"));
        let swept = sqlx::query(delete).bind(i64::from(limit)).execute(&mut *session).await;
        session.finish(swept.map(|swept| swept.rows_affected()).map_err(StoreError::from))
    })
    .await
}
