//! Waking by LISTEN. Notifications can be lost with their connection, so this is a help and no more: relays poll as well.

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
    source: Option<(PgPool, String)>,
    /// Begun when somebody first waits, for only relays need it.
    listening: OnceLock<AbortHandle>,
}

impl Notifier {
    /// A listener keeps a connection to itself, so that a pool of one does without.
    pub(super) fn listening(pool: PgPool, channel: String) -> Self {
        if pool.options().get_max_connections() < 2 {
            return Self::silent();
        }
        Self { signal: Arc::default(), source: Some((pool, channel)), listening: OnceLock::new() }
    }

    pub(super) fn silent() -> Self {
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

/// Listens for ever, on a connection that is made anew when it breaks.
async fn listen(pool: PgPool, channel: String, signal: Arc<Notify>) {
    const WAIT: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut failures = 0;
    while !pool.is_closed() {
        match listen_once(&pool, &channel, &signal).await {
            Ok(()) => failures = 0,
            // The relay itself says that the database is away; this would only say it again.
            Err(error) => {
                failures += 1;
                tracing::debug!(error = &error as &dyn std::error::Error, "no notifications; polling goes on");
            }
        }
        tokio::time::sleep(WAIT.delay(failures.max(1), rand::random_range(-1.0..=1.0))).await;
    }
}

/// Returns when a connection that worked has broken.
async fn listen_once(pool: &PgPool, channel: &str, signal: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(false);
    listener.listen(channel).await?;
    // What was committed while nobody listened rang for nobody.
    notify(signal);
    while let Ok(Some(_)) = listener.try_recv().await {
        notify(signal);
    }
    Ok(())
}
