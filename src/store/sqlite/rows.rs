//! From rows to types.

use postrider_transport::DeliveryId;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::row::{Columns, corrupt, outcome};
use crate::store::{RecipientOutcome, StoreError};

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<DeliveryId, StoreError> {
    row.text(column)?.parse().map_err(|_| corrupt("an id is no UUID"))
}

/// The outcomes that differ from the delivery's.
pub(super) async fn recorded(connection: &mut SqliteConnection, id: &str) -> Result<Vec<RecipientOutcome>, StoreError> {
    let rows = sqlx::query("SELECT address, outcome, reply FROM postrider_recipients WHERE delivery_id = ?1")
        .bind(id)
        .fetch_all(connection)
        .await?;
    rows.iter().map(outcome).collect()
}
