//! An SMTP session: from connecting until it is ready for a mail transaction, and its end.

use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lettre::transport::smtp::commands::{Ehlo, Starttls};
use lettre::transport::smtp::extension::ClientId;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::debug;

use crate::capabilities::Capabilities;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::{Cause, SmtpError};
use crate::reply::Reply;
use crate::stage::Stage;
use crate::{Rule, Tls, meaning};

/// A session with a server.
///
/// The commands and the AUTH encodings are lettre's. lettre's connection is not used, because it
///
/// - cannot start with TLS on a given socket,
/// - keeps unencrypted input when TLS starts,
/// - loses the lines of a refusal,
/// - takes a reply that is not UTF-8 for a broken connection, and
/// - does not say whether the end of a message was written.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) capabilities: Capabilities,
    /// Whether the last transaction ended and both sides are in sync. Only then may another one begin.
    pub(crate) reusable: bool,
    /// Whether the next transaction must begin with `RSET`, because the last one is still open at the server.
    pub(crate) needs_reset: bool,
    /// How many transactions were begun.
    pub(crate) messages: u32,
    pub(crate) opened_at: Instant,
    /// The user's rules, tried before the rules of this crate.
    pub(crate) rules: Arc<[Rule]>,
    quit_sent: bool,
}

impl Session {
    /// Connects, encrypts and authenticates. If the server refuses a step, the session ends with `QUIT`.
    pub(crate) async fn open(config: &Config) -> Result<Self, SmtpError> {
        let tcp = connect(config).await.map_err(|cause| SmtpError::local(Stage::Connect, cause))?;
        let mut session = Self {
            connection: Connection::new(tcp),
            capabilities: Capabilities::default(),
            reusable: false,
            needs_reset: false,
            messages: 0,
            opened_at: Instant::now(),
            rules: Arc::clone(&config.rules),
            quit_sent: false,
        };
        if let Err(error) = session.set_up(config).await {
            session.reusable = error.is_in_sync();
            if session.reusable {
                let _ = session.quit(config).await;
            }
            return Err(error);
        }
        session.reusable = true;
        let (encrypted, pipelining) = (session.connection.is_encrypted(), session.capabilities.pipelining);
        debug!(host = config.host, port = config.port, encrypted, pipelining, "connected");
        Ok(session)
    }

    async fn set_up(&mut self, config: &Config) -> Result<(), SmtpError> {
        let limits = &config.timeouts;
        if let (Tls::Implicit, Some(client)) = (config.tls, &config.tls_client) {
            let encrypted = self.connection.start_tls(client, limits.handshake).await;
            encrypted.map_err(|cause| self.error(Stage::StartTls, cause))?;
        }
        let greeting = self.connection.read_reply(limits.greeting).await;
        let greeting = greeting.map_err(|cause| self.error(Stage::Greeting, cause))?;
        self.expect_success(Stage::Greeting, greeting)?;
        self.ehlo(config).await?;
        self.starttls(config).await?;
        if let Some(credentials) = &config.credentials {
            self.authenticate(credentials, config.mechanism, limits.auth).await?;
        }
        Ok(())
    }

    /// Sends `EHLO`, or `HELO` after 500, 502 and 504: the server does not know `EHLO` (RFC 5321 sections 3.2 and 4.3.2). 501 and
    /// 550 refuse the name (section 4.1.4), and `HELO` would repeat it.
    async fn ehlo(&mut self, config: &Config) -> Result<(), SmtpError> {
        let name = config.ehlo_name.clone().unwrap_or_else(|| default_ehlo_name(&self.connection));
        let limit = config.timeouts.hello;
        let reply = self.exchange(Stage::Hello, &Ehlo::new(name.clone()).to_string(), limit).await?;
        if matches!(reply.code(), 500 | 502 | 504) {
            debug!(code = reply.code(), "the server does not know EHLO");
            let reply = self.exchange(Stage::Hello, &format!("HELO {name}\r\n"), limit).await?;
            self.capabilities = Capabilities::default();
            return self.expect_success(Stage::Hello, reply);
        }
        self.capabilities = Capabilities::parse(&reply);
        self.expect_success(Stage::Hello, reply)
    }

    /// Sends `STARTTLS` where it is required or offered. A refusal is an error, unless the session may continue without TLS.
    async fn starttls(&mut self, config: &Config) -> Result<(), SmtpError> {
        let (Tls::Required | Tls::Opportunistic, Some(client)) = (config.tls, &config.tls_client) else {
            return Ok(());
        };
        let must_encrypt = config.tls == Tls::Required || config.credentials.is_some();
        if !self.capabilities.starttls {
            return if must_encrypt { Err(starttls_not_offered()) } else { Ok(()) };
        }
        let limits = &config.timeouts;
        let reply = self.exchange(Stage::StartTls, &Starttls.to_string(), limits.hello).await?;
        if reply.code() == 220 {
            let encrypted = self.connection.start_tls(client, limits.handshake).await;
            encrypted.map_err(|cause| self.error(Stage::StartTls, cause))?;
            // What the server said without TLS may be forged (RFC 3207 section 4.2).
            return self.ehlo(config).await;
        }
        let ends = meaning::ends_connection(reply.code());
        let error = self.expect_success(Stage::StartTls, reply).err();
        if must_encrypt || ends { Err(error.unwrap_or_else(starttls_not_offered)) } else { Ok(()) }
    }

