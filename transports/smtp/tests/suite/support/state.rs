//! What the test server and its sessions share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::script::ScriptedAction;

/// A mail that the server accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) connection: usize,
    pub(crate) mail_from: String,
    pub(crate) recipients: Vec<String>,
    /// Without doubled dots and without the end.
    pub(crate) data: Vec<u8>,
    /// Whether the first read returned all of it, with its end.
    pub(crate) in_one_read: bool,
    pub(crate) queue_id: String,
}

/// A line that the server received.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedLine {
    pub(crate) connection: usize,
    pub(crate) line: String,
    pub(crate) encrypted: bool,
    /// Whether more input came with it.
    pub(crate) pipelined: bool,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) actions: Vec<ScriptedAction>,
    /// How many messages were read to their end.
    pub(super) read: usize,
    pub(super) accepted: Vec<Accepted>,
    pub(super) received: Vec<ReceivedLine>,
    /// How many connections were opened.
    pub(super) connections: usize,
    pub(super) open: HashSet<usize>,
    /// The most connections that were open at once.
    pub(super) max_open: usize,
}

pub(super) struct ServerConfig {
    pub(super) capabilities: Vec<&'static str>,
    /// `None`: the same as without TLS, but no STARTTLS.
    pub(super) capabilities_in_tls: Option<Vec<&'static str>>,
    /// `None`: no TLS.
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) implicit_tls: bool,
    /// Empty: AUTH always fails.
    pub(super) password: &'static str,
    pub(super) delay: Duration,
}

pub(super) struct Shared {
    pub(super) record: Arc<Mutex<Record>>,
    /// Notified to perform the action of [`At::Idle`](super::script::At::Idle).
    pub(super) idle_signal: Arc<Notify>,
    pub(super) config: ServerConfig,
}
