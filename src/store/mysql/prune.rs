//! Deletes old data of finished deliveries.

use std::collections::BTreeMap;
use std::time::SystemTime;

use postrider_transport::DeliveryId;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::counters::add_admin_counts;
use super::rows::{ids_json, json_array, read_id};
use super::sql::{BEGIN, Sql};
use crate::clock::{micros, millis, to_millis};
use crate::prune::{Prune, PruneStep, PrunedPart};
use crate::state::State;
use crate::store::StoreError;
use crate::store::counters::Counts;
use crate::store::row::{Columns, mysql_number, read_enum};

/// Selects the next deliveries of one table, in the order of their ids, and what to do with each. The joins are left joins, so that the
/// search continues after a row whose delivery is gone. All statements name their indexes: on a table that was filled a moment ago, MySQL
/// still plans for an empty table, and would read all of it for each row.
const FIND: &str = "
    SELECT w.id, {action} AS action
    FROM ({scan}) w LEFT JOIN {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = w.id
    LEFT JOIN {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = d.id
    LEFT JOIN {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = d.id
    ORDER BY w.id";

/// Selects the deliveries that may have ended long enough ago, because they were enqueued long enough ago. These include
/// deliveries of which only the key is left.
const SCAN_DELIVERIES: &str = "
    SELECT id FROM {p}deliveries FORCE INDEX (PRIMARY) WHERE id > ? AND id < ? AND created_at < {ended_before} ORDER BY id LIMIT {limit}";

const SCAN_MESSAGES: &str = "
    SELECT id FROM {p}deliveries FORCE INDEX (PRIMARY)
    WHERE id > ? AND id < ? AND created_at < {ended_before} AND `body` IS NOT NULL ORDER BY id LIMIT {limit}";

/// Selects the deliveries with several attempts.
const SCAN_HISTORY: &str = "
    SELECT a.delivery_id AS id FROM {p}attempts a FORCE INDEX (PRIMARY) WHERE a.delivery_id > ? AND a.delivery_id < ?
    GROUP BY a.delivery_id HAVING MIN(a.number) < MAX(a.number) ORDER BY a.delivery_id LIMIT {limit}";

/// What to do with a delivery: 0 for nothing, or one of the numbers below.
const ACTION: &str = "
    CASE WHEN d.id IS NULL THEN 0
         WHEN d.key_until IS NOT NULL THEN IF({deletes_deliveries} AND d.key_until < {now}, 3, 0)
         WHEN q.delivery_id IS NULL AND COALESCE(e.state, 'sent') IN ({states})
              AND COALESCE(e.ended_at,
                           (SELECT l.finished_at FROM {p}attempts l FORCE INDEX (PRIMARY) WHERE l.delivery_id = d.id
                            ORDER BY l.number DESC LIMIT 1),
                           d.created_at) < {ended_before}
         THEN IF({key_stays}, 2, 1) ELSE 0 END";
const DELETE: i64 = 1;
const KEEP_KEY: i64 = 2;
const FREE_KEY: i64 = 3;

/// Locks deliveries. It skips one that an operator is resending.
const LOCK: &str = "
    SELECT d.id FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id) FOR UPDATE {of_d} SKIP LOCKED";

/// Checks again under the locks, since an operator may have resent a delivery between the search and the lock.
const CHECK: &str = "
    SELECT d.id, {action} AS action, COALESCE(e.state, 'sent') AS state,
           COALESCE((SELECT MAX(a.number) FROM {p}attempts a FORCE INDEX (PRIMARY) WHERE a.delivery_id = d.id), 0) AS last_number
    FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)
    LEFT JOIN {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = d.id
    LEFT JOIN {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = d.id";

const DELETE_MESSAGES: [&str; 2] = [
    "DELETE b FROM {keys} {p}body_blobs b FORCE INDEX (PRIMARY) ON b.delivery_id = UNHEX(k.id)",
    "UPDATE {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)
     SET d.`body` = NULL, d.`text` = NULL, d.html = NULL, d.blobs_size = 0",
];

/// The last attempt stays: a resend continues its number.
const DELETE_HISTORY: [&str; 1] =
    ["DELETE a FROM {keys} {p}attempts a FORCE INDEX (PRIMARY) ON a.delivery_id = UNHEX(k.id) AND a.number < k.n"];

/// Triggers delete the rows of the other tables.
const DELETE_DELIVERIES: [&str; 1] =
    ["DELETE d FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)"];

/// Deletes all but the keys of deliveries whose keys stay taken. The table refuses an empty list of recipients.
const KEEP_KEYS: &str = "
    UPDATE {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)
    SET d.key_until = d.created_at + k.n, d.recipients = '[\"\"]', d.`body` = NULL, d.`text` = NULL, d.html = NULL, d.blobs_size = 0,
        d.subject = NULL, d.template_id = NULL, d.tags = NULL, d.traceparent = NULL";

pub(super) async fn step(
    connection: &mut MySqlConnection,
    sql: &Sql,
    prune: &Prune,
    after: Option<DeliveryId>,
    limit: u32,
    test_now: Option<i64>,
) -> Result<PruneStep, StoreError> {
    if prune.finished_states().is_empty() {
        return Ok(PruneStep::new(0, None));
    }
    let mut tx = connection.begin_with(BEGIN).await?;
    let now: i64 = sql.scalar(&sql.now).bind(test_now).fetch_one(&mut *tx).await?;
    let scan = match prune.part {
        PrunedPart::Messages => SCAN_MESSAGES,
        PrunedPart::History => SCAN_HISTORY,
        PrunedPart::Deliveries => SCAN_DELIVERIES,
    };
    let fill = |text: &str| fill(sql, prune, now, &text.replace("{limit}", &limit.to_string()));
    // Sorts before every id. An empty value would be NULL in a session with EMPTY_STRING_IS_NULL.
    let after = after.map_or_else(|| vec![0], |id| id.as_uuid().as_bytes().to_vec());
    let find = sql.query(&fill(&FIND.replace("{scan}", scan))).persistent(false);
    let scanned = find.bind(after).bind(last_id(prune, test_now)).fetch_all(&mut *tx).await?;
    let more = u32::try_from(scanned.len()).unwrap_or(u32::MAX) == limit;
    let last = scanned.last().filter(|_| more).map(|row| read_id(row, "id")).transpose()?;

    let mut found = Vec::new();
    for row in &scanned {
        if row.number("action")? != 0 {
            found.push((read_id(row, "id")?, 0));
        }
    }
    let mut affected = 0;
    if !found.is_empty() {
        let locked = sql.query(&sql.fill(LOCK)).bind(ids_json(found)).fetch_all(&mut *tx).await?;
        let mut ids = locked.iter().map(|row| Ok((read_id(row, "id")?, 0))).collect::<Result<Vec<_>, StoreError>>()?;
        ids.sort_unstable();
        let check = sql.query(&fill(CHECK)).persistent(false);
        let rows = check.bind(ids_json(ids)).fetch_all(&mut *tx).await?;
        affected = delete(&mut tx, sql, prune, &rows).await?;
    }
    tx.commit().await?;
    Ok(PruneStep::new(affected, last))
}

/// Fills in the conditions. Its values are numbers and names of states, and so need no parameters.
fn fill(sql: &Sql, prune: &Prune, now: i64, text: &str) -> std::sync::Arc<str> {
    let deletes_deliveries = prune.part == PrunedPart::Deliveries;
    let key_stays = match prune.keep_keys {
        Some(age) if deletes_deliveries => {
            format!("d.`key` IS NOT NULL AND d.created_at >= {}", now.saturating_sub(micros(age)))
        }
        _ => "FALSE".to_owned(),
    };
    let states: Vec<String> = prune.finished_states().iter().map(|state| format!("'{state}'")).collect();
    let text = text.replace("{action}", ACTION).replace("{key_stays}", &key_stays);
    let text = text
        .replace("{deletes_deliveries}", if deletes_deliveries { "TRUE" } else { "FALSE" })
        .replace("{now}", &now.to_string());
    let ended_before = now.saturating_sub(micros(prune.older_than)).to_string();
    sql.fill(&text.replace("{states}", &states.join(", ")).replace("{ended_before}", &ended_before))
}

/// The id at which the search ends: deliveries with larger ids are too young. A day is added, because clocks differ. A test clock sets no
/// end, because ids do not follow it.
fn last_id(prune: &Prune, test_now: Option<i64>) -> Uuid {
    const DAY: i64 = 24 * 3_600_000;
    if test_now.is_some() {
        return Uuid::max();
    }
    let now = to_millis(SystemTime::now());
    let millis = now.saturating_sub(millis(prune.older_than)).saturating_add(DAY);
    Uuid::from_u64_pair(u64::try_from(millis).unwrap_or(0).min((1 << 48) - 1) << 16, 0)
}

/// Deletes what the rows of [`CHECK`] say, and returns the number of deliveries that lost data.
async fn delete(
    connection: &mut MySqlConnection,
    sql: &Sql,
    prune: &Prune,
    rows: &[MySqlRow],
) -> Result<u64, StoreError> {
    let age = prune.keep_keys.map_or(0, micros);
    let (mut deleted, mut freed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let mut ended: BTreeMap<&'static str, i64> = BTreeMap::new();
    for row in rows {
        let id = read_id(row, "id")?;
        match row.number("action")? {
            DELETE => deleted.push((id, row.number("last_number")?)),
            FREE_KEY => freed.push((id, 0)),
            KEEP_KEY => {
                kept.push((id, age));
                *ended.entry(read_enum::<State>(row, "state")?.as_str()).or_default() -= 1;
            }
            _ => {}
        }
    }
    let affected = deleted.len() + kept.len();
    let statements: &[&str] = match prune.part {
        PrunedPart::Messages => &DELETE_MESSAGES,
        PrunedPart::History => &DELETE_HISTORY,
        PrunedPart::Deliveries => &DELETE_DELIVERIES,
    };
    deleted.extend(freed);
    deleted.sort_unstable();
    let deleted = ids_json(deleted);
    for text in statements {
        sql.query(&sql.fill(text)).bind(&deleted).execute(&mut *connection).await?;
    }
    if !kept.is_empty() {
        kept.sort_unstable();
        let kept = ids_json(kept);
        for text in &sql.delete_orphans {
            sql.query(text).bind(&kept).execute(&mut *connection).await?;
        }
        sql.query(&sql.fill(KEEP_KEYS)).bind(kept).execute(&mut *connection).await?;
        add_admin_counts(connection, sql, Counts { ended, ..Counts::default() }).await?;
    }
    Ok(u64::try_from(affected).unwrap_or(u64::MAX))
}

/// Selects blobs that no message carries, without locks.
const UNUSED_BLOBS: &str = "
    SELECT c.hash FROM {p}blobs c
    WHERE NOT EXISTS (SELECT 1 FROM {p}body_blobs b FORCE INDEX (body_blobs_hash) WHERE b.hash = c.hash) ORDER BY c.hash LIMIT ?";

/// A list of hashes, joined like ids.
const HASHES: &str = "
    JSON_TABLE(?, '$[*]' COLUMNS (hash CHAR(64) CHARACTER SET ascii PATH '$')) k
    STRAIGHT_JOIN {p}blobs c FORCE INDEX (PRIMARY) ON c.hash = UNHEX(k.hash)";

/// Locks blobs. It skips one that an enqueueing transaction uses and has locked by its foreign key.
const LOCK_BLOBS: &str = "SELECT c.hash FROM {hashes} FOR UPDATE {of_c} SKIP LOCKED";

/// Checks again under the locks, since a transaction that uses one may have committed in between. Later transactions wait for the locks.
const STILL_UNUSED: &str = "
    SELECT c.hash FROM {hashes} LEFT JOIN {p}body_blobs b FORCE INDEX (body_blobs_hash) ON b.hash = c.hash WHERE b.hash IS NULL";

const DELETE_BLOBS: &str = "DELETE c FROM {hashes}";

pub(super) async fn sweep_blobs(connection: &mut MySqlConnection, sql: &Sql, limit: u32) -> Result<u64, StoreError> {
    let fill = |text: &str| sql.fill(&text.replace("{hashes}", HASHES));
    let mut tx = connection.begin_with(BEGIN).await?;
    let mut rows = sql.query(&fill(UNUSED_BLOBS)).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    for text in [LOCK_BLOBS, STILL_UNUSED] {
        if !rows.is_empty() {
            rows = sql.query(&fill(text)).bind(hashes_json(&rows)?).fetch_all(&mut *tx).await?;
        }
    }
    if rows.is_empty() {
        tx.rollback().await?;
        return Ok(0);
    }
    let hashes = hashes_json(&rows)?;
    let swept = match sql.query(&fill(DELETE_BLOBS)).bind(hashes).execute(&mut *tx).await {
        Ok(done) => done.rows_affected(),
        // The foreign key refuses to delete a blob that is carried.
        Err(error) if matches!(mysql_number(&error), Some(1451 | 1217)) => 0,
        Err(error) => return Err(error.into()),
    };
    tx.commit().await?;
    Ok(swept)
}

/// The hashes of these rows, in their order.
fn hashes_json(rows: &[MySqlRow]) -> Result<String, StoreError> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut hashes =
        rows.iter().map(|row| Ok(hex(row.try_get("hash")?))).collect::<Result<Vec<String>, StoreError>>()?;
    hashes.sort_unstable();
    Ok(json_array(hashes.into_iter().map(serde_json::Value::from)))
}
