//! A mail server that listens on loopback, does as its script says, and keeps a record.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::dialogue::{Dialogue, Shared};
use super::script::{Act, At, Rule};

/// A mail that the peer answered for.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) connection: usize,
    pub(crate) mail_from: String,
    pub(crate) recipients: Vec<String>,
    /// Without doubled dots and without the end.
    pub(crate) data: Vec<u8>,
    /// Whether the first that came of it was all of it, its end included.
    pub(crate) in_one: bool,
    pub(crate) queue_id: String,
}

/// A line that the peer was told.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) connection: usize,
    pub(crate) line: String,
    pub(crate) encrypted: bool,
    /// Whether more had come along with it.
    pub(crate) with_more: bool,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) rules: Vec<Rule>,
    /// How many messages were read to their end.
    pub(super) read: usize,
    pub(super) accepted: Vec<Accepted>,
    pub(super) heard: Vec<Heard>,
    pub(super) connections: usize,
    pub(super) open: HashSet<usize>,
    pub(super) most_open: usize,
}

pub(crate) struct PeerBuilder {
    pub(super) offers: Vec<&'static str>,
    pub(super) offers_in_tls: Option<Vec<&'static str>>,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) implicit: bool,
    pub(super) password: &'static str,
    pub(super) pace: Duration,
}

impl PeerBuilder {
    pub(crate) fn offer(mut self, offer: &'static str) -> Self {
        self.offers.push(offer);
        self
    }

    pub(crate) fn without(mut self, offer: &str) -> Self {
        self.offers.retain(|own| *own != offer);
        self
    }

    /// Offers something else once encrypted.
    pub(crate) fn offer_in_tls(mut self, offers: Vec<&'static str>) -> Self {
        self.offers_in_tls = Some(offers);
        self
    }

    pub(crate) fn starttls(mut self, acceptor: TlsAcceptor) -> Self {
        self.acceptor = Some(acceptor);
        self.offer("STARTTLS")
    }

    pub(crate) fn implicit_tls(mut self, acceptor: TlsAcceptor) -> Self {
        (self.acceptor, self.implicit) = (Some(acceptor), true);
        self
    }

    /// The password that AUTH wants, by any mechanism.
    pub(crate) fn password(mut self, password: &'static str) -> Self {
        self.password = password;
        self
    }

    /// How long to think over each mail.
    pub(crate) fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    pub(crate) async fn start(self) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let record = Arc::new(Mutex::new(Record::default()));
        let nudge = Arc::new(Notify::new());
        let shared = Arc::new(Shared { record: Arc::clone(&record), nudge: Arc::clone(&nudge), setup: self });
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = {
                    let mut record = shared.record.lock().unwrap();
                    record.connections += 1;
                    let connection = record.connections;
                    record.open.insert(connection);
                    record.most_open = record.most_open.max(record.open.len());
                    connection
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // Whatever breaks here was broken by the client, or by the script.
                    let _ = Dialogue::run(&shared, connection, tcp).await;
                    shared.record.lock().unwrap().open.remove(&connection);
                });
            }
        });
        Peer { port, record, nudge, task }
    }
}

pub(crate) struct Peer {
    port: u16,
    record: Arc<Mutex<Record>>,
    nudge: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Peer {
    pub(crate) fn builder() -> PeerBuilder {
        PeerBuilder {
            offers: vec!["8BITMIME"],
            offers_in_tls: None,
            acceptor: None,
            implicit: false,
            password: "",
            pace: Duration::ZERO,
        }
    }

    /// With or without PIPELINING.
    pub(crate) async fn start(pipelining: bool) -> Self {
        let builder = Self::builder();
        if pipelining { builder.offer("PIPELINING").start().await } else { builder.start().await }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Does this once.
    pub(crate) fn once(&self, at: At, act: Act) {
        self.times(1, at, act);
    }

    pub(crate) fn times(&self, times: usize, at: At, act: Act) {
        self.record.lock().unwrap().rules.push(Rule { at, act, times });
    }

    pub(crate) fn rules_left(&self) -> usize {
        self.record.lock().unwrap().rules.len()
    }

    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.record.lock().unwrap().accepted.clone()
    }

    pub(crate) fn read(&self) -> usize {
        self.record.lock().unwrap().read
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.record.lock().unwrap().heard.clone()
    }

    /// Whether a line that begins so was heard.
    pub(crate) fn heard_any(&self, start: &str) -> bool {
        self.heard().iter().any(|heard| heard.line.starts_with(start))
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.record.lock().unwrap().connections
    }

    pub(crate) fn open(&self) -> usize {
        self.record.lock().unwrap().open.len()
    }

    pub(crate) fn most_open(&self) -> usize {
        self.record.lock().unwrap().most_open
    }

    /// Does this on the connection that waits, and gives it time to arrive.
    pub(crate) async fn say_to_idle(&self, act: Act) {
        self.once(At::Idle, act);
        self.nudge.notify_one();
        self.until(|peer| peer.rules_left() == 0).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Waits until this many connections are open.
    pub(crate) async fn until_open(&self, count: usize) {
        self.until(|peer| peer.open() == count).await;
    }

    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came: {:?}", self.heard());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
