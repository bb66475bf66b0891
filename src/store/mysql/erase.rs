//! Removes a recipient from a finished delivery.

use postrider_transport::{DeliveryId, Recipient};
use sqlx::Connection;

use super::MySqlStore;
use super::sql::BEGIN;
use crate::admin::UpdateOutcome;
use crate::state::State;
use crate::store::StoreError;
use crate::store::recipients::{ERASED, Erasure, key_contains};
use crate::store::row::{Columns, read_enum, read_recipients};

const ERASE_DELIVERY: &str = "
    UPDATE {p}deliveries
    SET recipients = ?, subject = NULL, `body` = NULL, `text` = NULL, html = NULL, blobs_size = 0, traceparent = NULL,
        `key` = IF(?, NULL, `key`)
    WHERE id = ?";

/// The bound parameter is the id. `{erased}` is [`ERASED`].
const ERASE_TEXTS: [&str; 4] = [
    "DELETE FROM {p}body_blobs WHERE delivery_id = ?",
    "UPDATE {p}ended SET reason = '{erased}' WHERE delivery_id = ? AND reason IS NOT NULL",
    "UPDATE {p}recipients SET reply = NULL WHERE delivery_id = ? AND reply IS NOT NULL",
    "UPDATE {p}attempts SET reply = NULL, note = NULL, error = IF(error IS NULL, NULL, '{erased}') WHERE delivery_id = ?",
];

const RENAME_RECIPIENT: &str = "UPDATE {p}recipients SET address = ? WHERE delivery_id = ? AND address = ?";

impl MySqlStore {
    pub(super) async fn try_erase(&self, id: DeliveryId, recipient: &Recipient) -> Result<UpdateOutcome, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        self.lock(&mut tx, id).await?;
        let Some(row) = self.find_with_state(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::NotFound));
        };
        let state: State = read_enum(&row, "state")?;
        let erasure = Erasure::new(read_recipients(&row).unwrap_or_default(), recipient);
        let Some(erasure) = erasure.filter(|_| state.is_finished()) else {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::Unchanged(state)));
        };
        self.sql
            .query(&self.sql.fill(ERASE_DELIVERY))
            .bind(erasure.recipients_json())
            .bind(key_contains(row.text_or_null("key")?.as_deref(), recipient))
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        for text in ERASE_TEXTS {
            self.execute_for(&mut tx, &text.replace("{erased}", ERASED), id).await?;
        }
        let rename = self.sql.fill(RENAME_RECIPIENT);
        for (old, new) in &erasure.replaced {
            let query = self.sql.query(&rename).bind(new.as_str().to_owned()).bind(id.as_uuid());
            query.bind(old.as_str().to_owned()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        session.finish(Ok(UpdateOutcome::Updated))
    }
}
