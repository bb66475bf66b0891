//! What an error of sqlx means to the outbox: its kind, and whether its connection is still of use.

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
        let ends = ends_connection(&error);
        let error = StoreError::new(kind, text).with_source(error);
        if ends { error.ending_the_connection() } else { error }
    }
}

/// What kind of trouble a database's code means. SQLite's codes are numbers of up to four digits, with the primary code in the low
/// byte (sqlite.org/rescode.html); an SQLSTATE has five characters, of which the first two are the class (PostgreSQL manual,
/// appendix A), and which MySQL and MariaDB accompany by a number of their own (MySQL error reference, server errors).
fn kind(code: Option<&str>, number: Option<u16>, message: &str) -> StoreErrorKind {
    match number {
        // A mail larger than the server takes: no wait helps, though the state is that of a lost connection.
        Some(1153) => return StoreErrorKind::Rejected,
        // A row that changed since the snapshot, a wait for a lock, a deadlock (which is also how Galera tells of a transaction that
        // failed its certification), a lock that is not waited for, a transaction that group replication refused.
        Some(1020 | 1205 | 1213 | 3101 | 3572) => return StoreErrorKind::Conflict,
        // Resources: disk, table, locks, connections or queries of a user, transactions. The server's state: read only, stopping. A
        // connection or a statement ended by an operator or by its time limit.
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
            // Busy, locked: another connection writes.
            Ok(5 | 6) => StoreErrorKind::Conflict,
            // Read-only, I/O error, full, cannot open.
            Ok(8 | 10 | 13 | 14) => StoreErrorKind::Unavailable,
            _ if message.starts_with("no such table: postrider_") => StoreErrorKind::NotMigrated,
            _ => StoreErrorKind::Rejected,
        };
    }
    match (&code[..2], code) {
        // No such table, no such schema.
        (_, "42P01" | "3F000" | "42S02") => StoreErrorKind::NotMigrated,
        // Connections, resources, an operator's doing, a failing system; a standby; a statement of which nobody knows whether it ran.
        ("08" | "53" | "57" | "58", _) | (_, "25006" | "40003") => StoreErrorKind::Unavailable,
        // A transaction that was rolled back: serialization failure, deadlock. A lock that is not free.
        ("40", _) | (_, "55P03") => StoreErrorKind::Conflict,
        _ => StoreErrorKind::Rejected,
    }
}

/// Whether a connection that met this error is of no more use. Another one may be: after a failover the old primary, read-only or
/// on its way out, goes on answering on the connections that it has, and a pool would hand them out until they are old.
fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            code_ends_connection(database.code().as_deref(), mysql_number(error)) || is_fatal(error)
        }
        // The driver and the server do not understand each other any more, or do not hear each other.
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
    // Read-only: by an option, by the transaction's default, by the whole server; a member of a group that may not write
    // (ER_RUN_HOOK_ERROR); a Galera node that is not part of its cluster (1047). Stopping, killed, idle for too long.
    if let Some(number) = number {
        return matches!(number, 1047 | 1053 | 1077 | 1079 | 1290 | 1792 | 1836 | 1927 | 3100 | 3168 | 4031);
    }
    let Some(code) = code else { return false };
    if code.len() < 5 {
        // SQLite: the file was replaced, or is no database. (A plain "read-only" is the file's permissions, for any connection.)
        return matches!(code.parse::<u32>(), Ok(1032 | 26));
    }
    // The connection itself; a read-only transaction; a transaction that nobody ended; prepared statements that a pooler has lost or
    // doubled, and plans that no longer fit their tables (0A000), on which the driver's cache for this connection rests; an internal
    // error of the server.
    matches!(&code[..2], "08" | "XX")
        || matches!(code, "25006" | "25P01" | "25P02" | "25P03" | "26000" | "42P05" | "0A000")
        || matches!(code, "57P01" | "57P02" | "57P03" | "57P04" | "57P05")
}

/// The server says FATAL or PANIC and closes the connection.
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

/// Whether a row's key is taken.
#[cfg(feature = "postgres")]
pub(super) fn is_taken(error: &StoreError) -> bool {
    database(error).is_some_and(|error| error.is_unique_violation())
}

/// Whether PostgreSQL met octets that are no text: `character_not_in_repertoire`.
#[cfg(feature = "postgres")]
pub(super) fn is_no_text(error: &StoreError) -> bool {
    database(error).and_then(|error| error.code()).is_some_and(|code| code == "22021")
}

#[cfg(feature = "postgres")]
fn database(error: &StoreError) -> Option<&dyn sqlx::error::DatabaseError> {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(sqlx::Error::as_database_error)
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a row cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_kinds_are_told_apart() {
        let cases = [
            ("5", "database is locked", StoreErrorKind::Conflict),
            ("517", "database is locked", StoreErrorKind::Conflict),
            ("6", "database table is locked", StoreErrorKind::Conflict),
            ("13", "database or disk is full", StoreErrorKind::Unavailable),
            ("1", "no such table: postrider_queue", StoreErrorKind::NotMigrated),
            ("1", "no such table: users", StoreErrorKind::Rejected),
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
            assert_eq!(kind(Some(code), None, message), expected, "{code}");
        }
    }

    #[test]
    fn numbers_tell_what_a_general_state_leaves_open() {
        let cases = [
            ("HY000", 1205, StoreErrorKind::Conflict),
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
            ("HY000", 1419, StoreErrorKind::Rejected),
            ("42000", 1142, StoreErrorKind::Rejected),
            ("23000", 1062, StoreErrorKind::Rejected),
        ];
        for (code, number, expected) in cases {
            assert_eq!(kind(Some(code), Some(number), "no matter"), expected, "{number}");
        }
    }

    #[test]
    fn a_connection_that_is_of_no_more_use_is_known_by_its_error() {
        let ends = |code, number| code_ends_connection(Some(code), number);
        assert!(["25006", "57P01", "57P05", "08006", "26000", "XX000"].into_iter().all(|code| ends(code, None)));
        assert!(["23505", "40001", "57014", "53300", "55P03", "42P01"].into_iter().all(|code| !ends(code, None)));
        assert!([("HY000", 1290), ("25006", 1792), ("HY000", 3100)].into_iter().all(|(code, n)| ends(code, Some(n))));
        assert!([("40001", 1213), ("23000", 1062), ("HY000", 1205)].into_iter().all(|(code, n)| !ends(code, Some(n))));
        assert!(ends("1032", None) && !ends("5", None) && !ends("517", None));
    }
}
