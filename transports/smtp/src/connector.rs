//! Opens sessions, and does not repeat a login that fails.
//!
//! Until the server has accepted the credentials once, one session tries them while the other calls wait. If it fails, the calls
//! that waited share the failure. Servers lock accounts after a few wrong passwords, and a server that does not answer would
//! otherwise cost each call the time limits of all the calls before it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

use crate::config::Config;
use crate::error::SmtpError;
use crate::session::Session;
use crate::stage::Stage;

#[derive(Default)]
pub(crate) struct Connector {
    /// Whether the server has accepted the credentials.
    authenticated: AtomicBool,
    /// The last failure before the credentials were accepted. The lock is held while a session is opened.
    last_failure: Mutex<Option<ConnectFailure>>,
}

struct ConnectFailure {
    at: Instant,
    error: SmtpError,
}

impl Connector {
    pub(crate) async fn connect(&self, config: &Config) -> Result<Session, SmtpError> {
        if config.credentials.is_none() || self.authenticated.load(Ordering::Relaxed) {
            let opened = Session::open(config).await;
            if opened.as_ref().is_err_and(|error| error.stage() == Stage::Auth) {
                self.authenticated.store(false, Ordering::Relaxed);
            }
            return opened;
        }
        let called_at = Instant::now();
        let mut last_failure = self.last_failure.lock().await;
        if self.authenticated.load(Ordering::Relaxed) {
            drop(last_failure);
            return Session::open(config).await;
        }
        if let Some(failure) = last_failure.as_ref().filter(|failure| failure.at >= called_at) {
            return Err(failure.error.duplicate());
        }
        let opened = Session::open(config).await;
        match &opened {
            Ok(_) => self.authenticated.store(true, Ordering::Relaxed),
            Err(error) => *last_failure = Some(ConnectFailure { at: Instant::now(), error: error.duplicate() }),
        }
        opened
    }
}
