//! A connection that a relay keeps while it works through a backlog.
//!
//! A pool hands out its connections one after the other. Each statement would be parsed and planned on every one of them, after a round
//! trip that checks the connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Database, Pool};

use crate::store::StoreError;
use crate::store::session::Kept;

/// Connections of the pool that are never kept: for listening, reports, renewals and the caller.
const RESERVED: u32 = 4;

/// A call for this many deliveries is a sign of a backlog.
pub(crate) const MANY: usize = 16;

/// A connection that was idle for longer goes back to the pool, which checks it before its next use.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// At most one connection, for one kind of statement. A clone shares the pool's count of kept connections, but not the connection. All
/// clones together keep at most half of what the pool has beyond [`RESERVED`].
pub(crate) struct StickyConnection<D: Database> {
    kept: Mutex<Option<(Kept<D>, Instant)>>,
    /// The pool's count of kept connections.
    all: Arc<AtomicU32>,
}

impl<D: Database> StickyConnection<D> {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), all: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Kept<D>, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was kept, or one of the pool's.
    pub(crate) async fn take(&self, pool: &Pool<D>) -> Result<Kept<D>, StoreError> {
        // What is not used goes back before another is waited for.
        let kept = self.kept().take().filter(|(_, since)| !pool.is_closed() && since.elapsed() < MAX_IDLE);
        match kept {
            Some((kept, _)) => Ok(kept),
            None => Kept::of(pool).await,
        }
    }

    /// Keeps a connection on which all went well for the next statement of its kind, where the pool can spare it.
    pub(crate) fn keep(&self, mut kept: Kept<D>, pool: &Pool<D>) {
        let most = pool.options().get_max_connections().saturating_sub(RESERVED) / 2;
        if !kept.is_counted() {
            let more = |all| (all < most).then_some(all + 1);
            if self.all.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
                return;
            }
            kept.count_as_kept(&self.all);
        }
        *self.kept() = Some((kept, Instant::now()));
    }

    /// Gives the connection back to the pool.
    pub(crate) fn clear(&self) {
        *self.kept() = None;
    }
}

impl<D: Database> Clone for StickyConnection<D> {
    fn clone(&self) -> Self {
        Self { kept: Mutex::default(), all: Arc::clone(&self.all) }
    }
}
