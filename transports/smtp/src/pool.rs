//! The connections that are open, and who may use them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::config::Config;
use crate::error::SmtpError;
use crate::login::Login;
use crate::session::Session;

/// Connections to one server, at most as many as configured.
///
/// Who uses a connection holds a permit, and a new one is opened only when none is idle: so permits bound them all.
pub(crate) struct Pool {
    config: Arc<Config>,
    permits: Arc<Semaphore>,
    idle: Mutex<Idle>,
    login: Login,
}

/// The connections that wait for a message. The one used last is used next, so that those not needed grow old.
#[derive(Default)]
struct Idle {
    stack: Vec<(Instant, Session)>,
    sweeping: bool,
}

impl Pool {
    pub(crate) fn new(config: Config) -> Self {
        let permits = config.limits.connections.min(Semaphore::MAX_PERMITS);
        let config = Arc::new(config);
        Self { config, permits: Arc::new(Semaphore::new(permits)), idle: Mutex::default(), login: Login::default() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A connection that is as good as can be known without asking the server, or else a new one.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Lease, SmtpError> {
        let permit = self.permit().await;
        loop {
            // A name for it, since the lock would else live as long as the loop's body.
            let next = self.lock().stack.pop();
            let Some((since, mut session)) = next else { break };
            if !session.wire.is_silent() {
                debug!("an idle connection had ended");
                session.clean = false;
            } else if since.elapsed() >= self.config.limits.idle || self.is_used_up(&session) {
                // Dropped, it says goodbye. The answer is not waited for: its place is needed now.
                drop(session);
            } else {
                return Ok(Lease { session, reused: true, permit, pool: Arc::clone(self) });
            }
        }
        let session = self.login.open(&self.config).await?;
        Ok(Lease { session, reused: false, permit, pool: Arc::clone(self) })
    }

    /// Opens a connection beside those that wait, and closes it again.
    pub(crate) async fn probe(&self) -> Result<(), SmtpError> {
        let _permit = self.permit().await;
        // The place of one that waits, so that the bound holds.
        let idle = self.lock().stack.pop();
        if let Some((_, session)) = idle {
            let _ = session.quit(&self.config).await;
        }
        let session = self.login.open(&self.config).await?;
        session.quit(&self.config).await
    }

    /// Closes every connection that waits, all at once.
    pub(crate) async fn close(&self) {
        let idle = std::mem::take(&mut self.lock().stack);
        join_all(idle.into_iter().map(|(_, session)| session.quit(&self.config))).await;
    }

    /// `None` only where the semaphore was closed, which nobody does.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    fn is_used_up(&self, session: &Session) -> bool {
        let limits = &self.config.limits;
        session.messages >= limits.messages || session.born.elapsed() >= limits.age
    }

    fn park(self: &Arc<Self>, session: Session) {
        let mut idle = self.lock();
        idle.stack.push((Instant::now(), session));
        if !idle.sweeping {
            idle.sweeping = true;
            drop(idle);
            tokio::spawn(sweep(Sweeping(Arc::downgrade(self)), self.config.limits.idle));
        }
    }

    /// Says goodbye, and lets the answer come without making anybody wait. The permit is kept until the connection is gone.
    fn dismiss(&self, mut session: Session, permit: Option<OwnedSemaphorePermit>) {
        session.say_goodbye();
        let config = Arc::clone(&self.config);
        tokio::spawn(async move {
            session.hear_goodbye(&config).await;
            drop(permit);
        });
    }

    /// Those that have waited too long, each with a permit of its own, without which it would not be counted while it says
    /// goodbye. `None` when nobody waits any more.
    fn overdue(&self) -> Option<Vec<(Session, OwnedSemaphorePermit)>> {
        let mut idle = self.lock();
        if idle.stack.is_empty() {
            return None;
        }
        let (overdue, waiting) =
            idle.stack.drain(..).partition(|(since, _): &(Instant, _)| since.elapsed() >= self.config.limits.idle);
        idle.stack = waiting;
        // Where every permit is in use, nobody waits for the answer to the goodbye, which is said as the connection is dropped.
        let with_permit = |(_, session)| Some((session, Arc::clone(&self.permits).try_acquire_owned().ok()?));
        Some(overdue.into_iter().filter_map(with_permit).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.config)
            .field("idle", &self.lock().stack.len())
            .field("free", &self.permits.available_permits())
            .finish()
    }
}

/// Marks that a sweep runs, until it ends for whatever reason: also when the runtime is shut down under it.
struct Sweeping(Weak<Pool>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.lock().sweeping = false;
        }
    }
}

/// Closes what waits too long. Runs only while something waits, and does not keep the pool alive.
async fn sweep(sweeping: Sweeping, idle: Duration) {
    loop {
        tokio::time::sleep(idle.max(Duration::from_millis(10))).await;
        let Some(pool) = sweeping.0.upgrade() else { return };
        let Some(overdue) = pool.overdue() else { return };
        for (session, permit) in overdue {
            let _ = session.quit(&pool.config).await;
            drop(permit);
        }
    }
}

/// The use of one connection. Dropped, it closes the connection; [`release`](Self::release) is the only way back to the pool.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) session: Session,
    pub(crate) reused: bool,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
}

impl Lease {
    /// Another connection in the place of this one.
    pub(crate) async fn renew(self) -> Result<Self, SmtpError> {
        let Self { session, permit, pool, .. } = self;
        drop(session);
        let session = pool.login.open(&pool.config).await?;
        Ok(Self { session, reused: false, permit, pool })
    }

    /// Gives the connection back, if its last dialogue ended cleanly and it may carry more.
    pub(crate) fn release(self) {
        let Self { session, permit, pool, .. } = self;
        if !session.clean {
            return;
        }
        if pool.is_used_up(&session) || pool.config.limits.idle.is_zero() {
            pool.dismiss(session, permit);
        } else {
            // Parked before the permit is free: whoever gets the permit finds the connection.
            pool.park(session);
        }
    }
}
