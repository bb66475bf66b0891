//! Opening connections without hammering at a door that does not open.
//!
//! Until credentials have been accepted once, one connection tries them while the others wait. If they are refused, those that
//! waited share the answer: servers lock accounts after a few wrong passwords, and a relay has many messages to send.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

use crate::config::Config;
use crate::error::{SmtpError, Stage};
use crate::session::Session;

#[derive(Default)]
pub(crate) struct Login {
    accepted: AtomicBool,
    refused: Mutex<Option<(Instant, SmtpError)>>,
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
        let mut refused = self.refused.lock().await;
        if self.accepted.load(Ordering::Relaxed) {
            drop(refused);
            return Session::open(config).await;
        }
        if let Some((_, error)) = refused.as_ref().filter(|(when, _)| *when >= came)
            && let Some(same) = error.repeated()
        {
            return Err(same);
        }
        let opened = Session::open(config).await;
        match &opened {
            Ok(_) => self.accepted.store(true, Ordering::Relaxed),
            Err(error) if error.stage() == Stage::Auth => {
                *refused = error.repeated().map(|error| (Instant::now(), error));
            }
            // Not for the credentials' sake: the next may try.
            Err(_) => {}
        }
        opened
    }
}
