//! Between rows and types, and from the driver's errors to ours.

use std::str::FromStr;

use postrider_transport::{DeliveryId, Recipient};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::delivery::{RecipientOutcome, UnknownWord};
use crate::store::{StoreError, StoreErrorKind};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let (kind, text) = match &error {
            sqlx::Error::Database(database) if database.message().starts_with("no such table: postrider_") => {
                (StoreErrorKind::NotMigrated, "the outbox's tables are missing: migrate first".to_owned())
            }
            sqlx::Error::Database(database) => {
                let kind = if is_passing(database.code().as_deref()) {
                    StoreErrorKind::Unavailable
                } else {
                    StoreErrorKind::Rejected
                };
                (kind, format!("the database says: {}", database.message()))
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                (StoreErrorKind::Unavailable, format!("the database does not answer: {error}"))
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                (StoreErrorKind::Corrupt, format!("a row cannot be read: {error}"))
            }
            _ => (StoreErrorKind::Unavailable, format!("the database cannot be used: {error}")),
        };
        StoreError::new(kind, text).with_source(error)
    }
}

/// SQLite's primary result codes for what may pass: busy, locked, I/O error, full, cannot open. Extended codes carry them in their
/// low byte (sqlite.org/rescode.html).
fn is_passing(code: Option<&str>) -> bool {
    let code = code.and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a row cannot be read: {what}"))
}

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<DeliveryId, StoreError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|_| corrupt("an id is no UUID"))
}

pub(super) fn word<T: FromStr<Err = UnknownWord>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: UnknownWord| corrupt(&error.to_string()))
}

pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u32, StoreError> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| corrupt("a count is out of range"))
}

pub(super) fn recipients(row: &SqliteRow) -> Result<Vec<Recipient>, StoreError> {
    let addresses: Vec<String> = serde_json::from_str(row.try_get("recipients")?)
        .map_err(|_| corrupt("the recipients are no JSON array of strings"))?;
    Ok(addresses.into_iter().map(Recipient::new).collect())
}

/// The outcomes that differ from the delivery's.
pub(super) async fn recorded(connection: &mut SqliteConnection, id: &str) -> Result<Vec<RecipientOutcome>, StoreError> {
    let rows = sqlx::query("SELECT address, outcome, reply FROM postrider_recipients WHERE delivery_id = ?1")
        .bind(id)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(RecipientOutcome {
                recipient: Recipient::new(row.try_get::<String, _>("address")?),
                state: word(row, "outcome")?,
                reply: row.try_get("reply")?,
            })
        })
        .collect()
}
