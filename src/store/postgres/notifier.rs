//! Wakes the relays of this process: after its own commits, and by LISTEN after those of other processes.

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::Notify;

use super::listener::Listener;
use crate::store::notify;

pub(super) struct Notifier {
    signal: Arc<Notify>,
    /// `None` without LISTEN.
    listener: Option<Listener>,
}

impl Notifier {
    /// A notifier that listens on a channel, if the pool has a connection to spare.
    pub(super) fn listening(pool: PgPool, channel: String) -> Self {
        Self { signal: Arc::default(), listener: Listener::new(pool, channel) }
    }

    /// A notifier without LISTEN, for notifications within this process.
    pub(super) fn local() -> Self {
        Self { signal: Arc::default(), listener: None }
    }

    pub(super) fn is_listening(&self) -> bool {
        self.listener.is_some()
    }

    pub(super) fn notify(&self) {
        notify(&self.signal);
    }

    pub(super) async fn notified(&self) {
        if let Some(listener) = &self.listener {
            listener.start(&self.signal);
        }
        self.signal.notified().await;
    }
}
