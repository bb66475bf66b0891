//! A connection of the pool for one call.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database, Pool};

#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::store::lane::Lane;
use crate::store::{StoreError, StoreErrorKind};

/// A connection that goes back into the pool, or is kept, when the call is over; it is closed when the call is dropped before, and when
/// an error says that it is of no more use.
///
/// The drivers do not all know where in their exchange with the server they were dropped. MySQL's takes what is left of the last answer
/// for the next one. PostgreSQL's forgets a `BEGIN` that was not yet answered, so that the next borrower works, without knowing, in a
/// transaction that nobody ends (sqlx issues 2054 and 4393). With the connection goes whatever was begun.
pub(super) struct Session<D: Database>(Kept<D>);

impl<D: Database> Session<D> {
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn of(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::begun(Kept::of(pool).await?))
    }

    /// On the connection that is kept for statements of this kind, if there is one.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn on(lane: &Lane<D>, pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::begun(lane.take(pool).await?))
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn begun(mut connection: Kept<D>) -> Self {
        connection.begin();
        Self(connection)
    }

    /// On a connection that goes back into the pool also when the call is dropped. SQLite's driver ends by itself what was begun there,
    /// and a database in memory ends with its connection.
    #[cfg(feature = "sqlite")]
    pub(super) async fn returning(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self(Kept::of(pool).await?))
    }

    /// Whether a call for so many should leave the connection to its lane.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn is_worth_keeping(&self, count: usize) -> bool {
        self.0.is_worth_keeping(count)
    }

    /// The call came to its end, in whatever way.
    pub(super) fn finish<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.end(&result);
        result
    }

    /// The call came to its end, and where all went well, more of its kind will come.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn finish_and_keep<T>(
        mut self,
        lane: &Lane<D>,
        pool: &Pool<D>,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.end(&result);
        if result.is_ok() {
            lane.keep(self.0, pool);
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
    /// Where it counts as kept.
    counted: Option<Arc<AtomicU32>>,
    under_way: bool,
}

impl<D: Database> Kept<D> {
    /// Whether a call for so many should leave it to its lane. Few in the midst of many must not cost the lane its connection.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn is_worth_keeping(&self, count: usize) -> bool {
        count >= crate::store::lane::MANY || (count > 0 && self.counted.is_some())
    }

    /// Whether it counts as kept.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// It has been counted among `all` that are kept, until it is dropped.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn count_as_kept(&mut self, all: &Arc<AtomicU32>) {
        self.counted = Some(Arc::clone(all));
    }

    /// A connection for a call that comes alone.
    pub(crate) async fn of(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self { connection: acquire(pool).await?, counted: None, under_way: false })
    }

    /// From now on the connection is closed, and neither kept nor given back, if it is dropped. A call is dropped where the server does
    /// not answer, and another call on the connection would wait for that answer.
    pub(crate) fn begin(&mut self) {
        self.under_way = true;
    }

    /// What had begun came to its end.
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

/// How long to look for the reason why a pool has no connection to give.
const LOOK: Duration = Duration::from_secs(2);

/// A connection of the pool. Where it has none in time, the error says why: a pool tries again where the server has too many connections,
/// and in the end says only that time is up.
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
    match tokio::time::timeout(LOOK, pool.connect_options().connect()).await {
        Ok(Ok(connection)) => {
            // It works again; whether or not the server hears of it, it sees that the connection ends.
            let _ = tokio::time::timeout(LOOK, connection.close()).await;
            sqlx::Error::PoolTimedOut.into()
        }
        Ok(Err(error)) => error.into(),
        Err(_) => sqlx::Error::PoolTimedOut.into(),
    }
}

/// How often a call is made in all, where other transactions get in its way.
const TRIES: u32 = 5;

/// A call is not made again after so long. One that waited for a lock all the time would wait as long once more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes a call that is a transaction of its own, and makes it again where another transaction got in its way: nothing of it was written
/// then.
pub(super) async fn undisturbed<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let began = Instant::now();
    for tries in 1..TRIES {
        match call().await {
            Err(error) if error.kind() == StoreErrorKind::Conflict && began.elapsed() < PATIENCE => {
                // The other one needs some time to end, and both must not meet again.
                let wait = Duration::from_millis(1 << tries).mul_f64(rand::random_range(0.0..=1.0));
                tokio::time::sleep(wait).await;
            }
            result => return result,
        }
    }
    call().await
}
