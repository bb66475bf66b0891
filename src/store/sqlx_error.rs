//! Converts errors of sqlx into [`StoreError`]s: their kind, and whether the connection can be used again.

use crate::store::{StoreError, StoreErrorKind};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let (kind, text) = match &error {
            sqlx::Error::Database(database) => {
                match classify(database.code().as_deref(), mysql_number(&error), database.message()) {
                    StoreErrorKind::NotMigrated => {
                        // The database's words tell a caller's own missing table apart.
                        let text = "the outbox's tables are missing, or older than this program: migrate first";
                        (StoreErrorKind::NotMigrated, format!("{text} ({})", database.message()))
                    }
                    kind => (kind, format!("database error: {}", database.message())),
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                (StoreErrorKind::Corrupt, format!("a row cannot be read: {error}"))
            }
            sqlx::Error::PoolClosed => (StoreErrorKind::Closed, "the connection pool is closed".to_owned()),
            sqlx::Error::Encode(_) | sqlx::Error::RowNotFound | sqlx::Error::Configuration(_) => {
                (StoreErrorKind::Rejected, format!("the statement cannot be sent: {error}"))
            }
            _ => (StoreErrorKind::Unavailable, format!("the database does not answer: {error}")),
        };
        let ends = ends_connection(&error);
        let error = StoreError::new(kind, text).with_source(error);
        if ends { error.and_close_connection() } else { error }
    }
}

/// Classifies a database's error code.
///
/// SQLite's codes are numbers of up to four digits, with the primary code in the low byte (sqlite.org/rescode.html). An SQLSTATE has five
/// characters, the first two of which are the class (PostgreSQL manual, appendix A). MySQL and MariaDB add a number of their own (MySQL
/// error reference, server errors).
fn classify(code: Option<&str>, number: Option<u16>, message: &str) -> StoreErrorKind {
    match number {
        // The mail is larger than the server accepts. A retry cannot help, although the SQLSTATE is that of a lost connection.
        Some(1153) => return StoreErrorKind::Rejected,
        // In this order: a row that changed since the snapshot; a lock timeout; a deadlock, which Galera also reports for a failed
        // certification; a table that a migration changed since the snapshot; a prepared statement on such a table; a transaction that group
        // replication refused; a lock with NOWAIT.
        Some(1020 | 1205 | 1213 | 1412 | 1615 | 3101 | 3572) => return StoreErrorKind::Conflict,
        // A resource is used up: disk, table, locks, connections or queries of a user, transactions. The server is read-only or stops. An
        // operator or a time limit ended the connection or the statement.
        Some(
            1021 | 1028 | 1114 | 1203 | 1206 | 1226 | 1290 | 1317 | 1637 | 1792 | 1836 | 1927 | 1969 | 3024 | 3100
            | 4031,
        ) => {
            return StoreErrorKind::Unavailable;
        }
        _ => {}
    }
    let Some(code) = code else { return StoreErrorKind::Rejected };
    if code.len() < 5 {
        return match code.parse::<u32>().map(|code| code & 0xff) {
            // Busy or locked: another connection writes.
            Ok(5 | 6) => StoreErrorKind::Conflict,
            // Read-only, I/O error, full, cannot open.
            Ok(8 | 10 | 13 | 14) => StoreErrorKind::Unavailable,
            _ if message.starts_with("no such table: postrider_") => StoreErrorKind::NotMigrated,
            _ if message.starts_with("no such column: ") => StoreErrorKind::NotMigrated,
            _ if message.starts_with("table postrider_") && message.contains(" has no column named ") => {
                StoreErrorKind::NotMigrated
            }
            _ => StoreErrorKind::Rejected,
        };
    }
    match (&code[..2], code) {
        // No such table, no such schema; no such column or function, which an earlier version of the tables does not have.
        (_, "42P01" | "3F000" | "42S02" | "42703" | "42883" | "42S22") => StoreErrorKind::NotMigrated,
        // Connection errors, missing resources, an intervention by an operator, system errors; a standby server; a statement with an
        // unknown result.
        ("08" | "53" | "57" | "58", _) | (_, "25006" | "40003") => StoreErrorKind::Unavailable,
        // A transaction rolled back by the server, such as a serialization failure or a deadlock; a lock that is not free.
        ("40", _) | (_, "55P03") => StoreErrorKind::Conflict,
        _ => StoreErrorKind::Rejected,
    }
}

