//! Connections of the pool, and retries after conflicts.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database, Pool};

#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::store::sticky::StickyConnection;
use crate::store::{StoreError, StoreErrorKind};

/// A connection for one call. At the end of the call it returns to the pool, or stays with the store for the next call. It is closed if the
/// call is dropped, or if an error makes the connection unusable.
///
/// Some drivers lose track of the protocol when a call is dropped. MySQL's driver takes the rest of the last answer for the next one.
/// PostgreSQL's driver forgets a `BEGIN` without an answer: the next borrower then works in a transaction that is never committed (sqlx issues
/// 2054 and 4393). Closing the connection rolls the transaction back.
pub(super) struct Session<D: Database>(PooledConnection<D>);

impl<D: Database> Session<D> {
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn acquire(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::new(PooledConnection::acquire(pool).await?))
    }

    /// Uses the kept connection, or acquires one of the pool.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn acquire_sticky(sticky: &StickyConnection<D>, pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::new(sticky.take(pool).await?))
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn new(mut connection: PooledConnection<D>) -> Self {
        connection.close_if_dropped();
        Self(connection)
    }

    /// Acquires a connection that returns to the pool even if the call is dropped. SQLite's driver rolls back by itself, and a database in
    /// memory ends with its connection.
    #[cfg(feature = "sqlite")]
    pub(super) async fn acquire_drop_safe(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self(PooledConnection::acquire(pool).await?))
    }

    /// Whether to keep the connection after a call for `count` deliveries.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn is_worth_keeping(&self, count: usize) -> bool {
        self.0.is_worth_keeping(count)
    }

    /// Ends the call, with success or an error.
    pub(super) fn finish<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.end(&result);
        result
    }

    /// Ends the call, and keeps the connection after a success.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn finish_and_keep<T>(
        mut self,
        sticky: &StickyConnection<D>,
        pool: &Pool<D>,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.end(&result);
        if result.is_ok() {
            sticky.keep(self.0, pool);
        }
        result
    }

    fn end<T>(&mut self, result: &Result<T, StoreError>) {
        if result.as_ref().is_err_and(StoreError::ends_connection) {
            self.0.close_if_dropped();
        } else {
            self.0.return_if_dropped();
        }
    }
}

impl<D: Database> Deref for Session<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.0
    }
}

impl<D: Database> DerefMut for Session<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.0
    }
}

/// A connection that is in use, or kept for the next call.
pub(crate) struct PooledConnection<D: Database> {
    connection: PoolConnection<D>,
    /// The pool's number of kept connections. `None` if this connection is not among them.
    kept_count: Option<Arc<AtomicU32>>,
    closes_if_dropped: bool,
}

impl<D: Database> PooledConnection<D> {
    /// Whether to keep it after a call for `count` deliveries. A small call between large ones does not give the connection back.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn is_worth_keeping(&self, count: usize) -> bool {
        count >= crate::store::sticky::BACKLOG_BATCH || (count > 0 && self.kept_count.is_some())
    }

    /// Whether the connection is among the kept ones.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn is_kept(&self) -> bool {
        self.kept_count.is_some()
    }

    /// Counts the connection among the kept ones until it is dropped.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn count_as_kept(&mut self, all: &Arc<AtomicU32>) {
        self.kept_count = Some(Arc::clone(all));
    }

    /// Acquires a connection of the pool.
    pub(crate) async fn acquire(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self { connection: acquire(pool).await?, kept_count: None, closes_if_dropped: false })
    }

    /// From now on, a drop closes the connection. A call is dropped when the server does not answer, and another call on the same
    /// connection would wait for that answer.
    pub(crate) fn close_if_dropped(&mut self) {
        self.closes_if_dropped = true;
    }

    /// From now on, a drop returns the connection to the pool.
    pub(crate) fn return_if_dropped(&mut self) {
        self.closes_if_dropped = false;
    }
}

impl<D: Database> Deref for PooledConnection<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.connection
    }
}

impl<D: Database> DerefMut for PooledConnection<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.connection
    }
}

impl<D: Database> Drop for PooledConnection<D> {
    fn drop(&mut self) {
        if self.closes_if_dropped {
            self.connection.close_on_drop();
        }
        if let Some(all) = &self.kept_count {
            all.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Time limit of the connection that finds out why the pool timed out.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(2);

/// Acquires a connection of the pool. If the pool times out, the error says why. The pool itself does not: it retries while the server
/// refuses connections, and then reports only the timeout.
pub(super) async fn acquire<D: Database>(pool: &Pool<D>) -> Result<PoolConnection<D>, StoreError> {
    match pool.acquire().await {
        Err(sqlx::Error::PoolTimedOut) => Err(timeout_cause(pool).await),
        acquired => Ok(acquired?),
    }
}

async fn timeout_cause<D: Database>(pool: &Pool<D>) -> StoreError {
    let max = pool.options().get_max_connections();
    if pool.size() >= max && pool.num_idle() == 0 {
        let text = format!("no connection is free: all {max} connections of the pool are in use");
        return StoreError::new(StoreErrorKind::Unavailable, text).with_source(sqlx::Error::PoolTimedOut);
    }
    use sqlx::ConnectOptions;
    match tokio::time::timeout(DIAGNOSIS_LIMIT, pool.connect_options().connect()).await {
        Ok(Ok(connection)) => {
            // The server works again. Close the connection properly. If that times out, the server notices that the connection is gone.
            let _ = tokio::time::timeout(DIAGNOSIS_LIMIT, connection.close()).await;
            sqlx::Error::PoolTimedOut.into()
        }
        Ok(Err(error)) => error.into(),
        Err(_) => sqlx::Error::PoolTimedOut.into(),
    }
}

/// The largest number of calls when other transactions conflict, including the first.
const MAX_CALLS: u32 = 5;

/// No retry after this time. A call that waited so long for a lock would wait as long again.
const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// Makes a call that is a transaction of its own, and repeats it after a conflict with another transaction. A conflict leaves nothing
/// written.
pub(super) async fn retry_conflicts<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let began = Instant::now();
    for tries in 1..MAX_CALLS {
        match call().await {
            Err(error) if error.kind() == StoreErrorKind::Conflict && began.elapsed() < RETRY_LIMIT => {
                // The other transaction needs time to end, and both must not retry at the same moment.
                let wait = Duration::from_millis(1 << tries).mul_f64(rand::random_range(0.0..=1.0));
                tokio::time::sleep(wait).await;
            }
            result => return result,
        }
    }
    call().await
}
