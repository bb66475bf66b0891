//! Removes a recipient from a finished delivery.

use postrider_transport::Recipient;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::admin::find_with_state;
use crate::admin::UpdateOutcome;
use crate::state::State;
use crate::store::StoreError;
use crate::store::recipients::{ERASED, Erasure, key_contains};
use crate::store::row::{Columns, read_enum, read_recipients};

/// The bound parameters are the id, the recipients, and whether to delete the key.
const ERASE_DELIVERY: &str = "
    UPDATE postrider_deliveries
    SET recipients = ?2, subject = NULL, body = NULL, text = NULL, html = NULL, blobs = NULL, traceparent = NULL,
        key = CASE WHEN ?3 THEN NULL ELSE key END
    WHERE id = ?1";

/// The bound parameter is the id. `{erased}` is [`ERASED`].
const ERASE_TEXTS: [&str; 4] = [
    "DELETE FROM postrider_body_blobs WHERE delivery_id = ?1",
    "UPDATE postrider_ended SET reason = '{erased}' WHERE delivery_id = ?1 AND reason IS NOT NULL",
    "UPDATE postrider_recipients SET reply = NULL WHERE delivery_id = ?1 AND reply IS NOT NULL",
    "UPDATE postrider_attempts SET reply = NULL, note = NULL, error = CASE WHEN error IS NOT NULL THEN '{erased}' END WHERE delivery_id = ?1",
];

const RENAME_RECIPIENT: &str = "UPDATE postrider_recipients SET address = ?3 WHERE delivery_id = ?1 AND address = ?2";

pub(super) async fn erase(
    connection: &mut SqliteConnection,
    id: &str,
    recipient: &Recipient,
) -> Result<UpdateOutcome, StoreError> {
    let Some(row) = find_with_state(connection, id).await? else {
        return Ok(UpdateOutcome::NotFound);
    };
    let state: State = read_enum(&row, "state")?;
    let erasure = Erasure::new(read_recipients(&row).unwrap_or_default(), recipient);
    let Some(erasure) = erasure.filter(|_| state.is_finished()) else {
        return Ok(UpdateOutcome::Unchanged(state));
    };
    sqlx::query(ERASE_DELIVERY)
        .bind(id)
        .bind(erasure.recipients_json())
        .bind(key_contains(row.text_or_null("key")?.as_deref(), recipient))
        .execute(&mut *connection)
        .await?;
    for text in ERASE_TEXTS {
        sqlx::query(AssertSqlSafe(text.replace("{erased}", ERASED))).bind(id).execute(&mut *connection).await?;
    }
    for (old, new) in &erasure.replaced {
        let rename = sqlx::query(RENAME_RECIPIENT).bind(id).bind(old.as_str()).bind(new.as_str());
        rename.execute(&mut *connection).await?;
    }
    Ok(UpdateOutcome::Updated)
}
