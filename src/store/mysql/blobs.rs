//! Large attachments, each stored once.

use std::collections::HashMap;

use postrider_transport::{Blob, BlobHash, DeliveryId, Encoded};
use serde_json::json;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::enqueue::batches;
use super::rows::{hex, ids_json, json_array, read_id};
use super::sql::Sql;
use crate::store::blobs::{add_blobs, distinct_blobs, distinct_hashes, read_blob};
use crate::store::row::{corrupt, mysql_number};
use crate::store::{NewRow, StoreError};

/// Selects which of these blobs exist.
///
/// It takes no lock. A locking read would lock the gaps of those that do not exist, at the default isolation level `REPEATABLE READ`, and
/// two transactions with new blobs would deadlock.
pub(super) const EXISTING_BLOBS: &str = "
    SELECT c.hash FROM JSON_TABLE(?, '$[*]' COLUMNS (hash CHAR(64) CHARACTER SET ascii PATH '$')) k
    STRAIGHT_JOIN {p}blobs c FORCE INDEX (PRIMARY) ON c.hash = UNHEX(k.hash)";

pub(super) const INSERT_BLOBS: &str = "INSERT INTO {p}blobs (hash, content) VALUES";

/// Inserts which messages carry which blobs. The foreign key takes a shared lock on each blob until the transaction ends.
/// Transactions that enqueue do not wait for each other, and a deletion waits for them. A caller may repeat a row with a key, so a row may
/// exist.
pub(super) const INSERT_CARRIED: &str = "
    INSERT INTO {p}body_blobs (delivery_id, hash)
    SELECT UNHEX(k.id), UNHEX(k.hash)
    FROM JSON_TABLE(?, '$[*]' COLUMNS ({id}, hash CHAR(64) CHARACTER SET ascii PATH '$[1]')) k
    ON DUPLICATE KEY UPDATE hash = UNHEX(k.hash)";

/// Stores the blobs of the rows that are not stored yet.
pub(super) async fn store_blobs(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: &[NewRow],
) -> Result<(), StoreError> {
    let mut missing = distinct_blobs(rows);
    if missing.is_empty() {
        return Ok(());
    }
    let hashes = json_array(missing.keys().map(|hash| json!(hash.to_string())));
    for row in sql.query(&sql.existing_blobs).bind(hashes).fetch_all(&mut *connection).await? {
        missing.remove(&read_hash(row.try_get("hash")?)?);
    }
    let missing: Vec<&Blob> = missing.into_values().collect();
    insert_blobs(connection, sql, &missing).await
}

/// Inserts blobs in the order of their hashes, so that two transactions with the same ones cannot deadlock. The second waits for the
/// first, and then leaves the blob of the first in place.
async fn insert_blobs(connection: &mut MySqlConnection, sql: &Sql, blobs: &[&Blob]) -> Result<(), StoreError> {
    for (size_index, batch) in batches(blobs, |blob| blob.bytes().len()) {
        if insert_if_new(connection, sql, size_index, batch).await? || batch.len() == 1 {
            continue;
        }
        // One of them exists by now, so none of the batch was inserted.
        for blob in batch {
            insert_if_new(connection, sql, sql.insert_blobs.len() - 1, std::slice::from_ref(blob)).await?;
        }
    }
    Ok(())
}

