//! A connection that a relay keeps while it works through a backlog.
//!
//! A pool alternates between its connections. Without a kept connection, each of them would parse and plan every statement, after a round
//! trip that checks the connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Database, Pool};

use crate::store::StoreError;
use crate::store::session::PooledConnection;

/// Connections of the pool that are never kept. They serve LISTEN, reports, renewals and the caller.
const RESERVED: u32 = 4;

/// A call for this many deliveries means that there is a backlog.
pub(crate) const BACKLOG_BATCH: usize = 16;

/// A connection that was idle for longer returns to the pool, which checks it before its next use.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// Keeps at most one connection, for one kind of statement.
///
/// A clone shares the number of kept connections, but not the connection. All clones together keep at most half of the connections that the
/// pool has beyond [`RESERVED`].
pub(crate) struct StickyConnection<D: Database> {
    kept: Mutex<Option<(PooledConnection<D>, Instant)>>,
    /// The pool's number of kept connections.
    kept_count: Arc<AtomicU32>,
}

impl<D: Database> StickyConnection<D> {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), kept_count: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(PooledConnection<D>, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the kept connection, or acquires one of the pool.
    pub(crate) async fn take(&self, pool: &Pool<D>) -> Result<PooledConnection<D>, StoreError> {
        // An old connection returns to the pool before this waits for another one.
        let kept = self.lock().take().filter(|(_, since)| !pool.is_closed() && since.elapsed() < MAX_IDLE);
        match kept {
            Some((connection, _)) => Ok(connection),
            None => PooledConnection::acquire(pool).await,
        }
    }

    /// Keeps the connection of a successful call for the next statement of its kind, if the pool can spare it.
    pub(crate) fn keep(&self, mut connection: PooledConnection<D>, pool: &Pool<D>) {
        let max = pool.options().get_max_connections().saturating_sub(RESERVED) / 2;
        if !connection.is_kept() {
            let increment = |count| (count < max).then_some(count + 1);
            if self.kept_count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, increment).is_err() {
                return;
            }
            connection.count_as_kept(&self.kept_count);
        }
        *self.lock() = Some((connection, Instant::now()));
    }

    /// Returns the kept connection to the pool.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }
}

impl<D: Database> Clone for StickyConnection<D> {
    fn clone(&self) -> Self {
        Self { kept: Mutex::default(), kept_count: Arc::clone(&self.kept_count) }
    }
}
