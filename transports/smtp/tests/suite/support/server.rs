//! A mail server on loopback that follows a script and keeps a record.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::script::{Action, At, ScriptedAction};
use super::server_session::ServerSession;
use super::state::{Accepted, ReceivedLine, Record, ServerConfig, Shared};

pub(crate) struct TestServerBuilder(ServerConfig);

impl TestServerBuilder {
    pub(crate) fn offer(mut self, offer: &'static str) -> Self {
        self.0.capabilities.push(offer);
        self
    }

    pub(crate) fn without(mut self, offer: &str) -> Self {
        self.0.capabilities.retain(|own| *own != offer);
        self
    }

    /// Offers other capabilities in TLS.
    pub(crate) fn offer_in_tls(mut self, capabilities: Vec<&'static str>) -> Self {
        self.0.capabilities_in_tls = Some(capabilities);
        self
    }

    pub(crate) fn starttls(mut self, acceptor: TlsAcceptor) -> Self {
        self.0.acceptor = Some(acceptor);
        self.offer("STARTTLS")
    }

    pub(crate) fn implicit_tls(mut self, acceptor: TlsAcceptor) -> Self {
        (self.0.acceptor, self.0.implicit_tls) = (Some(acceptor), true);
        self
    }

    /// Sets the password that AUTH accepts, with any mechanism.
    pub(crate) fn password(mut self, password: &'static str) -> Self {
        self.0.password = password;
        self
    }

    /// Sets how long the server takes for each mail.
    pub(crate) fn delay(mut self, delay: Duration) -> Self {
        self.0.delay = delay;
        self
    }

    pub(crate) async fn start(self) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let record = Arc::new(Mutex::new(Record::default()));
        let idle_signal = Arc::new(Notify::new());
        let shared =
            Arc::new(Shared { record: Arc::clone(&record), idle_signal: Arc::clone(&idle_signal), config: self.0 });
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = {
                    let mut record = shared.record.lock().unwrap();
                    record.connections += 1;
                    let connection = record.connections;
                    record.open.insert(connection);
                    record.max_open = record.max_open.max(record.open.len());
                    connection
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // An error comes from the client or from the script.
                    let _ = ServerSession::run(&shared, connection, tcp).await;
                    shared.record.lock().unwrap().open.remove(&connection);
                });
            }
        });
        TestServer { port, record, idle_signal, task }
    }
}

pub(crate) struct TestServer {
    port: u16,
    record: Arc<Mutex<Record>>,
    idle_signal: Arc<Notify>,
    task: JoinHandle<()>,
}

impl TestServer {
    pub(crate) fn builder() -> TestServerBuilder {
        TestServerBuilder(ServerConfig {
            capabilities: vec!["8BITMIME"],
            capabilities_in_tls: None,
            acceptor: None,
            implicit_tls: false,
            password: "",
            delay: Duration::ZERO,
        })
    }

    /// Starts a server with or without PIPELINING.
    pub(crate) async fn start(pipelining: bool) -> Self {
        let builder = Self::builder();
        if pipelining { builder.offer("PIPELINING").start().await } else { builder.start().await }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Scripts an action for one time.
    pub(crate) fn once(&self, at: At, action: Action) {
        self.times(1, at, action);
    }

    pub(crate) fn times(&self, times: usize, at: At, action: Action) {
        self.record.lock().unwrap().actions.push(ScriptedAction { at, action, times });
    }

    pub(crate) fn actions_left(&self) -> usize {
        self.record.lock().unwrap().actions.len()
    }

    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.record.lock().unwrap().accepted.clone()
    }

    pub(crate) fn read(&self) -> usize {
        self.record.lock().unwrap().read
    }

    pub(crate) fn received(&self) -> Vec<ReceivedLine> {
        self.record.lock().unwrap().received.clone()
    }

    /// Whether a received line begins with this.
    pub(crate) fn received_any(&self, start: &str) -> bool {
        self.received().iter().any(|received| received.line.starts_with(start))
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.record.lock().unwrap().connections
    }

    pub(crate) fn open(&self) -> usize {
        self.record.lock().unwrap().open.len()
    }

    pub(crate) fn max_open(&self) -> usize {
        self.record.lock().unwrap().max_open
    }

    /// Performs an action on the idle connection, and waits until it has arrived.
    pub(crate) async fn act_while_idle(&self, action: Action) {
        self.once(At::Idle, action);
        self.idle_signal.notify_one();
        self.wait_until(|server| server.actions_left() == 0).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Waits until this many connections are open.
    pub(crate) async fn wait_until_open(&self, count: usize) {
        self.wait_until(|server| server.open() == count).await;
    }

    pub(crate) async fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the condition never held: {:?}", self.received());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
