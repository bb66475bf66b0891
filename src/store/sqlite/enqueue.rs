//! Inserts deliveries. Each row is one statement, so that even outside a transaction it is inserted whole or not at all.

use postrider_transport::{BlobHash, DeliveryId, Encoded};
use sqlx::sqlite::SqliteConnection;

use super::message::store_blobs;
use crate::clock::{millis, to_millis};
use crate::store::blobs::distinct_hashes;
use crate::store::new_row::{stored_subject, tags_json, traceparent_column};
use crate::store::row::{corrupt, recipients_json};
use crate::store::{NewRow, StoreError, When};

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    rows: &[NewRow],
    now: i64,
) -> Result<Vec<DeliveryId>, StoreError> {
    store_blobs(connection, rows).await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(insert_one(connection, row, now).await?);
    }
    Ok(ids)
}

/// The hashes of the blobs as a JSON array. `None` if there are none.
fn hashes_json(message: &Encoded) -> Option<String> {
    let hashes = distinct_hashes(message);
    (!hashes.is_empty()).then(|| serde_json::Value::from_iter(hashes.iter().map(BlobHash::to_string)).to_string())
}

async fn insert_one(connection: &mut SqliteConnection, row: &NewRow, now: i64) -> Result<DeliveryId, StoreError> {
    let resolve = |when: When| match when {
        When::At(time) => to_millis(time),
        When::After(wait) => now.saturating_add(millis(wait)),
    };
    let inserted = sqlx::query(
        "INSERT INTO postrider_deliveries
             (id, created_at, format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at,
              text, html, blobs, subject, tags, traceparent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
         ON CONFLICT (key) DO NOTHING",
    )
    .bind(row.id.to_string())
    .bind(now)
    .bind(&row.message.format)
    .bind(&row.message.body)
    .bind(recipients_json(&row.recipients))
    .bind(&row.template_id)
    .bind(&row.key)
    .bind(i64::from(row.priority.level()))
    .bind(row.when_in_doubt.as_str())
    .bind(row.due.map(resolve))
    .bind(row.expires.map(resolve))
    .bind(&row.message.text)
    .bind(&row.message.html)
    .bind(hashes_json(&row.message))
    .bind(stored_subject(&row.summary))
    .bind(tags_json(&row.summary.tags))
    .bind(traceparent_column(row))
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() > 0 {
        return Ok(row.id);
    }
    let existing: String = sqlx::query_scalar("SELECT id FROM postrider_deliveries WHERE key = ?1")
        .bind(&row.key)
        .fetch_one(connection)
        .await?;
    existing.parse().map_err(|_| corrupt("an id is not a UUID"))
}
