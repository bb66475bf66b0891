//! What the stores on sqlx share: errors, and the way from a column to a type.

use std::str::FromStr;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, Recipient};

use crate::admin::{Delivery, Stats, Summary};
use crate::delivery::{Attempt, Lease, RecipientOutcome};
use crate::state::{Priority, UnknownWord};
use crate::store::recipients::{distinct, statuses};
use crate::store::{StoreError, StoreErrorKind};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let (kind, text) = match &error {
            sqlx::Error::Database(database) => {
                match kind(database.code().as_deref(), mysql_number(&error), database.message()) {
                    StoreErrorKind::NotMigrated => {
                        (StoreErrorKind::NotMigrated, "the outbox's tables are missing: migrate first".to_owned())
                    }
                    kind => (kind, format!("the database says: {}", database.message())),
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                (StoreErrorKind::Corrupt, format!("a row cannot be read: {error}"))
            }
            sqlx::Error::PoolClosed => (StoreErrorKind::Closed, "the pool of connections is closed".to_owned()),
            sqlx::Error::Encode(_) | sqlx::Error::RowNotFound | sqlx::Error::Configuration(_) => {
                (StoreErrorKind::Rejected, format!("the database cannot be asked: {error}"))
            }
            _ => (StoreErrorKind::Unavailable, format!("the database does not answer: {error}")),
        };
        StoreError::new(kind, text).with_source(error)
    }
}

