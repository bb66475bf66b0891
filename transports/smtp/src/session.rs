//! One connection, from the greeting until it is ready for a message.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lettre::transport::smtp::commands::{Ehlo, Starttls};
use lettre::transport::smtp::extension::ClientId;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::debug;

use crate::config::Config;
use crate::error::{Fault, SmtpError, Stage};
use crate::reply::Reply;
use crate::stream::Wire;
use crate::{Rule, Tls, classify};

/// A connection that is ready for a message.
///
/// The commands and the forms of AUTH are lettre's. Its connection is not used: it cannot begin with TLS over a socket that is
/// given to it, keeps what it has read in clear when it turns to TLS, drops the line structure of a refusal, takes one that is
/// not UTF-8 for a broken connection, and does not tell whether the end of a message has left.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) wire: Wire,
    pub(crate) offers: Offers,
    /// Whether the last dialogue came to an end that both sides agree upon. Only then may another begin.
    pub(crate) clean: bool,
    /// Whether a transaction is still open, to be put away before the next one.
    pub(crate) needs_reset: bool,
    pub(crate) messages: u32,
    pub(crate) born: Instant,
    /// Asked before our own what a refusal means.
    pub(crate) rules: Arc<[Rule]>,
    said_goodbye: bool,
}

/// What the server offers in its reply to EHLO (RFC 5321 section 4.1.1.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offers {
    /// RFC 2920.
    pub(crate) pipelining: bool,
    /// RFC 6152.
    pub(crate) eight_bit: bool,
    /// RFC 6531.
    pub(crate) utf8: bool,
    /// RFC 3207.
    pub(crate) starttls: bool,
    /// RFC 1870: offered, and the largest message, where one is named.
    pub(crate) size: Option<Option<usize>>,
    /// RFC 4954: the mechanisms, in capitals.
    pub(crate) auth: Vec<String>,
}

impl Offers {
    fn read(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines().skip(1) {
            // Some old servers write AUTH= for clients older still.
            let line = line.to_ascii_uppercase().replacen("AUTH=", "AUTH ", 1);
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("PIPELINING") => offers.pipelining = true,
                Some("8BITMIME") => offers.eight_bit = true,
                Some("SMTPUTF8") => offers.utf8 = true,
                Some("STARTTLS") => offers.starttls = true,
                Some("SIZE") => {
                    let limit = words.next().and_then(|word| word.parse().ok());
                    // Zero says that there is no limit (RFC 1870 section 3).
                    offers.size = Some(limit.filter(|limit| *limit > 0));
                }
                Some("AUTH") => offers.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        offers
    }
}

impl Session {
    /// Connects, encrypts, authenticates. A server that refuses on the way is told goodbye.
    pub(crate) async fn open(config: &Config) -> Result<Self, SmtpError> {
        let tcp = connect(config).await.map_err(|fault| SmtpError::unasked(Stage::Connect, fault))?;
        let mut session = Self {
            wire: Wire::new(tcp),
            offers: Offers::default(),
            clean: false,
            needs_reset: false,
            messages: 0,
            born: Instant::now(),
            rules: Arc::clone(&config.rules),
            said_goodbye: false,
        };
        if let Err(error) = session.set_up(config).await {
            session.clean = error.is_in_step();
            if session.clean {
                let _ = session.quit(config).await;
            }
            return Err(error);
        }
        session.clean = true;
        let (encrypted, pipelining) = (session.wire.is_encrypted(), session.offers.pipelining);
        debug!(host = config.host, port = config.port, encrypted, pipelining, "connected");
        Ok(session)
    }

    async fn set_up(&mut self, config: &Config) -> Result<(), SmtpError> {
        let limits = &config.timeouts;
        if let (Tls::Implicit, Some(client)) = (config.tls, &config.client) {
            let encrypted = self.wire.encrypt(client, limits.handshake).await;
            encrypted.map_err(|fault| self.error(Stage::StartTls, fault))?;
        }
        let greeting = self.wire.reply(limits.greeting).await.map_err(|fault| self.error(Stage::Greeting, fault))?;
        self.expect(Stage::Greeting, greeting)?;
        self.hello(config).await?;
        if let (Tls::Required | Tls::Opportunistic, Some(client)) = (config.tls, &config.client) {
            let refused = if self.offers.starttls {
                let reply = self.exchange(Stage::StartTls, &Starttls.to_string(), limits.hello).await?;
                if reply.code() == 220 {
                    let encrypted = self.wire.encrypt(client, limits.handshake).await;
                    encrypted.map_err(|fault| self.error(Stage::StartTls, fault))?;
                    // What was said before the encryption, anybody may have said (RFC 3207 section 4.2).
                    self.hello(config).await?;
                    None
                } else {
                    let ends = classify::ends_connection(reply.code());
                    let error = self.expect(Stage::StartTls, reply).err();
                    Some((error.unwrap_or_else(no_starttls), ends))
                }
            } else {
                Some((no_starttls(), false))
            };
            if let Some((error, ends)) = refused
                && (config.tls == Tls::Required || config.credentials.is_some() || ends)
            {
                return Err(error);
            }
        }
        if let Some(credentials) = &config.credentials {
            self.authenticate(credentials, config.mechanism, limits.auth).await?;
        }
        Ok(())
    }

