//! The LISTEN side of PostgreSQL's notifications. They can be lost with their connection, so relays poll as well.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postrider_transport::Backoff;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::store::notify;

/// Listens on a channel, in a task of its own.
pub(super) struct Listener {
    pool: PgPool,
    channel: String,
    /// The task that listens. It starts at the first wait, since only relays need it.
    task: OnceLock<AbortHandle>,
}

impl Listener {
    /// A listener that is not started. It occupies a connection, so there is none for a pool of one.
    pub(super) fn new(pool: PgPool, channel: String) -> Option<Self> {
        (pool.options().get_max_connections() >= 2).then(|| Self { pool, channel, task: OnceLock::new() })
    }

    /// Starts the task, unless it runs already. It notifies `signal`.
    pub(super) fn start(&self, signal: &Arc<Notify>) {
        self.task.get_or_init(|| {
            let listen = listen(self.pool.clone(), self.channel.clone(), Arc::clone(signal));
            tokio::spawn(listen).abort_handle()
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Listens until the pool is closed, and reconnects when the connection breaks.
async fn listen(pool: PgPool, channel: String, signal: Arc<Notify>) {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut failures = 0;
    while !pool.is_closed() {
        match listen_once(&pool, &channel, &signal).await {
            Ok(()) => failures = 0,
            // The relay already logs that the database does not answer.
            Err(error) => {
                failures += 1;
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "LISTEN failed; relays poll until it works again"
                );
            }
        }
        tokio::time::sleep(WAIT.delay(failures.max(1), rand::random_range(-1.0..=1.0))).await;
    }
}

/// Listens on one connection. Returns `Ok` when a working connection breaks.
async fn listen_once(pool: &PgPool, channel: &str, signal: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(false);
    listener.listen(channel).await?;
    // Commits from before this point sent no notification to this connection.
    notify(signal);
    while let Ok(Some(_)) = listener.try_recv().await {
        notify(signal);
    }
    Ok(())
}
