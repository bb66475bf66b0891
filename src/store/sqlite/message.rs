//! The stored messages, with their blobs.

use std::collections::HashMap;

use postrider_transport::{Blob, BlobHash, Encoded};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::blobs::{BLOB_MISSING, add_blobs, distinct_blobs, read_blob};
use crate::store::row::{Columns, corrupt};
use crate::store::{NewRow, StoreError};

/// Stores the blobs of the rows that are not stored yet. The insert of a delivery fails if one of them is deleted before it.
pub(super) async fn store_blobs(connection: &mut SqliteConnection, rows: &[NewRow]) -> Result<(), StoreError> {
    for (hash, blob) in distinct_blobs(rows) {
        let hash = hash.to_string();
        let stored: Option<i64> = sqlx::query_scalar("SELECT 1 FROM postrider_blobs WHERE hash = ?1")
            .bind(&hash)
            .fetch_optional(&mut *connection)
            .await?;
        if stored.is_none() {
            sqlx::query("INSERT INTO postrider_blobs (hash, content) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
                .bind(&hash)
                .bind(blob.bytes())
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// Reads the message of a row with the columns `format`, `body`, `text`, `html` and `blobs`. The inner error says that it is malformed.
pub(super) async fn read_message(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
) -> Result<Result<Encoded, StoreError>, StoreError> {
    let (mut message, hashes) = match read_columns(row) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let mut blobs: HashMap<BlobHash, Blob> = HashMap::new();
    for hash in &hashes {
        let row = sqlx::query("SELECT content FROM postrider_blobs WHERE hash = ?1")
            .bind(hash.to_string())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            blobs.extend([read_blob(row.try_get("content")?)]);
        }
    }
    if !add_blobs(&mut message, &hashes, &blobs) {
        return Ok(Err(corrupt(BLOB_MISSING)));
    }
    Ok(Ok(message))
}

fn read_columns(row: &SqliteRow) -> Result<(Encoded, Vec<BlobHash>), StoreError> {
    let mut message = Encoded::new(row.text("format")?, row.text("body")?);
    message.text = row.bytes("text")?.map(|_| row.text("text").map(str::to_owned)).transpose()?;
    message.html = row.bytes("html")?.map(|_| row.text("html").map(str::to_owned)).transpose()?;
    let hashes = match row.bytes("blobs")? {
        None => Vec::new(),
        Some(json) => {
            let hashes: Option<Vec<String>> = serde_json::from_slice(json).ok();
            let hashes = hashes.and_then(|all| all.iter().map(|hash| hash.parse().ok()).collect());
            hashes.ok_or_else(|| corrupt("the blobs are not a JSON array of hashes"))?
        }
    };
    Ok((message, hashes))
}