/// Whether this error makes its connection unusable. A new connection may work. After a failover the old primary, which is read-only or
/// shutting down, still answers on its open connections, and a pool would keep them until they are old.
fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            code_ends_connection(database.code().as_deref(), mysql_number(error)) || is_fatal(error)
        }
        // The connection is broken, or driver and server have lost track of the protocol.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::InvalidSavePointStatement => true,
        _ => false,
    }
}

fn code_ends_connection(code: Option<&str>, number: Option<u16>) -> bool {
    // Read-only by an option, by the transaction's default or by the whole server; a group member that may not write (ER_RUN_HOOK_ERROR); a
    // Galera node outside its cluster (1047). A server that stops; a connection that was killed or idle for too long.
    if let Some(number) = number {
        return matches!(number, 1047 | 1053 | 1077 | 1079 | 1290 | 1792 | 1836 | 1927 | 3100 | 3168 | 4031);
    }
    let Some(code) = code else { return false };
    if code.len() < 5 {
        // SQLite: the file was replaced, or is not a database. (The plain "read-only" comes from the file's permissions, and concerns any
        // connection.)
        return matches!(code.parse::<u32>(), Ok(1032 | 26));
    }
    // Connection errors; a read-only transaction; a transaction that was left open; prepared statements that a pooler has lost or
    // duplicated; cached plans that no longer fit their tables (0A000); internal errors of the server. The driver's statement cache belongs
    // to the connection, so a new connection clears it.
    matches!(&code[..2], "08" | "XX")
        || matches!(code, "25006" | "25P01" | "25P02" | "25P03" | "26000" | "42P05" | "0A000")
        || matches!(code, "57P01" | "57P02" | "57P03" | "57P04" | "57P05")
}

