//! Deletes old data of finished deliveries.

use std::time::SystemTime;

use postrider_transport::DeliveryId;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::rows::Moment;
use super::sql::Sql;
use crate::clock::{micros, millis, to_millis};
use crate::prune::{Prune, PruneStep, PrunedPart};
use crate::store::StoreError;

/// Scans the next deliveries of one table, in the order of their ids: `{scan}` selects them, up to the id `$3`. Returns their number, the
/// last of them, and those that ended long enough ago.
const FIND: &str = r#"
    WITH scan AS ({scan})
    SELECT (SELECT count(*) FROM scan) AS count, (SELECT id FROM scan ORDER BY id DESC LIMIT 1) AS last, ARRAY ({ended}) AS found"#;

/// Selects the deliveries in `scan` that are in one of the states `$5` and ended longer ago than `$6`.
const ENDED: &str = r#"
    SELECT d.id FROM scan JOIN "{s}".deliveries d ON d.id = scan.id
    LEFT JOIN "{s}".ended e ON e.delivery_id = d.id
    LEFT JOIN LATERAL (SELECT finished_at FROM "{s}".attempts a WHERE a.delivery_id = d.id ORDER BY number DESC LIMIT 1) last ON true
    WHERE d.key_until IS NULL AND NOT EXISTS (SELECT FROM "{s}".queue q WHERE q.delivery_id = d.id)
      AND coalesce(e.state, 'sent') = ANY ($5)
      AND coalesce(e.ended_at, last.finished_at, d.created_at) < {now} - $6 * interval '1 microsecond'"#;

/// Selects the deliveries that may have ended long enough ago, because they were enqueued long enough ago.
const SCAN_DELIVERIES: &str = r#"
    SELECT id FROM "{s}".deliveries
    WHERE id > $2 AND id < $3 AND created_at < {now} - $6 * interval '1 microsecond' ORDER BY id LIMIT $4"#;

const SCAN_MESSAGES: &str = r#"
    SELECT delivery_id AS id FROM "{s}".bodies WHERE delivery_id > $2 AND delivery_id < $3 ORDER BY delivery_id LIMIT $4"#;

/// Selects the deliveries with several attempts.
const SCAN_HISTORY: &str = r#"
    SELECT delivery_id AS id FROM "{s}".attempts a
    WHERE delivery_id > $2 AND delivery_id < $3
      AND number = (SELECT min(number) FROM "{s}".attempts f WHERE f.delivery_id = a.delivery_id)
      AND EXISTS (SELECT FROM "{s}".attempts l WHERE l.delivery_id = a.delivery_id AND l.number > a.number)
    ORDER BY delivery_id LIMIT $4"#;

/// Locks deliveries. It skips one that is locked, for example by a resend.
const LOCK: &str = r#"
    SELECT id FROM "{s}".deliveries d WHERE id = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED"#;

/// Checks again under the locks. Between the search and the lock, a resend may have changed a delivery, or another deletion may have left
/// only its key; its total would then be reduced twice. The parameters are those of the search, and the conditions on `$2` to `$4`, which
/// always hold, use all of them.
const STILL_ENDED: &str = r#"
    WITH scan AS (SELECT id FROM unnest($7::uuid[]) u (id) WHERE id > $2 AND id < $3 LIMIT $4) {ended}"#;

const DELETE_MESSAGES: &str = r#"
    WITH carried AS (DELETE FROM "{s}".body_blobs WHERE delivery_id = ANY ($1))
    DELETE FROM "{s}".bodies WHERE delivery_id = ANY ($1)"#;

/// The last attempt stays: a resend continues its number.
const DELETE_HISTORY: &str = r#"
    DELETE FROM "{s}".attempts a WHERE delivery_id = ANY ($1)
    AND number < (SELECT max(number) FROM "{s}".attempts l WHERE l.delivery_id = a.delivery_id)"#;

/// Deletes all but the keys of deliveries whose keys stay taken. Returns the ids of these.
const KEEP_KEYS: &str = r#"
    WITH kept AS (
        UPDATE "{s}".deliveries d
        SET key_until = created_at + $3 * interval '1 microsecond', recipients = '[]', subject = NULL, template_id = NULL, tags = NULL,
            traceparent = NULL
        WHERE id = ANY ($2) AND key IS NOT NULL AND created_at >= {now} - $3 * interval '1 microsecond' RETURNING id),
    total AS (
        INSERT INTO "{s}".totals AS t (state, slot, count)
        SELECT coalesce(e.state, 'sent'), {admin slot}, -count(*) FROM kept LEFT JOIN "{s}".ended e ON e.delivery_id = kept.id GROUP BY 1
        ON CONFLICT (state, slot) DO UPDATE SET count = t.count + excluded.count),
    ended AS (DELETE FROM "{s}".ended WHERE delivery_id IN (SELECT id FROM kept)),
    attempts AS (DELETE FROM "{s}".attempts WHERE delivery_id IN (SELECT id FROM kept)),
    recipients AS (DELETE FROM "{s}".recipients WHERE delivery_id IN (SELECT id FROM kept)),
    carried AS (DELETE FROM "{s}".body_blobs WHERE delivery_id IN (SELECT id FROM kept)),
    bodies AS (DELETE FROM "{s}".bodies WHERE delivery_id IN (SELECT id FROM kept))
    SELECT id FROM kept"#;