    /// Sends a command and reads the reply.
    pub(crate) async fn exchange(&mut self, stage: Stage, command: &str, limit: Duration) -> Result<Reply, SmtpError> {
        self.connection.write_command(command, limit).await.map_err(|cause| self.error(stage, cause))?;
        self.connection.read_reply(limit).await.map_err(|cause| self.error(stage, cause))
    }

    pub(crate) fn error(&self, stage: Stage, cause: Cause) -> SmtpError {
        SmtpError::new(&self.rules, stage, cause)
    }

    /// Returns an error unless the reply is a success (2yz).
    pub(crate) fn expect_success(&self, stage: Stage, reply: Reply) -> Result<(), SmtpError> {
        if reply.is_positive() {
            Ok(())
        } else if reply.is_negative() {
            Err(self.error(stage, Cause::Refused(reply)))
        } else {
            Err(self.error(stage, Cause::UnexpectedReply(reply)))
        }
    }

    /// Records that a reply with this code ended the transaction, and whether the session can be used again.
    pub(crate) fn end_transaction(&mut self, code: u16, in_sync: bool) {
        self.reusable = in_sync && code != 421 && !self.connection.has_buffered_input();
        if meaning::ends_connection(code) {
            self.retire();
        }
    }

    /// Marks the session as not reusable. It sends `QUIT` first if both sides are in sync.
    pub(crate) fn retire(&mut self) {
        self.send_quit();
        self.reusable = false;
    }

    /// Sends `QUIT` and waits for the reply (RFC 5321 section 4.1.1.10). Both sides must be in sync.
    pub(crate) async fn quit(mut self, config: &Config) -> Result<(), SmtpError> {
        self.quit_sent = true;
        let reply = self.exchange(Stage::Quit, QUIT, config.timeouts.quit).await?;
        self.expect_success(Stage::Quit, reply)
    }

    /// Sends `QUIT` without waiting, if both sides are in sync and it was not sent before.
    pub(crate) fn send_quit(&mut self) {
        if self.reusable && !mem::replace(&mut self.quit_sent, true) {
            self.connection.try_write(QUIT.as_bytes());
        }
    }

    /// Waits for the reply to `QUIT`, so that the server can still send it.
    pub(crate) async fn wait_for_quit_reply(mut self, config: &Config) {
        let _ = self.connection.read_reply(config.timeouts.quit).await;
    }
}

const QUIT: &str = "QUIT\r\n";

/// Sends `QUIT`, which a client must do before it closes a connection (RFC 5321 section 4.1.1.10).
impl Drop for Session {
    fn drop(&mut self) {
        self.send_quit();
    }
}

fn starttls_not_offered() -> SmtpError {
    let reason = "the server does not offer STARTTLS, and this transport sends nothing without encryption";
    SmtpError::local(Stage::StartTls, Cause::Misconfigured(reason))
}

/// Tries the addresses of the host one after the other.
async fn connect(config: &Config) -> Result<TcpStream, Cause> {
    let limit = config.timeouts.connect;
    let found = timeout(limit, lookup_host((config.host.as_str(), config.port))).await;
    let addresses = found.map_err(|_| Cause::Timeout(limit))?.map_err(Cause::Io)?;
    let mut cause = Cause::Io(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Each write is complete. Nagle's algorithm would hold it back until the last one is acknowledged: a delayed
                // acknowledgement (40 ms on Linux) for each message.
                tcp.set_nodelay(true).map_err(Cause::Io)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => cause = Cause::Io(error),
            Err(_) => cause = Cause::Timeout(limit),
        }
    }
    Err(cause)
}

/// Returns the host's name if it is fully qualified, else the local address of the connection.
fn default_ehlo_name(connection: &Connection) -> ClientId {
    let qualified = |name: &str| name.contains('.') && name.bytes().all(|byte| byte.is_ascii_graphic());
    let local = || connection.tcp().and_then(|tcp| tcp.local_addr().ok()).map(|local| local.ip());
    match ClientId::default() {
        ClientId::Domain(name) if qualified(&name) => ClientId::Domain(name),
        _ => match local() {
            Some(IpAddr::V4(address)) => ClientId::Ipv4(address),
            Some(IpAddr::V6(address)) => ClientId::Ipv6(address),
            None => ClientId::Ipv4(Ipv4Addr::LOCALHOST),
        },
    }
}
