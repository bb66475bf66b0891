//! Removes a recipient from a finished delivery.

use postrider_transport::{DeliveryId, Recipient};
use sqlx::postgres::PgConnection;

use super::PgStore;
use crate::admin::UpdateOutcome;
use crate::state::State;
use crate::store::StoreError;
use crate::store::recipients::{ERASED, Erasure, key_contains};
use crate::store::row::{Columns, read_enum, read_recipients};

const ERASE_DELIVERY: &str = r#"
    UPDATE "{s}".deliveries SET recipients = $2::json, subject = NULL, traceparent = NULL, key = CASE WHEN $3 THEN NULL ELSE key END
    WHERE id = $1"#;

/// The bound parameters are the id and [`ERASED`].
const ERASE_TEXTS: &str = r#"
    WITH carried AS (DELETE FROM "{s}".body_blobs WHERE delivery_id = $1),
         bodies AS (DELETE FROM "{s}".bodies WHERE delivery_id = $1),
         ended AS (UPDATE "{s}".ended SET reason = $2 WHERE delivery_id = $1 AND reason IS NOT NULL),
         recipients AS (UPDATE "{s}".recipients SET reply = NULL WHERE delivery_id = $1 AND reply IS NOT NULL)
    UPDATE "{s}".attempts SET reply = NULL, note = NULL, error = CASE WHEN error IS NOT NULL THEN $2 END WHERE delivery_id = $1"#;

const RENAME_RECIPIENT: &str = r#"UPDATE "{s}".recipients SET address = $3 WHERE delivery_id = $1 AND address = $2"#;

impl PgStore {
    pub(super) async fn erase_in(
        &self,
        call: &mut PgConnection,
        id: DeliveryId,
        recipient: &Recipient,
    ) -> Result<UpdateOutcome, StoreError> {
        let uuid = id.as_uuid();
        self.lock(call, uuid).await?;
        let Some(row) = self.find_with_state(call, uuid).await? else {
            return Ok(UpdateOutcome::NotFound);
        };
        let state: State = read_enum(&row, "state")?;
        let erasure = Erasure::new(read_recipients(&row).unwrap_or_default(), recipient);
        let Some(erasure) = erasure.filter(|_| state.is_finished()) else {
            return Ok(UpdateOutcome::Unchanged(state));
        };
        self.sql
            .query(&self.fill(ERASE_DELIVERY))
            .bind(uuid)
            .bind(erasure.recipients_json())
            .bind(key_contains(row.text_or_null("key")?.as_deref(), recipient))
            .execute(&mut *call)
            .await?;
        self.sql.query(&self.fill(ERASE_TEXTS)).bind(uuid).bind(ERASED).execute(&mut *call).await?;
        for (old, new) in &erasure.replaced {
            let rename = self.sql.query(&self.fill(RENAME_RECIPIENT)).bind(uuid).bind(old.as_str()).bind(new.as_str());
            rename.execute(&mut *call).await?;
        }
        Ok(UpdateOutcome::Updated)
    }
}
