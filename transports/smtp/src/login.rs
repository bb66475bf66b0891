//! Opening connections without hammering at a door that does not open.
//!
//! Until credentials have been accepted once, one connection tries them while the others wait. If it comes to nothing, those that
//! waited share the failure: servers lock accounts after a few wrong passwords, and a relay has many messages to send. Where a
//! server does not even answer, each would otherwise wait for its own silence behind that of all the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

use crate::config::Config;
use crate::error::{SmtpError, Stage};
use crate::session::Session;

#[derive(Default)]
pub(crate) struct Login {
    accepted: AtomicBool,
    failed: Mutex<Option<(Instant, SmtpError)>>,
}

impl Login {
    pub(crate) async fn open(&self, config: &Config) -> Result<Session, SmtpError> {
        if config.credentials.is_none() || self.accepted.load(Ordering::Relaxed) {
            let opened = Session::open(config).await;
            if opened.as_ref().is_err_and(|error| error.stage() == Stage::Auth) {
                self.accepted.store(false, Ordering::Relaxed);
            }
            return opened;
        }
        let came = Instant::now();
        let mut failed = self.failed.lock().await;
        if self.accepted.load(Ordering::Relaxed) {
            drop(failed);
            return Session::open(config).await;
        }
        if let Some((_, error)) = failed.as_ref().filter(|(when, _)| *when >= came) {
            return Err(error.repeated());
        }
        let opened = Session::open(config).await;
        match &opened {
            Ok(_) => self.accepted.store(true, Ordering::Relaxed),
            Err(error) => *failed = Some((Instant::now(), error.repeated())),
        }
        opened
    }
}
