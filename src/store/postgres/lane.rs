//! Connections that stay with their work while there is much of it.
//!
//! A pool hands its connections out in turn, so that each statement would be parsed and planned on every one of them, after a round
//! trip to ask whether it still lives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use crate::store::StoreError;

/// From so many connections on, two that are kept leave enough for everything else: listening, reports, the caller.
const SPACIOUS: u32 = 6;

/// At most one connection, for one kind of statement. A clone is a new lane, so that what a relay keeps goes back to the pool with
/// the relay.
#[derive(Default)]
pub(super) struct Lane(Mutex<Option<PoolConnection<Postgres>>>);

impl Lane {
    fn kept(&self) -> MutexGuard<'_, Option<PoolConnection<Postgres>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was kept, or one of the pool's.
    pub(super) async fn take(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, StoreError> {
        let kept = self.kept().take();
        match kept {
            Some(connection) if !pool.is_closed() => Ok(connection),
            _ => Ok(pool.acquire().await?),
        }
    }

    /// Keeps a connection on which all went well for the next statement of its kind, where the pool can spare it.
    pub(super) fn keep(&self, connection: PoolConnection<Postgres>, pool: &PgPool) {
        if pool.options().get_max_connections() >= SPACIOUS {
            *self.kept() = Some(connection);
        }
    }

    /// Gives the connection back to the pool.
    pub(super) fn clear(&self) {
        *self.kept() = None;
    }
}

impl Clone for Lane {
    fn clone(&self) -> Self {
        Self::default()
    }
}
