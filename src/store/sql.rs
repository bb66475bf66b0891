//! What the stores on sqlx share: errors, and the way from a column to a type.

use std::str::FromStr;
use std::time::Duration;

use postrider_transport::Recipient;
use sqlx::{ColumnIndex, Decode, Row, Type};

use crate::delivery::UnknownWord;
use crate::store::{StoreError, StoreErrorKind};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let (kind, text) = match &error {
            sqlx::Error::Database(database) => match kind(database.code().as_deref(), database.message()) {
                StoreErrorKind::NotMigrated => {
                    (StoreErrorKind::NotMigrated, "the outbox's tables are missing: migrate first".to_owned())
                }
                kind => (kind, format!("the database says: {}", database.message())),
            },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                (StoreErrorKind::Corrupt, format!("a row cannot be read: {error}"))
            }
            _ => (StoreErrorKind::Unavailable, format!("the database does not answer: {error}")),
        };
        StoreError::new(kind, text).with_source(error)
    }
}

/// What kind of trouble a database's code means. SQLite's codes are numbers of up to four digits, with the primary code in the low
/// byte (sqlite.org/rescode.html); an SQLSTATE has five characters, of which the first two are the class (PostgreSQL manual,
/// appendix A).
fn kind(code: Option<&str>, message: &str) -> StoreErrorKind {
    let Some(code) = code else { return StoreErrorKind::Rejected };
    if code.len() < 5 {
        return match code.parse::<u32>().map(|code| code & 0xff) {
            // Busy, locked, I/O error, full, cannot open.
            Ok(5 | 6 | 10 | 13 | 14) => StoreErrorKind::Unavailable,
            _ if message.starts_with("no such table: postrider_") => StoreErrorKind::NotMigrated,
            _ => StoreErrorKind::Rejected,
        };
    }
    match (&code[..2], code) {
        // No such table, no such schema.
        (_, "42P01" | "3F000" | "42S02") => StoreErrorKind::NotMigrated,
        // Connections, resources, an operator's doing, a failing system; conflicts that pass when tried again; a standby.
        ("08" | "53" | "57" | "58" | "40", _) | (_, "55P03" | "25006") => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Rejected,
    }
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a row cannot be read: {what}"))
}

/// A word of ours.
pub(super) fn word<'r, T, R>(row: &'r R, column: &'static str) -> Result<T, StoreError>
where
    T: FromStr<Err = UnknownWord>,
    R: Row,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
    &'static str: ColumnIndex<R>,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|error: UnknownWord| corrupt(&error.to_string()))
}

/// A number that is never negative.
pub(super) fn count<'r, R>(row: &'r R, column: &'static str) -> Result<u32, StoreError>
where
    R: Row,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    &'static str: ColumnIndex<R>,
{
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| corrupt("a count is out of range"))
}

/// The JSON array of all recipients.
pub(super) fn recipients<'r, R>(row: &'r R) -> Result<Vec<Recipient>, StoreError>
where
    R: Row,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
    &'static str: ColumnIndex<R>,
{
    let addresses: Vec<String> = serde_json::from_str(row.try_get("recipients")?)
        .map_err(|_| corrupt("the recipients are no JSON array of strings"))?;
    Ok(addresses.into_iter().map(Recipient::new).collect())
}

/// All recipients as a JSON array.
pub(super) fn recipients_json(recipients: &[Recipient]) -> String {
    serde_json::Value::from_iter(recipients.iter().map(Recipient::as_str)).to_string()
}

/// A count from the database.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// How long from one moment to another, in a store's own unit; nothing, if it is the other way round.
pub(super) fn between(then: i64, now: i64, unit: fn(u64) -> Duration) -> Duration {
    unit(unsigned(now.saturating_sub(then)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_kinds_are_told_apart() {
        let cases = [
            ("5", "database is locked", StoreErrorKind::Unavailable),
            ("517", "database is locked", StoreErrorKind::Unavailable),
            ("1", "no such table: postrider_queue", StoreErrorKind::NotMigrated),
            ("1", "no such table: users", StoreErrorKind::Rejected),
            ("2067", "UNIQUE constraint failed", StoreErrorKind::Rejected),
            ("57P01", "terminating connection", StoreErrorKind::Unavailable),
            ("40001", "could not serialize access", StoreErrorKind::Unavailable),
            ("42P01", "relation does not exist", StoreErrorKind::NotMigrated),
            ("23505", "duplicate key", StoreErrorKind::Rejected),
        ];
        for (code, message, expected) in cases {
            assert_eq!(kind(Some(code), message), expected, "{code}");
        }
    }
}
