//! A connection of the pool for one call.

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

/// A connection for one call. At the end of the call it goes back into the pool, or is kept. It is closed if the call is dropped, or if an
/// error says that the connection cannot be used again.
///
/// Some drivers lose track of the protocol when a call is dropped. MySQL's driver takes the rest of the last answer for the next one.
/// PostgreSQL's driver forgets a `BEGIN` without an answer: the next borrower then works in a transaction that nobody ends (sqlx issues
/// 2054 and 4393). Closing the connection rolls the transaction back.
pub(super) struct Session<D: Database>(Kept<D>);

impl<D: Database> Session<D> {
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn of(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::begun(Kept::of(pool).await?))
    }

    /// On the kept connection, if there is one.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn on(sticky: &StickyConnection<D>, pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::begun(sticky.take(pool).await?))
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn begun(mut connection: Kept<D>) -> Self {
        connection.begin();
        Self(connection)
    }

    /// On a connection that also goes back into the pool when the call is dropped. SQLite's driver rolls back by itself, and a database
    /// in memory ends with its connection.
    #[cfg(feature = "sqlite")]
    pub(super) async fn returning(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self(Kept::of(pool).await?))
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
            self.0.begin();
        } else {
            self.0.end();
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

/// A connection in use, or kept for the next.
pub(crate) struct Kept<D: Database> {
    connection: PoolConnection<D>,
    /// The pool's count of kept connections, if this one is counted.
    counted: Option<Arc<AtomicU32>>,
    under_way: bool,
}

impl<D: Database> Kept<D> {
    /// Whether to keep it after a call for `count` deliveries. A small call between large ones does not give the connection back.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn is_worth_keeping(&self, count: usize) -> bool {
        count >= crate::store::sticky::MANY || (count > 0 && self.counted.is_some())
    }

    /// Whether it counts as kept.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// Counts it among the kept connections until it is dropped.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn count_as_kept(&mut self, all: &Arc<AtomicU32>) {
        self.counted = Some(Arc::clone(all));
    }

    /// A connection of the pool.
    pub(crate) async fn of(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self { connection: acquire(pool).await?, counted: None, under_way: false })
    }

    /// From now on, dropping it closes the connection. A call is dropped when the server does not answer, and another call on the same
    /// connection would wait for that answer.
    pub(crate) fn begin(&mut self) {
        self.under_way = true;
    }

    /// From now on, dropping it gives the connection back to the pool.
    pub(crate) fn end(&mut self) {
        self.under_way = false;
    }
}

impl<D: Database> Deref for Kept<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.connection
    }
}

impl<D: Database> DerefMut for Kept<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.connection
    }
}

impl<D: Database> Drop for Kept<D> {
    fn drop(&mut self) {
        if self.under_way {
            self.connection.close_on_drop();
        }
        if let Some(all) = &self.counted {
            all.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Time limit of the connection that finds out why the pool timed out.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(2);

/// A connection of the pool. If the pool times out, the error says why. The pool itself does not: it retries while the server refuses
/// connections, and then reports only the timeout.
pub(super) async fn acquire<D: Database>(pool: &Pool<D>) -> Result<PoolConnection<D>, StoreError> {
    match pool.acquire().await {
        Err(sqlx::Error::PoolTimedOut) => Err(why_timed_out(pool).await),
        acquired => Ok(acquired?),
    }
}

async fn why_timed_out<D: Database>(pool: &Pool<D>) -> StoreError {
    let most = pool.options().get_max_connections();
    if pool.size() >= most && pool.num_idle() == 0 {
        let text = format!("the database cannot be asked: all {most} connections of the pool are in use");
        return StoreError::new(StoreErrorKind::Unavailable, text).with_source(sqlx::Error::PoolTimedOut);
    }
    use sqlx::ConnectOptions;
    match tokio::time::timeout(DIAGNOSIS_LIMIT, pool.connect_options().connect()).await {
        Ok(Ok(connection)) => {
            // It works again. Close politely; the server also notices a connection that ends without a word.
            let _ = tokio::time::timeout(DIAGNOSIS_LIMIT, connection.close()).await;
            sqlx::Error::PoolTimedOut.into()
        }
        Ok(Err(error)) => error.into(),
        Err(_) => sqlx::Error::PoolTimedOut.into(),
    }
}

/// Calls in all, the first included, when other transactions conflict.
const TRIES: u32 = 5;

/// No retry after this time: a call that spent it waiting for a lock would wait as long again.
const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// Makes a call that is a transaction of its own. Retries it after a conflict with another transaction, which leaves nothing written.
pub(super) async fn retry_conflicts<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let began = Instant::now();
    for tries in 1..TRIES {
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
