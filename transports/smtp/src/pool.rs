//! Keeps sessions open and lends them to calls.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::config::Config;
use crate::connector::Connector;
use crate::error::SmtpError;
use crate::session::Session;

/// Sessions with one server.
///
/// Each call holds a permit while it has a session, and opens a new one only if none is idle. The permits therefore limit the
/// number of sessions.
pub(crate) struct Pool {
    config: Arc<Config>,
    permits: Arc<Semaphore>,
    idle: Mutex<Idle>,
    connector: Connector,
}

#[derive(Default)]
struct Idle {
    /// The session that was used last is at the end and is used next, so that superfluous ones reach their idle timeout.
    sessions: Vec<IdleSession>,
    reaper_runs: bool,
}

struct IdleSession {
    since: Instant,
    session: Session,
}

impl Pool {
    pub(crate) fn new(config: Config) -> Self {
        let permits = Arc::new(Semaphore::new(config.limits.max_connections.min(Semaphore::MAX_PERMITS)));
        Self { config: Arc::new(config), permits, idle: Mutex::default(), connector: Connector::default() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns an idle session that is still alive, or opens one.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<PooledSession, SmtpError> {
        let permit = self.permit().await;
        loop {
            // In its own statement, so that the lock is released here.
            let next = self.lock().sessions.pop();
            let Some(IdleSession { since, mut session }) = next else { break };
            if !session.connection.is_alive() {
                debug!("an idle connection had ended");
                session.reusable = false;
            } else if since.elapsed() >= self.config.limits.idle_timeout || self.has_reached_limit(&session) {
                // Dropping sends QUIT without waiting for the reply: the permit is needed now.
                drop(session);
            } else {
                return Ok(PooledSession { session, reused: true, permit, pool: Arc::clone(self) });
            }
        }
        let session = self.connector.connect(&self.config).await?;
        Ok(PooledSession { session, reused: false, permit, pool: Arc::clone(self) })
    }

    /// Opens a new session and closes it.
    pub(crate) async fn check_connection(&self) -> Result<(), SmtpError> {
        let _permit = self.permit().await;
        // An idle session is closed first, so that the limit holds.
        let idle = self.lock().sessions.pop();
        if let Some(idle) = idle {
            let _ = idle.session.quit(&self.config).await;
        }
        let session = self.connector.connect(&self.config).await?;
        session.quit(&self.config).await
    }

    /// Closes all idle sessions at the same time.
    pub(crate) async fn close_idle(&self) {
        let sessions = mem::take(&mut self.lock().sessions);
        join_all(sessions.into_iter().map(|idle| idle.session.quit(&self.config))).await;
    }

    /// Waits for a permit. `None` only if the semaphore is closed, which never happens.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    fn has_reached_limit(&self, session: &Session) -> bool {
        let limits = &self.config.limits;
        session.messages >= limits.max_messages || session.opened_at.elapsed() >= limits.max_age
    }

    fn put_back(self: &Arc<Self>, session: Session) {
        let mut idle = self.lock();
        idle.sessions.push(IdleSession { since: Instant::now(), session });
        if !idle.reaper_runs {
            idle.reaper_runs = true;
            drop(idle);
            tokio::spawn(close_expired(ReaperGuard(Arc::downgrade(self)), self.config.limits.idle_timeout));
        }
    }

    /// Sends `QUIT`, and waits for the reply in a task. The permit is released when the connection is closed.
    fn close_in_background(&self, mut session: Session, permit: Option<OwnedSemaphorePermit>) {
        session.send_quit();
        let config = Arc::clone(&self.config);
        tokio::spawn(async move {
            session.wait_for_quit_reply(&config).await;
            drop(permit);
        });
    }

    /// Removes the sessions that reached the idle timeout, each with a permit, so that it counts while it is closed. `None` if no
    /// session is idle.
    fn take_expired(&self) -> Option<Vec<(Session, OwnedSemaphorePermit)>> {
        let mut idle = self.lock();
        if idle.sessions.is_empty() {
            return None;
        }
        let limit = self.config.limits.idle_timeout;
        let (expired, rest): (Vec<_>, _) = idle.sessions.drain(..).partition(|idle| idle.since.elapsed() >= limit);
        idle.sessions = rest;
        // Without a permit, the session is dropped here, which sends QUIT without waiting for the reply.
        let with_permit = |idle: IdleSession| Some((idle.session, Arc::clone(&self.permits).try_acquire_owned().ok()?));
        Some(expired.into_iter().filter_map(with_permit).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.config)
            .field("idle", &self.lock().sessions.len())
            .field("permits", &self.permits.available_permits())
            .finish()
    }
}

/// Records the end of the reaper, also if the runtime drops its task.
struct ReaperGuard(Weak<Pool>);

impl Drop for ReaperGuard {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.lock().reaper_runs = false;
        }
    }
}

/// Closes sessions that reach the idle timeout. It ends when no session is idle, and does not keep the pool alive.
async fn close_expired(guard: ReaperGuard, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout.max(Duration::from_millis(10))).await;
        let Some(pool) = guard.0.upgrade() else { return };
        let Some(expired) = pool.take_expired() else { return };
        for (session, permit) in expired {
            let _ = session.quit(&pool.config).await;
            drop(permit);
        }
    }
}

/// A session that one call uses. Dropping it closes the connection; [`release`](Self::release) gives it back to the pool.
#[derive(Debug)]
pub(crate) struct PooledSession {
    pub(crate) session: Session,
    /// Whether the session was idle in the pool before this call.
    pub(crate) reused: bool,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
}

impl PooledSession {
    /// Replaces the session by a new one.
    pub(crate) async fn reconnect(self) -> Result<Self, SmtpError> {
        let Self { session, permit, pool, .. } = self;
        drop(session);
        let session = pool.connector.connect(&pool.config).await?;
        Ok(Self { session, reused: false, permit, pool })
    }

    /// Gives the session back to the pool if it can be used again, else closes it.
    pub(crate) fn release(self) {
        let Self { session, permit, pool, .. } = self;
        if !session.reusable {
            return;
        }
        if pool.has_reached_limit(&session) || pool.config.limits.idle_timeout.is_zero() {
            pool.close_in_background(session, permit);
        } else {
            // Before the permit is released, so that the next call finds the session.
            pool.put_back(session);
        }
    }
}
