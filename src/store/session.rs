//! A connection of the pool for one call.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use sqlx::{Connection, Database, Pool};

use crate::store::lane::{Kept, Lane};
use crate::store::{StoreError, StoreErrorKind};

/// A connection that goes back into the pool, or is kept, when the call is over; it is closed when the call is dropped before, and when
/// an error says that it is of no more use.
///
/// The drivers do not all know where in their exchange with the server they were dropped. MySQL's takes what is left of the last answer
/// for the next one. PostgreSQL's forgets a `BEGIN` that was not yet answered, so that the next borrower works, without knowing, in a
/// transaction that nobody ends (sqlx issues 2054 and 4393). With the connection goes whatever was begun.
pub(super) struct Session<D: Database>(Kept<D>);

impl<D: Database> Session<D> {
    pub(super) async fn of(pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::begun(Kept::of(pool).await?))
    }

    /// On the connection that is kept for statements of this kind, if there is one.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn on(lane: &Lane<D>, pool: &Pool<D>) -> Result<Self, StoreError> {
        Ok(Self::begun(lane.take(pool).await?))
    }

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

/// How long to look for the reason why a pool has no connection to give.
const LOOK: Duration = Duration::from_secs(2);

/// A connection of the pool. Where it has none in time, the error says why: a pool tries again where the server has too many connections,
/// and in the end says only that time is up.
pub(super) async fn acquire<D: Database>(pool: &Pool<D>) -> Result<sqlx::pool::PoolConnection<D>, StoreError> {
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
