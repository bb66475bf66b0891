//! Wakes relays by LISTEN. Notifications can be lost with their connection, so relays poll as well.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postrider_transport::Backoff;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::store::notify;

pub(super) struct Notifier {
    signal: Arc<Notify>,
    /// The pool and the channel to listen on. `None` without LISTEN.
    source: Option<(PgPool, String)>,
    /// The task that listens. It starts at the first wait, since only relays need it.
    listening: OnceLock<AbortHandle>,
}

impl Notifier {
    /// A notifier that listens on a channel. The listener occupies a connection, so with a pool of one it does not listen.
    pub(super) fn listening(pool: PgPool, channel: String) -> Self {
        if pool.options().get_max_connections() < 2 {
            return Self::local();
        }
        Self { signal: Arc::default(), source: Some((pool, channel)), listening: OnceLock::new() }
    }

    /// A notifier without LISTEN, for notifications within this process.
    pub(super) fn local() -> Self {
        Self { signal: Arc::default(), source: None, listening: OnceLock::new() }
    }

    pub(super) fn is_listening(&self) -> bool {
        self.source.is_some()
    }

    pub(super) fn notify(&self) {
        notify(&self.signal);
    }

    pub(super) async fn notified(&self) {
        if let Some((pool, channel)) = &self.source {
            self.listening.get_or_init(|| {
                let listen = listen(pool.clone(), channel.clone(), Arc::clone(&self.signal));
                tokio::spawn(listen).abort_handle()
            });
        }
        self.signal.notified().await;
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if let Some(task) = self.listening.get() {
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
