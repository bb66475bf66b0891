//! A connection of the pool for one call.

use std::future::Future;
use std::ops::{Deref, DerefMut};

use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, MySqlPool};

use crate::store::StoreError;
use crate::store::lane::{Kept, Lane};
use crate::store::sql::is_deadlock;

/// A connection that goes back into the pool, or is kept, when the call is over, and is closed when the call is dropped before.
///
/// The driver does not know where in its exchange with the server it was dropped: the next statement would take what is left of the
/// last answer for its own, and a transaction that had just begun would stay open. With the connection goes whatever was begun.
pub(super) struct Session(Kept<MySql>);

impl Session {
    pub(super) async fn of(pool: &MySqlPool) -> Result<Self, StoreError> {
        Ok(Self::begun(Kept::of(pool).await?))
    }

    /// On the connection that is kept for statements of this kind, if there is one.
    pub(super) async fn on(lane: &Lane<MySql>, pool: &MySqlPool) -> Result<Self, StoreError> {
        Ok(Self::begun(lane.take(pool).await?))
    }

    fn begun(mut connection: Kept<MySql>) -> Self {
        connection.begin();
        Self(connection)
    }

    /// Whether a call for so many should leave the connection to its lane.
    pub(super) fn is_worth_keeping(&self, count: usize) -> bool {
        self.0.is_worth_keeping(count)
    }

    /// The call came to its end, in whatever way.
    pub(super) fn finish<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.0.end();
        result
    }

    /// The call came to its end, and where all went well, more of its kind will come.
    pub(super) fn finish_and_keep<T>(
        mut self,
        lane: &Lane<MySql>,
        pool: &MySqlPool,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.0.end();
        if result.is_ok() {
            lane.keep(self.0, pool);
        }
        result
    }
}

impl Deref for Session {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.0
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.0
    }
}

/// Runs one of our own transactions, and some times more where the server made it the victim of a deadlock. Nothing of it was written
/// then.
pub(super) async fn undeadlocked<T, F>(run: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    for _ in 0..4 {
        match run().await {
            Err(error) if is_deadlock(&error) => tokio::task::yield_now().await,
            result => return result,
        }
    }
    run().await
}
