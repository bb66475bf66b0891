//! Large attachments, each stored once.

use std::collections::HashMap;

use postrider_transport::{Content, ContentHash, DeliveryId, Encoded};
use serde_json::json;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::enqueue::batches;
use super::rows::{hex, ids_json, json_array, read_id};
use super::sql::Sql;
use crate::store::contents::{add_contents, distinct_contents, distinct_hashes, read_content};
use crate::store::row::{corrupt, mysql_number};
use crate::store::{NewRow, StoreError};

/// Selects which of these contents exist.
///
/// It takes no lock. A locking read would lock the gaps of those that do not exist, at the default isolation level `REPEATABLE READ`, and
/// two transactions with new contents would deadlock.
pub(super) const EXISTING_CONTENTS: &str = "
    SELECT c.hash FROM JSON_TABLE(?, '$[*]' COLUMNS (hash CHAR(64) CHARACTER SET ascii PATH '$')) k
    STRAIGHT_JOIN {p}contents c FORCE INDEX (PRIMARY) ON c.hash = UNHEX(k.hash)";

pub(super) const INSERT_CONTENTS: &str = "INSERT INTO {p}contents (hash, content) VALUES";

/// Inserts which messages carry which contents. The foreign key takes a shared lock on each content until the transaction ends.
/// Transactions that enqueue do not wait for each other, and a deletion waits for them. A caller may repeat a row with a key, so a row may
/// exist.
pub(super) const INSERT_CARRIED: &str = "
    INSERT INTO {p}body_contents (delivery_id, hash)
    SELECT UNHEX(k.id), UNHEX(k.hash)
    FROM JSON_TABLE(?, '$[*]' COLUMNS ({id}, hash CHAR(64) CHARACTER SET ascii PATH '$[1]')) k
    ON DUPLICATE KEY UPDATE hash = UNHEX(k.hash)";

/// Stores the contents of the rows that are not stored yet.
pub(super) async fn store_contents(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: &[NewRow],
) -> Result<(), StoreError> {
    let mut missing = distinct_contents(rows);
    if missing.is_empty() {
        return Ok(());
    }
    let hashes = json_array(missing.keys().map(|hash| json!(hash.to_string())));
    for row in sql.query(&sql.existing_contents).bind(hashes).fetch_all(&mut *connection).await? {
        missing.remove(&read_hash(row.try_get("hash")?)?);
    }
    let missing: Vec<&Content> = missing.into_values().collect();
    insert_contents(connection, sql, &missing).await
}

/// Inserts contents in the order of their hashes, so that two transactions with the same ones cannot deadlock. The second waits for the
/// first, and then leaves the content of the first in place.
async fn insert_contents(connection: &mut MySqlConnection, sql: &Sql, contents: &[&Content]) -> Result<(), StoreError> {
    for (size_index, batch) in batches(contents, |content| content.bytes().len()) {
        if insert_if_new(connection, sql, size_index, batch).await? || batch.len() == 1 {
            continue;
        }
        // One of them exists by now, so none of the batch was inserted.
        for content in batch {
            insert_if_new(connection, sql, sql.insert_contents.len() - 1, std::slice::from_ref(content)).await?;
        }
    }
    Ok(())
}

/// Inserts contents. Returns `false`, with nothing inserted, if one of them exists. That one is then locked against deletion.
///
/// `INSERT IGNORE` would ignore other errors too, and `ON DUPLICATE KEY UPDATE` would lock the row exclusively.
async fn insert_if_new(
    connection: &mut MySqlConnection,
    sql: &Sql,
    size_index: usize,
    contents: &[&Content],
) -> Result<bool, StoreError> {
    let mut query = sql.query(&sql.insert_contents[size_index]);
    for content in contents {
        query = query.bind(content.hash().as_bytes().to_vec()).bind(content.bytes().to_vec());
    }
    match query.execute(connection).await {
        Ok(_) => Ok(true),
        Err(error) if mysql_number(&error) == Some(1062) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Records which contents the rows carry.
pub(super) async fn insert_carried<'a>(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: impl Iterator<Item = &'a NewRow>,
) -> Result<(), StoreError> {
    let rows: Vec<&NewRow> = rows.filter(|row| !row.message.contents.is_empty()).collect();
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
        // A content was deleted after it was found. (The second number is for users who may not read the contents.)
        Err(error) if matches!(mysql_number(&error), Some(1452 | 1216)) => {}
        Err(error) => return Err(error.into()),
    }
    let contents: Vec<&Content> = distinct_contents(rows.iter().copied()).into_values().collect();
    // This locks each of them, new or not, so that none can vanish again.
    insert_contents(connection, sql, &contents).await?;
    sql.query(&sql.insert_carried).bind(carried).execute(connection).await?;
    Ok(())
}

/// The contents of some messages.
#[derive(Default)]
pub(super) struct StoredContents {
    carried: HashMap<DeliveryId, Vec<ContentHash>>,
    contents: HashMap<ContentHash, Content>,
}

impl StoredContents {
    /// Adds the contents of a message. Returns whether all of them exist. `expected` is whether it has any.
    pub(super) fn add_to(&self, id: DeliveryId, mut message: Encoded, expected: bool) -> (Encoded, bool) {
        let hashes = self.carried.get(&id).map_or(&[][..], Vec::as_slice);
        let complete = !expected || (!hashes.is_empty() && add_contents(&mut message, hashes, &self.contents));
        (message, complete)
    }
}

/// Selects the hashes of the contents of each delivery.
pub(super) const CARRIED: &str = "
    SELECT b.delivery_id, b.hash FROM {keys} {p}body_contents b FORCE INDEX (PRIMARY) ON b.delivery_id = UNHEX(k.id)";

pub(super) const CONTENTS: &str = "
    SELECT c.content FROM JSON_TABLE(?, '$[*]' COLUMNS (hash CHAR(64) CHARACTER SET ascii PATH '$')) k
    STRAIGHT_JOIN {p}contents c FORCE INDEX (PRIMARY) ON c.hash = UNHEX(k.hash)";

/// Reads the contents of these deliveries, each once.
pub(super) async fn read_contents(
    connection: &mut MySqlConnection,
    sql: &Sql,
    ids: &[DeliveryId],
) -> Result<StoredContents, StoreError> {
    let mut read = StoredContents::default();
    if ids.is_empty() {
        return Ok(read);
    }
    let ids = ids_json(ids.iter().map(|id| (*id, 0)));
    for row in sql.query(&sql.carried).bind(ids).fetch_all(&mut *connection).await? {
        read.carried.entry(read_id(&row, "delivery_id")?).or_default().push(read_hash(row.try_get("hash")?)?);
    }
    let mut hashes: Vec<&ContentHash> = read.carried.values().flatten().collect();
    hashes.sort_unstable();
    hashes.dedup();
    let hashes = json_array(hashes.iter().map(|hash| json!(hash.to_string())));
    for row in sql.query(&sql.contents).bind(hashes).fetch_all(connection).await? {
        let (hash, content) = read_content(row.try_get("content")?);
        read.contents.insert(hash, content);
    }
    Ok(read)
}

fn read_hash(octets: &[u8]) -> Result<ContentHash, StoreError> {
    let octets = octets.try_into().map_err(|_| corrupt("a hash does not have 32 octets"))?;
    Ok(ContentHash::from_bytes(octets))
}