    /// EHLO, or HELO where the server does not know EHLO: 500, 502 or 504 (RFC 5321 sections 3.2 and 4.3.2). 501 and 550 refuse
    /// the name (section 4.1.4), which HELO would only repeat.
    async fn hello(&mut self, config: &Config) -> Result<(), SmtpError> {
        let name = config.hello.clone().unwrap_or_else(|| own_name(&self.wire));
        let limit = config.timeouts.hello;
        let reply = self.exchange(Stage::Hello, &Ehlo::new(name.clone()).to_string(), limit).await?;
        if matches!(reply.code(), 500 | 502 | 504) {
            debug!(code = reply.code(), "the server does not know EHLO");
            let reply = self.exchange(Stage::Hello, &format!("HELO {name}\r\n"), limit).await?;
            self.offers = Offers::default();
            return self.expect(Stage::Hello, reply);
        }
        self.offers = Offers::read(&reply);
        self.expect(Stage::Hello, reply)
    }

    /// A command and the answer to it.
    pub(crate) async fn exchange(&mut self, stage: Stage, command: &str, limit: Duration) -> Result<Reply, SmtpError> {
        self.wire.command(command, limit).await.map_err(|fault| self.error(stage, fault))?;
        self.wire.reply(limit).await.map_err(|fault| self.error(stage, fault))
    }

    pub(crate) fn error(&self, stage: Stage, fault: Fault) -> SmtpError {
        SmtpError::new(&self.rules, stage, fault)
    }

    /// A success (2yz), or else an error.
    pub(crate) fn expect(&self, stage: Stage, reply: Reply) -> Result<(), SmtpError> {
        if reply.is_positive() {
            Ok(())
        } else if reply.is_negative() {
            Err(self.error(stage, Fault::Refused(reply)))
        } else {
            Err(self.error(stage, Fault::OutOfTurn(reply)))
        }
    }

    /// Says goodbye and waits for the answer (RFC 5321 section 4.1.1.10). The connection must be in step.
    pub(crate) async fn quit(mut self, config: &Config) -> Result<(), SmtpError> {
        self.said_goodbye = true;
        let reply = self.exchange(Stage::Quit, QUIT, config.timeouts.quit).await?;
        self.expect(Stage::Quit, reply)
    }

    /// Says goodbye at once, as far as the socket takes it, so that it is said also where nobody may wait for the answer.
    pub(crate) fn say_goodbye(&mut self) {
        if self.clean && !mem::replace(&mut self.said_goodbye, true) {
            self.wire.write_now(QUIT.as_bytes());
        }
    }

    /// Waits for the answer to the goodbye, so that the server does not find the connection gone while it answers.
    pub(crate) async fn hear_goodbye(mut self, config: &Config) {
        let _ = self.wire.reply(config.timeouts.quit).await;
    }
}

const QUIT: &str = "QUIT\r\n";

/// A client must not close a connection before it has said QUIT (RFC 5321 section 4.1.1.10): so whichever way a connection ends on
/// which that can be said, it is said.
impl Drop for Session {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

fn no_starttls() -> SmtpError {
    let what = "the server does not offer STARTTLS, and without encryption nothing is sent to it";
    SmtpError::unasked(Stage::StartTls, Fault::Misconfigured(what))
}

async fn connect(config: &Config) -> Result<TcpStream, Fault> {
    let limit = config.timeouts.connect;
    let found = timeout(limit, lookup_host((config.host.as_str(), config.port))).await;
    let addresses = found.map_err(|_| Fault::Timeout(limit))?.map_err(Fault::Io)?;
    let mut fault = Fault::Io(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Each write here is a whole thought. Held back until the last one is acknowledged, as TCP does by itself, it
                // would cost a delayed acknowledgement (40 ms on Linux) for each message.
                tcp.set_nodelay(true).map_err(Fault::Io)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => fault = Fault::Io(error),
            Err(_) => fault = Fault::Timeout(limit),
        }
    }
    Err(fault)
}

/// The host's name, where it looks like one that the world knows, else the connection's own address.
fn own_name(wire: &Wire) -> ClientId {
    let qualified = |name: &str| name.contains('.') && name.bytes().all(|byte| byte.is_ascii_graphic());
    match (ClientId::default(), wire.tcp().and_then(|tcp| tcp.local_addr().ok()).map(|local| local.ip())) {
        (ClientId::Domain(name), _) if qualified(&name) => ClientId::Domain(name),
        (_, Some(std::net::IpAddr::V4(address))) => ClientId::Ipv4(address),
        (_, Some(std::net::IpAddr::V6(address))) => ClientId::Ipv6(address),
        (_, None) => ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::reply;

    #[test]
    fn reads_what_is_offered() {
        let offers = Offers::read(&reply(
            "250-mx.example\n250-pipelining\n250-SIZE 1000\n250-AUTH=LOGIN\n250-AUTH PLAIN\n250-8BITMIME\n250 SMTPUTF8",
        ));
        let auth = vec!["LOGIN".to_owned(), "PLAIN".to_owned()];
        let size = Some(Some(1000));
        assert_eq!(offers, Offers { pipelining: true, eight_bit: true, utf8: true, starttls: false, size, auth });
    }

    #[test]
    fn the_first_line_is_a_name_and_no_offer() {
        assert_eq!(Offers::read(&reply("250 PIPELINING")), Offers::default());
        assert_eq!(Offers::read(&reply("250-mx\n250 SIZE 0")).size, Some(None));
    }
}
