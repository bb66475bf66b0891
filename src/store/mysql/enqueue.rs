//! Inserts deliveries in batches of a few fixed sizes.

use std::collections::HashMap;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Row};

use super::blobs::{insert_carried, store_blobs};
use super::rows::read_id;
use super::sql::{BEGIN, Sql};
use crate::store::new_row::{stored_subject, tags_json, time_columns, traceparent_column};
use crate::store::row::{corrupt, recipients_json};
use crate::store::{NewRow, StoreError, StoreErrorKind};

/// The largest size of a batch in bytes, unless a single mail is larger. It is well below the 16 MiB that MariaDB accepts by default
/// (`max_allowed_packet`).
const MAX_BATCH_BYTES: usize = 4 << 20;

/// The numbers of rows in an insert. They are few, so that few statements are prepared.
pub(super) const BATCH_SIZES: [usize; 3] = [64, 8, 1];

/// Divides rows into batches, each with the index of its size in [`BATCH_SIZES`].
pub(super) fn batches<T>(mut rows: &[T], bytes: impl Fn(&T) -> usize) -> Vec<(usize, &[T])> {
    let mut batches = Vec::new();
    while !rows.is_empty() {
        let fits = |size: usize| {
            rows.get(..size).is_some_and(|rows| rows.iter().map(&bytes).sum::<usize>() <= MAX_BATCH_BYTES)
        };
        let size_index = BATCH_SIZES.iter().position(|size| fits(*size)).unwrap_or(BATCH_SIZES.len() - 1);
        let (batch, rest) = rows.split_at(BATCH_SIZES[size_index]);
        batches.push((size_index, batch));
        rows = rest;
    }
    batches
}

/// Inserts rows in a transaction. A single statement is a transaction of its own.
pub(super) async fn insert(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: &[NewRow],
    now: Option<i64>,
) -> Result<Vec<DeliveryId>, StoreError> {
    if let [row] = rows
        && row.key.is_none()
        && row.message.blobs.is_empty()
    {
        return insert_in(connection, sql, rows, now).await;
    }
    let mut tx = connection.begin_with(BEGIN).await?;
    let ids = insert_in(&mut tx, sql, rows, now).await?;
    tx.commit().await?;
    Ok(ids)
}

pub(super) async fn insert_in(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: &[NewRow],
    now: Option<i64>,
) -> Result<Vec<DeliveryId>, StoreError> {
    // Checked now. Otherwise the error would come when a relay records the outcome of the recipient.
    let too_long = |row: &NewRow| row.recipients.iter().any(|r| r.as_str().chars().count() > NewRow::MAX_RECIPIENT);
    if rows.iter().any(too_long) {
        let text = format!("an address has more than {} characters", NewRow::MAX_RECIPIENT);
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    store_blobs(connection, sql, rows).await?;
    let (keyed, plain): (Vec<&NewRow>, Vec<&NewRow>) = rows.iter().partition(|row| row.key.is_some());
    let in_row = |row: &&NewRow| bytes_in_row(&row.message);
    for (size_index, batch) in batches(&plain, in_row) {
        insert_batch(connection, sql, &sql.insert[size_index], batch, now).await?;
    }
    // If a key exists, the insert leaves its row unchanged. The server's count does not say which rows those were. Rows without a key use
    // the plain statement, so that an existing id is an error.
    let mut existing = HashMap::new();
    for (size_index, batch) in batches(&keyed, in_row) {
        insert_batch(connection, sql, &sql.insert_keyed[size_index], batch, now).await?;
        add_ids_of_keys(connection, sql, size_index, batch, &mut existing).await?;
    }
    let ids = rows.iter().map(|row| match row.key.as_deref() {
        None => Ok(row.id),
        Some(key) => {
            let id = existing.get(key.as_bytes()).copied();
            id.ok_or_else(|| corrupt("a key exists, but its delivery is not visible"))
        }
    });
    let ids = ids.collect::<Result<Vec<_>, StoreError>>()?;
    let inserted = rows.iter().zip(&ids).filter_map(|(row, id)| (row.id == *id).then_some(row));
    insert_carried(connection, sql, inserted).await?;
    Ok(ids)
}

/// The bytes of a message without its blobs.
fn bytes_in_row(message: &Encoded) -> usize {
    message.size() - bytes_of_blobs(message)
}

fn bytes_of_blobs(message: &Encoded) -> usize {
    message.blobs.iter().map(|blob| blob.bytes().len()).sum()
}

/// Inserts deliveries. It writes a null for a missing subject or tags. (The defaults of these columns, which read the body, are for other
/// programs.)
pub(super) const INSERT: &str = "
    INSERT INTO {p}deliveries
        (id, created_at, format, `body`, `text`, html, blobs_size, recipients, subject, tags, template_id, `key`, priority, when_in_doubt,
         traceparent, send_at, expires_at)
    VALUES";

/// A row of values. The last two columns are times, each from a flag (whether it is relative to now) and its microseconds.
pub(super) const ROW: &str =
    "(?, {now}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, IF(?, {now}, 0) + ?, IF(?, {now}, 0) + ?)";

async fn insert_batch(
    connection: &mut MySqlConnection,
    sql: &Sql,
    text: &std::sync::Arc<str>,
    rows: &[&NewRow],
    now: Option<i64>,
) -> Result<(), StoreError> {
    let mut query = sql.query(text);
    for row in rows {
        let (send_after, send) = time_columns(row.due);
        let (expire_after, expire) = time_columns(row.expires);
        query = query
            .bind(row.id.as_uuid())
            .bind(now)
            .bind(row.message.format.clone())
            .bind(row.message.body.clone())
            .bind(row.message.text.clone())
            .bind(row.message.html.clone())
            .bind(i64::try_from(bytes_of_blobs(&row.message)).unwrap_or(i64::MAX))
            .bind(recipients_json(&row.recipients))
            .bind(stored_subject(&row.summary))
            .bind(tags_json(&row.summary.tags))
            .bind(row.template_id.clone())
            .bind(row.key.as_ref().map(|key| key.as_bytes().to_vec()))
            .bind(i64::from(row.priority.level()))
            .bind(row.when_in_doubt.as_str())
            .bind(traceparent_column(row))
            .bind(send_after)
            .bind(now)
            .bind(send)
            .bind(expire_after)
            .bind(now)
            .bind(expire);
    }
    query.execute(connection).await?;
    Ok(())
}

/// Finds the deliveries with these keys, and locks them: a plain read in the caller's transaction might use a snapshot from before the key
/// was inserted.
pub(super) const IDS_OF_KEYS: &str =
    "SELECT id, `key` FROM {p}deliveries FORCE INDEX (deliveries_key) WHERE `key` IN ({keys_in}) FOR UPDATE";

/// Adds the delivery of each key to `existing`.
async fn add_ids_of_keys(
    connection: &mut MySqlConnection,
    sql: &Sql,
    size_index: usize,
    rows: &[&NewRow],
    existing: &mut HashMap<Vec<u8>, DeliveryId>,
) -> Result<(), StoreError> {
    let mut query = sql.query(&sql.ids_of_keys[size_index]);
    for row in rows {
        query = query.bind(row.key.as_ref().map(|key| key.as_bytes().to_vec()));
    }
    for row in &query.fetch_all(connection).await? {
        existing.insert(row.try_get("key")?, read_id(row, "id")?);
    }
    Ok(())
}
