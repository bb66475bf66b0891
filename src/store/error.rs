//! What can go wrong with a database.

use std::error::Error;
use std::fmt;

/// What kind of trouble a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The database does not answer, cannot serve at present, or broke the connection. It may do better later; a relay waits and goes
    /// on.
    Unavailable,
    /// Another transaction was in the way: a deadlock, a serialization failure, a lock that was not free in time, a certification
    /// conflict in a cluster. The database works, and nothing was written. Roll your own transaction back and run it again from its
    /// beginning; a relay does that by itself.
    Conflict,
    /// The tables are missing: call [`migrate`](crate::Outbox::migrate) first.
    NotMigrated,
    /// The database refuses the data.
    Rejected,
    /// What is stored cannot be understood.
    Corrupt,
    /// The pool was closed: this program is done with the database.
    Closed,
}

impl StoreErrorKind {
    /// Whether waiting cannot help: the tables are missing, or the pool is closed. A relay then ends; after any other error it goes
    /// on by and by.
    pub fn is_final(self) -> bool {
        matches!(self, Self::NotMigrated | Self::Closed)
    }

    /// Whether the same call, made again, may succeed: [`Unavailable`](Self::Unavailable) after a while, [`Conflict`](Self::Conflict) at
    /// once.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Conflict)
    }
}

/// A call to a store failed. Nothing of it was written, unless it is [`Unavailable`](StoreErrorKind::Unavailable): then the answer to a
/// commit may have been lost.
pub struct StoreError {
    kind: StoreErrorKind,
    text: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Whether the connection that it came from is of no more use.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    ends_connection: bool,
}

impl StoreError {
    /// An error of a kind, in words that hold nothing secret.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
            #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
            ends_connection: false,
        }
    }

    /// Adds the database's own error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that the connection is of no more use.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(super) fn ending_the_connection(mut self) -> Self {
        self.ends_connection = true;
        self
    }

    /// Whether the connection must be closed, and not used again.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(super) fn ends_connection(&self) -> bool {
        self.ends_connection
    }

    /// What kind it is.
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
