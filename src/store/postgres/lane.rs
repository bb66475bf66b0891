//! Connections that stay with their work while there is much of it.
//!
//! A pool hands its connections out in turn, so that each statement would be parsed and planned on every one of them, after a round
//! trip to ask whether it still lives.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

use crate::store::StoreError;

/// How many of a pool's connections are left to everything else: listening, reports, renewals, the caller.
const OTHERS: u32 = 4;

/// So many at once, and more will come.
pub(super) const MANY: usize = 16;

/// At most one connection, for one kind of statement. A clone is a new lane of the same pool, so that what a relay keeps goes back
/// with the relay; all of a pool's lanes together keep no more than half of what the pool can spare.
pub(super) struct Lane {
    kept: Mutex<Option<Kept>>,
    /// How many are kept by all of the pool's lanes.
    all: Arc<AtomicU32>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), all: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was kept, or one of the pool's.
    pub(super) async fn take(&self, pool: &PgPool) -> Result<Kept, StoreError> {
        let kept = self.kept().take();
        match kept {
            Some(kept) if !pool.is_closed() => Ok(kept),
            _ => Ok(Kept { connection: pool.acquire().await?, counted: None }),
        }
    }

    /// Keeps a connection on which all went well for the next statement of its kind, where the pool can spare it.
    pub(super) fn keep(&self, mut kept: Kept, pool: &PgPool) {
        let most = pool.options().get_max_connections().saturating_sub(OTHERS) / 2;
        if kept.counted.is_none() {
            let more = |all| (all < most).then_some(all + 1);
            if self.all.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
                return;
            }
            kept.counted = Some(Arc::clone(&self.all));
        }
        *self.kept() = Some(kept);
    }

    /// Gives the connection back to the pool.
    pub(super) fn clear(&self) {
        *self.kept() = None;
    }
}

impl Clone for Lane {
    fn clone(&self) -> Self {
        Self { kept: Mutex::default(), all: Arc::clone(&self.all) }
    }
}

/// A connection in use, or kept for the next.
pub(super) struct Kept {
    connection: PoolConnection<Postgres>,
    /// Where it counts as kept.
    counted: Option<Arc<AtomicU32>>,
}

impl Deref for Kept {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(all) = &self.counted {
            all.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
