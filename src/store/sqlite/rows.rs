//! Reads rows into types.

use postrider_transport::DeliveryId;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::row::{Columns, corrupt, read_outcome};
use crate::store::{RecipientOutcome, StoreError};

pub(super) fn read_id(row: &SqliteRow, column: &str) -> Result<DeliveryId, StoreError> {
    row.text(column)?.parse().map_err(|_| corrupt("an id is not a UUID"))
}

/// Reads the recorded outcomes of a delivery's recipients.
pub(super) async fn read_outcomes(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Vec<RecipientOutcome>, StoreError> {
    let rows = sqlx::query(
        "SELECT address, outcome, reply FROM postrider_recipients WHERE delivery_id = ?1 AND outcome IS NOT NULL",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_outcome).collect()
}

pub(super) fn ids_as_json(ids: Vec<String>) -> String {
    serde_json::Value::from(ids).to_string()
}
