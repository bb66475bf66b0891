//! Connections that stay with their work while there is much of it.
//!
//! A pool hands its connections out in turn, so that each statement would be parsed and planned on every one of them, after a round
//! trip to ask whether it still lives.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Database, Pool};

use crate::store::StoreError;
use crate::store::session::Kept;

/// How many of a pool's connections are left to everything else: listening, reports, renewals, the caller.
const OTHERS: u32 = 4;

/// So many at once, and more will come.
pub(crate) const MANY: usize = 16;

/// A connection that was kept for longer is asked whether it still lives, as the pool does.
const FRESH: Duration = Duration::from_secs(5);

/// At most one connection, for one kind of statement. A clone is a new lane of the same pool, so that what a relay keeps goes back
/// with the relay; all of a pool's lanes together keep no more than half of what the pool can spare.
pub(crate) struct Lane<D: Database> {
    kept: Mutex<Option<(Kept<D>, Instant)>>,
    /// How many are kept by all of the pool's lanes.
    all: Arc<AtomicU32>,
}

impl<D: Database> Lane<D> {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), all: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Kept<D>, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was kept, or one of the pool's.
    pub(crate) async fn take(&self, pool: &Pool<D>) -> Result<Kept<D>, StoreError> {
        // What is not used goes back before another is waited for.
        let kept = self.kept().take().filter(|(_, since)| !pool.is_closed() && since.elapsed() < FRESH);
        match kept {
            Some((kept, _)) => Ok(kept),
            None => Kept::of(pool).await,
        }
    }

    /// Keeps a connection on which all went well for the next statement of its kind, where the pool can spare it.
    pub(crate) fn keep(&self, mut kept: Kept<D>, pool: &Pool<D>) {
        let most = pool.options().get_max_connections().saturating_sub(OTHERS) / 2;
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

impl<D: Database> Clone for Lane<D> {
    fn clone(&self) -> Self {
        Self { kept: Mutex::default(), all: Arc::clone(&self.all) }
    }
}