/// What kind of trouble a database's code means. SQLite's codes are numbers of up to four digits, with the primary code in the low
/// byte (sqlite.org/rescode.html); an SQLSTATE has five characters, of which the first two are the class (PostgreSQL manual,
/// appendix A), and which MySQL and MariaDB accompany by a number of their own (MySQL error reference, server errors).
fn kind(code: Option<&str>, number: Option<u16>, message: &str) -> StoreErrorKind {
    match number {
        // A mail larger than the server takes: no wait helps, though the state is that of a lost connection.
        Some(1153) => return StoreErrorKind::Rejected,
        // Conflicts: a changed row, a wait for a lock. Resources: disk, table, locks, connections or queries of a user, transactions.
        // The server's state: read only, stopping. A connection or a statement ended by an operator or by its time limit.
        Some(
            1020 | 1021 | 1028 | 1114 | 1203 | 1205 | 1206 | 1213 | 1226 | 1290 | 1317 | 1637 | 1836 | 1927 | 1969
            | 3024 | 3572 | 4031,
        ) => return StoreErrorKind::Unavailable,
        _ => {}
    }
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

/// MySQL's and MariaDB's number for an error of theirs.
#[cfg(feature = "mysql")]
pub(super) fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

#[cfg(not(feature = "mysql"))]
fn mysql_number(_: &sqlx::Error) -> Option<u16> {
    None
}

/// Whether MySQL or MariaDB rolled the transaction back to resolve a deadlock.
#[cfg(feature = "mysql")]
pub(super) fn is_deadlock(error: &StoreError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(mysql_number) == Some(1213)
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a row cannot be read: {what}"))
}

/// A row of one of the outbox's queries, whatever the database: texts, whole numbers, flags.
pub(super) trait Columns {
    fn text(&self, column: &str) -> Result<&str, StoreError>;
    fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError>;
    fn number(&self, column: &str) -> Result<i64, StoreError>;
    fn number_or_null(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: &str) -> Result<bool, StoreError>;
}

macro_rules! columns {
    ($row:ty) => {
        columns!($row, |text: Option<String>| text);
    };
    ($row:ty, $text_or_null:expr) => {
        impl Columns for $row {
            fn text(&self, column: &str) -> Result<&str, StoreError> {
                Ok(sqlx::Row::try_get(self, column)?)
            }
            fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError> {
                Ok($text_or_null(sqlx::Row::try_get(self, column)?))
            }
            fn number(&self, column: &str) -> Result<i64, StoreError> {
                Ok(sqlx::Row::try_get(self, column)?)
            }
            fn number_or_null(&self, column: &str) -> Result<Option<i64>, StoreError> {
                Ok(sqlx::Row::try_get(self, column)?)
            }
            fn flag(&self, column: &str) -> Result<bool, StoreError> {
                Ok(sqlx::Row::try_get(self, column)?)
            }
        }
    };
}

#[cfg(feature = "mysql")]
columns!(sqlx::mysql::MySqlRow);
#[cfg(feature = "postgres")]
columns!(sqlx::postgres::PgRow);
// SQLite keeps any octets as a text. They are shown as well as can be: one row must not keep a list from being shown.
#[cfg(feature = "sqlite")]
columns!(sqlx::sqlite::SqliteRow, |text: Option<Vec<u8>>| text
    .map(|octets| String::from_utf8_lossy(&octets).into_owned()));

/// A word of ours.
pub(super) fn word<T: FromStr<Err = UnknownWord>>(row: &impl Columns, column: &str) -> Result<T, StoreError> {
    parsed_word(row.text(column)?)
}

fn parsed_word<T: FromStr<Err = UnknownWord>>(word: &str) -> Result<T, StoreError> {
    word.parse().map_err(|error: UnknownWord| corrupt(&error.to_string()))
}

/// A number that is never negative.
pub(super) fn count(row: &impl Columns, column: &str) -> Result<u32, StoreError> {
    u32::try_from(row.number(column)?).map_err(|_| corrupt("a count is out of range"))
}

/// The JSON array of all recipients.
pub(super) fn recipients(row: &impl Columns) -> Result<Vec<Recipient>, StoreError> {
    parsed(row.text("recipients")?)
}

fn parsed(recipients: &str) -> Result<Vec<Recipient>, StoreError> {
    let addresses: Vec<String> =
        serde_json::from_str(recipients).map_err(|_| corrupt("the recipients are no JSON array of strings"))?;
    Ok(distinct(addresses.into_iter().map(Recipient::new).collect()))
}

/// Puts into a lease what its delivery's row says in words. Words that make no sense must not keep other deliveries from being
/// claimed, so they make the lease unreadable, and no error.
pub(super) fn addressed(
    lease: Lease,
    recipients: Result<&str, StoreError>,
    when_in_doubt: Result<&str, StoreError>,
) -> Lease {
    let words = recipients.and_then(parsed).and_then(|recipients| Ok((recipients, parsed_word(when_in_doubt?)?)));
    match words {
        Ok((recipients, when_in_doubt)) => Lease { recipients, when_in_doubt, ..lease },
        Err(error) => Lease { unreadable: Some(error.to_string()), ..lease },
    }
}

/// An outcome that differs from the delivery's.
pub(super) fn outcome(row: &impl Columns) -> Result<RecipientOutcome, StoreError> {
    Ok(RecipientOutcome {
        recipient: Recipient::new(row.text("address")?),
        state: word(row, "outcome")?,
        reply: row.text_or_null("reply")?,
    })
}

/// A row of the history. Its times are numbers in the store's own unit, as in all that follows.
pub(super) fn attempt(row: &impl Columns, time: fn(i64) -> SystemTime) -> Result<Attempt, StoreError> {
    let (started, finished) = (time(row.number("started_at")?), time(row.number("finished_at")?));
    let mut attempt =
        Attempt::new(count(row, "number")?, count(row, "cycle")?, started, finished, word(row, "outcome")?);
    attempt.transport_fault = row.flag("transport_fault")?;
    attempt.error = row.text_or_null("error")?;
    attempt.reply = row.text_or_null("reply")?;
    attempt.provider_id = row.text_or_null("provider_id")?;
    attempt.transport = row.text_or_null("transport")?;
    Ok(attempt)
}

/// A row of a list.
pub(super) fn summary(row: &impl Columns, id: DeliveryId, time: fn(i64) -> SystemTime) -> Result<Summary, StoreError> {
    Ok(Summary {
        id,
        state: word(row, "state")?,
        template_id: row.text_or_null("template_id")?,
        attempts: count(row, "attempts")?,
        created_at: time(row.number("created_at")?),
        due_at: row.number_or_null("due_at")?.map(time),
        last_error: row.text_or_null("reason")?.or(row.text_or_null("last_error")?),
    })
}

/// A delivery, from its row, its history and the outcomes that differ.
pub(super) fn delivery(
    row: &impl Columns,
    id: DeliveryId,
    attempts: Vec<Attempt>,
    outcomes: &[RecipientOutcome],
    time: fn(i64) -> SystemTime,
) -> Result<Delivery, StoreError> {
    let state = word(row, "state")?;
    let reply = attempts.last().and_then(|attempt| attempt.reply.as_deref());
    let level = u8::try_from(count(row, "priority")?).ok().and_then(Priority::new);
    let cycle = match row.number_or_null("cycle")? {
        Some(_) => count(row, "cycle")?,
        None => attempts.last().map_or(1, |attempt| attempt.cycle),
    };
    Ok(Delivery {
        id,
        state,
        template_id: row.text_or_null("template_id")?,
        key: row.text_or_null("key")?,
        priority: level.ok_or_else(|| corrupt("a priority is out of range"))?,
        when_in_doubt: word(row, "when_in_doubt")?,
        created_at: time(row.number("created_at")?),
        due_at: row.number_or_null("due_at")?.map(time),
        expires_at: row.number_or_null("expires_at")?.map(time),
        cycle,
        reason: row.text_or_null("reason")?,
        recipients: statuses(state, recipients(row)?, outcomes, reply),
        attempts,
    })
}

/// The counts, from how many deliveries there are, how many of them are queued and leased, and the rows that count those that
/// ended. What is in none of these was sent.
pub(super) fn stats<R: Columns>(everything: i64, queued: i64, leased: i64, ended: &[R]) -> Result<Stats, StoreError> {
    let mut stats = Stats { pending: unsigned(queued - leased), leased: unsigned(leased), ..Stats::default() };
    let mut rest = everything - queued;
    for row in ended {
        let deliveries = row.number("deliveries")?;
        rest -= deliveries;
        *stats.count_mut(word(row, "state")?) = unsigned(deliveries);
    }
    stats.sent += unsigned(rest);
    Ok(stats)
}

/// All recipients as a JSON array.
pub(super) fn recipients_json(recipients: &[Recipient]) -> String {
    serde_json::Value::from_iter(recipients.iter().map(Recipient::as_str)).to_string()
}

/// A count from the database.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
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
            assert_eq!(kind(Some(code), None, message), expected, "{code}");
        }
    }

    #[test]
    fn numbers_tell_what_a_general_state_leaves_open() {
        let cases = [
            ("HY000", 1205, StoreErrorKind::Unavailable),
            ("40001", 1213, StoreErrorKind::Unavailable),
            ("70100", 1927, StoreErrorKind::Unavailable),
            ("08S01", 1053, StoreErrorKind::Unavailable),
            ("08S01", 1153, StoreErrorKind::Rejected),
            ("42S02", 1146, StoreErrorKind::NotMigrated),
            ("HY000", 1419, StoreErrorKind::Rejected),
            ("42000", 1142, StoreErrorKind::Rejected),
            ("23000", 1062, StoreErrorKind::Rejected),
        ];
        for (code, number, expected) in cases {
            assert_eq!(kind(Some(code), Some(number), "no matter"), expected, "{number}");
        }
    }
}
