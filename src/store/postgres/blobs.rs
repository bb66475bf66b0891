//! Large attachments, each stored once.

use std::collections::HashMap;

use postrider_transport::{Blob, BlobHash};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::sql::Sql;
use crate::store::blobs::{distinct_blobs, read_blob};
use crate::store::row::corrupt;
use crate::store::{NewRow, StoreError};

/// Selects the blobs that exist, and locks them against deletion. The lock is shared: transactions that enqueue do not wait for each
/// other.
pub(super) const LOCK_BLOBS: &str = r#"SELECT hash FROM "{s}".blobs WHERE hash = ANY($1) ORDER BY hash FOR KEY SHARE"#;

/// Inserts blobs in the order of their hashes, so that two transactions with the same ones cannot deadlock. The second waits for the
/// first.
pub(super) const INSERT_BLOBS: &str = r#"
    INSERT INTO "{s}".blobs (hash, content) SELECT * FROM unnest($1::bytea[], $2::bytea[]) u (hash, content) ORDER BY hash
    ON CONFLICT DO NOTHING"#;

/// Selects the hashes of the blobs of each delivery.
pub(super) const CARRIED: &str = r#"SELECT delivery_id, hash FROM "{s}".body_blobs WHERE delivery_id = ANY($1)"#;

/// Stores the blobs of the rows that are not stored yet, and locks the others against deletion until the transaction ends.
pub(super) async fn store_blobs(connection: &mut PgConnection, sql: &Sql, rows: &[NewRow]) -> Result<(), StoreError> {
    let mut missing = distinct_blobs(rows);
    if missing.is_empty() {
        return Ok(());
    }
    loop {
        let hashes: Vec<&[u8]> = missing.keys().map(|hash| &hash.as_bytes()[..]).collect();
        let stored: Vec<Vec<u8>> = sql.scalar(&sql.lock_blobs).bind(hashes).fetch_all(&mut *connection).await?;
        for hash in stored {
            missing.remove(&read_hash(&hash)?);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let (hashes, blobs): (Vec<_>, Vec<_>) =
            missing.iter().map(|(hash, blob)| (&hash.as_bytes()[..], blob.bytes())).unzip();
        let inserted = sql.query(&sql.insert_blobs).bind(hashes).bind(blobs).execute(&mut *connection).await?;
        if inserted.rows_affected() == u64::try_from(missing.len()).unwrap_or(u64::MAX) {
            return Ok(());
        }
        // Another transaction stored one in between. It is locked in the next round, so that nobody deletes it before it is used.
    }
}

/// The hashes of the blobs of each delivery, and the blobs.
pub(super) async fn read_blobs(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: &[Uuid],
) -> Result<(HashMap<Uuid, Vec<BlobHash>>, HashMap<BlobHash, Blob>), StoreError> {
    if ids.is_empty() {
        return Ok(Default::default());
    }
    let mut carried: HashMap<Uuid, Vec<BlobHash>> = HashMap::new();
    for row in sql.query(&sql.carried).bind(ids).fetch_all(&mut *connection).await? {
        let hash = read_hash(row.try_get("hash")?)?;
        carried.entry(row.try_get("delivery_id")?).or_default().push(hash);
    }
    let hashes: Vec<&[u8]> = carried.values().flatten().map(|hash| &hash.as_bytes()[..]).collect();
    let rows = sql.query(&sql.blobs).bind(hashes).fetch_all(connection).await?;
    let blobs = rows.iter().map(|row| Ok(read_blob(row.try_get("content")?)));
    Ok((carried, blobs.collect::<Result<_, StoreError>>()?))
}

fn read_hash(bytes: &[u8]) -> Result<BlobHash, StoreError> {
    let bytes = bytes.try_into().map_err(|_| corrupt("a hash does not have 32 bytes"))?;
    Ok(BlobHash::from_bytes(bytes))
}