/// Inserts blobs. Returns `false`, with nothing inserted, if one of them exists. That one is then locked against deletion.
///
/// `INSERT IGNORE` would ignore other errors too, and `ON DUPLICATE KEY UPDATE` would lock the row exclusively.
async fn insert_if_new(
    connection: &mut MySqlConnection,
    sql: &Sql,
    size_index: usize,
    blobs: &[&Blob],
) -> Result<bool, StoreError> {
    let mut query = sql.query(&sql.insert_blobs[size_index]);
    for blob in blobs {
        query = query.bind(blob.hash().as_bytes().to_vec()).bind(blob.bytes().to_vec());
    }
    match query.execute(connection).await {
        Ok(_) => Ok(true),
        Err(error) if mysql_number(&error) == Some(1062) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Records which blobs the rows carry.
pub(super) async fn insert_carried<'a>(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: impl Iterator<Item = &'a NewRow>,
) -> Result<(), StoreError> {
    let rows: Vec<&NewRow> = rows.filter(|row| !row.message.blobs.is_empty()).collect();
    let carried = rows.iter().flat_map(|row| {
        let hashes = distinct_hashes(&row.message).into_iter();
        hashes.map(|hash| json!([hex(row.id), hash.to_string()]))
    });
    let carried = json_array(carried);
    if carried == "[]" {
        return Ok(());
    }
    match sql.query(&sql.insert_carried).bind(&carried).execute(&mut *connection).await {
        Ok(_) => return Ok(()),
        // A blob was deleted after it was found. (The second number is for users who may not read the blobs.)
        Err(error) if matches!(mysql_number(&error), Some(1452 | 1216)) => {}
        Err(error) => return Err(error.into()),
    }
    let blobs: Vec<&Blob> = distinct_blobs(rows.iter().copied()).into_values().collect();
    // This locks each of them, new or not, so that none can vanish again.
    insert_blobs(connection, sql, &blobs).await?;
    sql.query(&sql.insert_carried).bind(carried).execute(connection).await?;
    Ok(())
}

/// The blobs of some messages.
#[derive(Default)]
pub(super) struct MessageBlobs {
    carried: HashMap<DeliveryId, Vec<BlobHash>>,
    blobs: HashMap<BlobHash, Blob>,
}

impl MessageBlobs {
    /// Adds the blobs of a message. Returns whether all of them exist. `expected` is whether it has any.
    pub(super) fn add_to(&self, id: DeliveryId, mut message: Encoded, expected: bool) -> (Encoded, bool) {
        let hashes = self.carried.get(&id).map_or(&[][..], Vec::as_slice);
        let complete = !expected || (!hashes.is_empty() && add_blobs(&mut message, hashes, &self.blobs));
        (message, complete)
    }
}

/// Selects the hashes of the blobs of each delivery.
pub(super) const CARRIED: &str = "
    SELECT b.delivery_id, b.hash FROM {keys} {p}body_blobs b FORCE INDEX (PRIMARY) ON b.delivery_id = UNHEX(k.id)";

pub(super) const BLOBS: &str = "
    SELECT c.content FROM JSON_TABLE(?, '$[*]' COLUMNS (hash CHAR(64) CHARACTER SET ascii PATH '$')) k
    STRAIGHT_JOIN {p}blobs c FORCE INDEX (PRIMARY) ON c.hash = UNHEX(k.hash)";

/// Reads the blobs of these deliveries, each once.
pub(super) async fn read_blobs(
    connection: &mut MySqlConnection,
    sql: &Sql,
    ids: &[DeliveryId],
) -> Result<MessageBlobs, StoreError> {
    let mut read = MessageBlobs::default();
    if ids.is_empty() {
        return Ok(read);
    }
    let ids = ids_json(ids.iter().map(|id| (*id, 0)));
    for row in sql.query(&sql.carried).bind(ids).fetch_all(&mut *connection).await? {
        read.carried.entry(read_id(&row, "delivery_id")?).or_default().push(read_hash(row.try_get("hash")?)?);
    }
    let mut hashes: Vec<&BlobHash> = read.carried.values().flatten().collect();
    hashes.sort_unstable();
    hashes.dedup();
    let hashes = json_array(hashes.iter().map(|hash| json!(hash.to_string())));
    for row in sql.query(&sql.blobs).bind(hashes).fetch_all(connection).await? {
        let (hash, blob) = read_blob(row.try_get("content")?);
        read.blobs.insert(hash, blob);
    }
    Ok(read)
}

fn read_hash(bytes: &[u8]) -> Result<BlobHash, StoreError> {
    let bytes = bytes.try_into().map_err(|_| corrupt("a hash does not have 32 bytes"))?;
    Ok(BlobHash::from_bytes(bytes))
}
