//! The error of a store.

use std::error::Error;
use std::fmt;

/// The kind of a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The database does not answer, cannot serve at present, or closed the connection. A later call may succeed; a relay retries.
    Unavailable,
    /// A conflict with another transaction: a deadlock, a serialization failure, a lock timeout, or a certification conflict in a cluster.
    /// The database works, and nothing was written. Roll your own transaction back and run it again from its beginning. A relay retries.
    Conflict,
    /// The tables are missing, or older than this program: call [`migrate`](crate::Outbox::migrate) first.
    NotMigrated,
    /// A newer release has upgraded the tables, so [`migrate`](crate::Outbox::migrate) changes nothing. Enqueueing, relays and the
    /// operator's methods keep working (`docs/upgrading.md`); only `migrate` returns this.
    NewerTables,
    /// The database refuses the statement or its data, or an argument is invalid.
    Rejected,
    /// A stored row cannot be read.
    Corrupt,
    /// The connection pool is closed.
    Closed,
}

impl StoreErrorKind {
    /// Whether a retry cannot succeed: the tables are missing, older or newer than the program, or the pool is closed. A relay then stops.
    /// After any other error it retries.
    pub fn is_final(self) -> bool {
        matches!(self, Self::NotMigrated | Self::NewerTables | Self::Closed)
    }

    /// Whether the same call may succeed later: [`Unavailable`](Self::Unavailable) after some time, [`Conflict`](Self::Conflict) at once.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Conflict)
    }
}

/// A failed call to a store.
///
/// Nothing was written, with one exception: after [`Unavailable`](StoreErrorKind::Unavailable) a transaction may have committed whose
/// answer was lost.
pub struct StoreError {
    kind: StoreErrorKind,
    text: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Whether the connection must be closed.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    ends_connection: bool,
}

impl StoreError {
    /// Creates an error. The text must not contain secrets.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
            #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
            ends_connection: false,
        }
    }

    /// Adds the driver's error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Marks the connection as unusable, so that it is closed.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(super) fn and_close_connection(mut self) -> Self {
        self.ends_connection = true;
        self
    }

    /// Whether the connection must be closed.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(super) fn ends_connection(&self) -> bool {
        self.ends_connection
    }

    /// The kind of the error.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({:?}, {:?})", self.kind, self.text)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