/// A trigger deletes the rows of the other tables.
const DELETE_DELIVERIES: &str = r#"DELETE FROM "{s}".deliveries WHERE id = ANY ($1)"#;

/// Frees keys that were kept long enough.
const FREE_KEYS: &str = r#"
    DELETE FROM "{s}".deliveries WHERE id IN (
        SELECT id FROM "{s}".deliveries
        WHERE key_until < {now}
        LIMIT 10000 FOR UPDATE SKIP LOCKED)"#;

/// Locks blobs that no message carries. It skips one that an enqueueing transaction has locked to use it.
const LOCK_UNUSED_BLOBS: &str = r#"
    SELECT hash FROM "{s}".blobs c
    WHERE NOT EXISTS (SELECT FROM "{s}".body_blobs b WHERE b.hash = c.hash) LIMIT $1 FOR UPDATE SKIP LOCKED"#;

/// Checks again under the locks: a transaction that uses one may have committed in between, and the foreign key would refuse the whole
/// deletion.
const DELETE_BLOBS: &str = r#"
    DELETE FROM "{s}".blobs c
    WHERE hash = ANY ($1) AND NOT EXISTS (SELECT FROM "{s}".body_blobs b WHERE b.hash = c.hash)"#;

pub(super) async fn step(
    connection: &mut PgConnection,
    sql: &Sql,
    prune: &Prune,
    after: Option<DeliveryId>,
    limit: u32,
    now: Option<Moment>,
) -> Result<PruneStep, StoreError> {
    let states = prune.finished_states();
    if states.is_empty() {
        return Ok(PruneStep::new(0, None));
    }
    let scan = match prune.part {
        PrunedPart::Messages => SCAN_MESSAGES,
        PrunedPart::History => SCAN_HISTORY,
        PrunedPart::Deliveries => SCAN_DELIVERIES,
    };
    let conditions = |text: &str| {
        let text = sql.fill(&text.replace("{scan}", scan).replace("{ended}", ENDED));
        let query = sql.query(&text.into()).bind(now).bind(after.map_or(Uuid::nil(), |id| id.as_uuid()));
        let query = query.bind(last_id(prune, now)).bind(i64::from(limit));
        query.bind(states.clone()).bind(micros(prune.older_than))
    };
    let found = conditions(FIND).fetch_one(&mut *connection).await?;
    let (count, last): (i64, Option<Uuid>) = (found.try_get("count")?, found.try_get("last")?);
    let mut ids: Vec<Uuid> = found.try_get("found")?;
    if !ids.is_empty() {
        let locked: Vec<Uuid> = sql.scalar(&sql.fill(LOCK).into()).bind(ids).fetch_all(&mut *connection).await?;
        let still_ended = conditions(STILL_ENDED).bind(locked).fetch_all(&mut *connection).await?;
        ids = still_ended.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    }
    let affected = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    if !ids.is_empty() {
        delete(connection, sql, prune, ids, now).await?;
    }
    let more = count == i64::from(limit);
    if !more && prune.part == PrunedPart::Deliveries {
        let free = sql.fill(FREE_KEYS).into();
        sql.query(&free).bind(now).execute(connection).await?;
    }
    Ok(PruneStep::new(affected, last.filter(|_| more).map(DeliveryId::from)))
}

/// The id at which the search ends: deliveries with larger ids are too young. A day is added, because clocks differ. A test clock sets no
/// end, because ids do not follow it.
fn last_id(prune: &Prune, now: Option<Moment>) -> Uuid {
    const DAY: i64 = 24 * 3_600_000;
    if now.is_some() {
        return Uuid::max();
    }
    let now = to_millis(SystemTime::now());
    let millis = now.saturating_sub(millis(prune.older_than)).saturating_add(DAY);
    Uuid::from_u64_pair(u64::try_from(millis).unwrap_or(0).min((1 << 48) - 1) << 16, 0)
}

async fn delete(
    connection: &mut PgConnection,
    sql: &Sql,
    prune: &Prune,
    mut ids: Vec<Uuid>,
    now: Option<Moment>,
) -> Result<(), StoreError> {
    let text = match prune.part {
        PrunedPart::Messages => DELETE_MESSAGES,
        PrunedPart::History => DELETE_HISTORY,
        PrunedPart::Deliveries => DELETE_DELIVERIES,
    };
    if let (PrunedPart::Deliveries, Some(age)) = (prune.part, prune.keep_keys) {
        let keep = sql.fill(KEEP_KEYS).into();
        let kept: Vec<Uuid> =
            sql.scalar(&keep).bind(now).bind(&ids).bind(micros(age)).fetch_all(&mut *connection).await?;
        ids.retain(|id| !kept.contains(id));
    }
    sql.query(&sql.fill(text).into()).bind(ids).execute(connection).await?;
    Ok(())
}

pub(super) async fn sweep_blobs(connection: &mut PgConnection, sql: &Sql, limit: u32) -> Result<u64, StoreError> {
    let lock = sql.fill(LOCK_UNUSED_BLOBS).into();
    let locked: Vec<Vec<u8>> = sql.scalar(&lock).bind(i64::from(limit)).fetch_all(&mut *connection).await?;
    if locked.is_empty() {
        return Ok(0);
    }
    let swept = sql.query(&sql.fill(DELETE_BLOBS).into()).bind(locked).execute(connection).await?;
    Ok(swept.rows_affected())
}
