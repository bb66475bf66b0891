//! From rows to types.

use postrider_transport::DeliveryId;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::sql::Sql;
use crate::delivery::RecipientOutcome;
use crate::store::StoreError;
use crate::store::sql::outcome;

pub(super) fn id(row: &PgRow, column: &str) -> Result<DeliveryId, StoreError> {
    Ok(row.try_get::<Uuid, _>(column)?.into())
}

/// The outcomes that differ from their delivery's, of all the deliveries given.
pub(super) async fn recorded(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, RecipientOutcome)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sql.query(&sql.recorded).bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("delivery_id")?, outcome(row)?))).collect()
}
