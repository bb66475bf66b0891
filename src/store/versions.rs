//! The versions of the tables, with the same numbers in every database.
//!
//! A version adds to the tables that the one before left, and never changes once it is released: `migrations/README.md`.

use std::time::{Duration, Instant};

use crate::store::{StoreError, StoreErrorKind};

/// How long to wait for another process that migrates, and for the transactions that hold a lock which a version needs.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// The largest time that one statement of a version waits for a lock. Other statements on the table wait behind it, so it gives up soon,
/// lets them proceed, and retries.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The statements of each version, beginning with version 1.
#[derive(Clone, Copy)]
pub(super) struct Versions<'a> {
    /// Those of this program.
    released: &'a [&'a str],
    /// Those that a test adds.
    added: &'a [&'a str],
}

impl<'a> Versions<'a> {
    pub(super) const fn new(released: &'a [&'a str]) -> Self {
        Self { released, added: &[] }
    }

    /// The same with further versions.
    #[cfg(feature = "testkit")]
    pub(super) fn with_added(self, added: &'a [&'a str]) -> Self {
        Self { added, ..self }
    }

    /// The newest version.
    pub(super) fn newest(self) -> usize {
        self.released.len() + self.added.len()
    }

    /// The number and the statements of each version after the given one.
    ///
    /// # Errors
    /// If a newer program migrated.
    pub(super) fn after(self, applied: i64) -> Result<impl Iterator<Item = (usize, &'a str)>, StoreError> {
        let applied = usize::try_from(applied).unwrap_or(0);
        let newest = self.newest();
        if applied > newest {
            let text = format!(
                "the outbox's tables have version {applied}, and this program supports up to version {newest}: \
                 a newer release has migrated them"
            );
            return Err(StoreError::new(StoreErrorKind::NewerTables, text));
        }
        let all = self.released.iter().chain(self.added).copied();
        Ok((1..).zip(all).skip(applied))
    }
}

/// Decides whether to try a version again after an error, and waits before that.
pub(super) struct Retries {
    began: Instant,
}

impl Retries {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// Waits if another try may succeed: another transaction held a lock. Otherwise it returns the error.
    pub(super) async fn wait_after(&self, error: StoreError) -> Result<(), StoreError> {
        if error.kind() != StoreErrorKind::Conflict || self.began.elapsed() > WAIT_LIMIT {
            return Err(error);
        }
        // Longer than most transactions, and not the same for two processes.
        tokio::time::sleep(Duration::from_millis(rand::random_range(50..500))).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_database_is_refused_in_one_line() {
        let versions = Versions::new(&["one", "two"]);
        let numbers = |applied| versions.after(applied).map(|left| left.map(|(number, _)| number).collect::<Vec<_>>());
        assert_eq!(numbers(0).unwrap(), [1, 2]);
        assert_eq!(numbers(1).unwrap(), [2]);
        assert_eq!(numbers(2).unwrap(), [0; 0]);
        let error = numbers(3).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NewerTables);
        assert_eq!(error.to_string().lines().count(), 1);
        assert!(error.to_string().contains("version 3") && error.to_string().contains("version 2"), "{error}");
    }
}