/// Whether the severity is FATAL or PANIC, after which the server closes the connection.
#[cfg(feature = "postgres")]
fn is_fatal(error: &sqlx::Error) -> bool {
    use sqlx::postgres::{PgDatabaseError, PgSeverity};

    let database = error.as_database_error().and_then(|database| database.try_downcast_ref::<PgDatabaseError>());
    database.is_some_and(|database| matches!(database.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

#[cfg(not(feature = "postgres"))]
fn is_fatal(_: &sqlx::Error) -> bool {
    false
}

/// The error number of MySQL and MariaDB.
#[cfg(feature = "mysql")]
pub(super) fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

#[cfg(not(feature = "mysql"))]
fn mysql_number(_: &sqlx::Error) -> Option<u16> {
    None
}

/// Whether the error is a violation of a unique constraint.
#[cfg(feature = "postgres")]
pub(super) fn is_unique_violation(error: &StoreError) -> bool {
    database_error(error).is_some_and(|error| error.is_unique_violation())
}

/// Whether PostgreSQL found a text that is invalid in its encoding (`character_not_in_repertoire`).
#[cfg(feature = "postgres")]
pub(super) fn is_invalid_text(error: &StoreError) -> bool {
    database_error(error).and_then(|error| error.code()).is_some_and(|code| code == "22021")
}

#[cfg(feature = "postgres")]
fn database_error(error: &StoreError) -> Option<&dyn sqlx::error::DatabaseError> {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(sqlx::Error::as_database_error)
}

pub(super) fn corrupt(problem: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a row cannot be read: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_codes_and_sqlstates_are_classified() {
        let cases = [
            ("5", "database is locked", StoreErrorKind::Conflict),
            ("517", "database is locked", StoreErrorKind::Conflict),
            ("6", "database table is locked", StoreErrorKind::Conflict),
            ("13", "database or disk is full", StoreErrorKind::Unavailable),
            ("1", "no such table: postrider_queue", StoreErrorKind::NotMigrated),
            ("1", "no such table: users", StoreErrorKind::Rejected),
            ("1", "table postrider_deliveries has no column named traceparent", StoreErrorKind::NotMigrated),
            ("1", "no such column: d.traceparent", StoreErrorKind::NotMigrated),
            ("1", "table users has no column named age", StoreErrorKind::Rejected),
            ("42703", "column d.traceparent does not exist", StoreErrorKind::NotMigrated),
            ("42883", "function postrider.insert_delivery(…) does not exist", StoreErrorKind::NotMigrated),
            ("2067", "UNIQUE constraint failed", StoreErrorKind::Rejected),
            ("57P01", "terminating connection", StoreErrorKind::Unavailable),
            ("40001", "could not serialize access", StoreErrorKind::Conflict),
            ("40P01", "deadlock detected", StoreErrorKind::Conflict),
            ("55P03", "could not obtain lock", StoreErrorKind::Conflict),
            ("40003", "statement completion unknown", StoreErrorKind::Unavailable),
            ("25006", "cannot execute INSERT in a read-only transaction", StoreErrorKind::Unavailable),
            ("42P01", "relation does not exist", StoreErrorKind::NotMigrated),
            ("23505", "duplicate key", StoreErrorKind::Rejected),
        ];
        for (code, message, expected) in cases {
            assert_eq!(classify(Some(code), None, message), expected, "{code}");
        }
    }

    #[test]
    fn mysql_error_numbers_are_classified() {
        let cases = [
            ("HY000", 1205, StoreErrorKind::Conflict),
            ("HY000", 1412, StoreErrorKind::Conflict),
            ("HY000", 1615, StoreErrorKind::Conflict),
            ("40001", 1213, StoreErrorKind::Conflict),
            ("HY000", 1020, StoreErrorKind::Conflict),
            ("HY000", 3101, StoreErrorKind::Conflict),
            ("HY000", 3572, StoreErrorKind::Conflict),
            ("08S01", 1047, StoreErrorKind::Unavailable),
            ("25006", 1792, StoreErrorKind::Unavailable),
            ("70100", 1927, StoreErrorKind::Unavailable),
            ("08S01", 1053, StoreErrorKind::Unavailable),
            ("08S01", 1153, StoreErrorKind::Rejected),
            ("42S02", 1146, StoreErrorKind::NotMigrated),
            ("42S22", 1054, StoreErrorKind::NotMigrated),
            ("HY000", 1419, StoreErrorKind::Rejected),
            ("42000", 1142, StoreErrorKind::Rejected),
            ("23000", 1062, StoreErrorKind::Rejected),
        ];
        for (code, number, expected) in cases {
            assert_eq!(classify(Some(code), Some(number), "any message"), expected, "{number}");
        }
    }

    #[test]
    fn errors_that_make_a_connection_unusable_are_recognised() {
        let ends = |code, number| code_ends_connection(Some(code), number);
        assert!(["25006", "57P01", "57P05", "08006", "26000", "XX000"].into_iter().all(|code| ends(code, None)));
        assert!(["23505", "40001", "57014", "53300", "55P03", "42P01"].into_iter().all(|code| !ends(code, None)));
        assert!([("HY000", 1290), ("25006", 1792), ("HY000", 3100)].into_iter().all(|(code, n)| ends(code, Some(n))));
        assert!([("40001", 1213), ("23000", 1062), ("HY000", 1205)].into_iter().all(|(code, n)| !ends(code, Some(n))));
        assert!(ends("1032", None) && !ends("5", None) && !ends("517", None));
    }
}
