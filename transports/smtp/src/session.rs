//! One connection, from the greeting until it is ready for a message.

use std::time::{Duration, Instant};

use lettre::transport::smtp::commands::{Ehlo, Quit, Starttls};
use lettre::transport::smtp::extension::ClientId;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::debug;

use crate::auth;
use crate::config::Config;
use crate::error::{Fault, SmtpError, Stage};
use crate::reply::Reply;
use crate::stream::Wire;
use crate::{Tls, classify};

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
    /// Connects, encrypts, authenticates.
    pub(crate) async fn open(config: &Config) -> Result<Self, SmtpError> {
        let at = |stage: Stage| move |fault| SmtpError::new(stage, fault);
        let limits = &config.timeouts;
        let mut wire = Wire::new(connect(config).await.map_err(at(Stage::Connect))?);
        if let (Tls::Implicit, Some(client)) = (config.tls, &config.client) {
            wire = wire.encrypt(client, limits.handshake).await.map_err(at(Stage::StartTls))?;
        }
        let greeting = wire.reply(limits.greeting).await.map_err(at(Stage::Greeting))?;
        expect(Stage::Greeting, greeting)?;
        let mut offers = hello(config, &mut wire).await?;
        if let (Tls::Required | Tls::Opportunistic, Some(client)) = (config.tls, &config.client) {
            let refused = if offers.starttls {
                wire.command(&Starttls.to_string(), limits.hello).await.map_err(at(Stage::StartTls))?;
                let reply = wire.reply(limits.hello).await.map_err(at(Stage::StartTls))?;
                if reply.code() == 220 {
                    wire = wire.encrypt(client, limits.handshake).await.map_err(at(Stage::StartTls))?;
                    // What was said before the encryption, anybody may have said (RFC 3207 section 4.2).
                    offers = hello(config, &mut wire).await?;
                    None
                } else {
                    let ends = classify::ends_connection(reply.code());
                    let error = expect(Stage::StartTls, reply).err();
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
            auth::authenticate(&mut wire, &offers, credentials, config.mechanism, limits.auth).await?;
        }
        let (encrypted, pipelining) = (wire.is_encrypted(), offers.pipelining);
        debug!(host = config.host, port = config.port, encrypted, pipelining, "connected");
        Ok(Self { wire, offers, clean: true, needs_reset: false, messages: 0, born: Instant::now() })
    }

    /// Says goodbye and closes the connection without waiting for the answer.
    pub(crate) async fn leave(mut self) {
        // A few octets on a connection that was silent: if the socket does not take them at once, nobody is there to read them.
        let _ = self.wire.command(&Quit.to_string(), Duration::from_millis(10)).await;
    }

    /// Says goodbye and waits for the answer, where the connection is still in step.
    pub(crate) async fn quit(mut self, config: &Config) -> Result<(), SmtpError> {
        let limit = config.timeouts.quit;
        let at = |fault| SmtpError::new(Stage::Quit, fault);
        self.wire.command(&Quit.to_string(), limit).await.map_err(at)?;
        let reply = self.wire.reply(limit).await.map_err(at)?;
        expect(Stage::Quit, reply)
    }
}

/// A success (2yz), or else an error.
pub(crate) fn expect(stage: Stage, reply: Reply) -> Result<(), SmtpError> {
    if reply.is_positive() {
        Ok(())
    } else if reply.is_negative() {
        Err(SmtpError::new(stage, Fault::Refused(reply)))
    } else {
        Err(SmtpError::new(stage, Fault::OutOfTurn(reply)))
    }
}

fn no_starttls() -> SmtpError {
    let what = "the server does not offer STARTTLS, and without encryption nothing is sent to it";
    SmtpError::new(Stage::StartTls, Fault::Misconfigured(what))
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

async fn hello(config: &Config, wire: &mut Wire) -> Result<Offers, SmtpError> {
    let at = |fault| SmtpError::new(Stage::Hello, fault);
    let name = config.hello.clone().unwrap_or_else(|| own_name(wire));
    let limit = config.timeouts.hello;
    wire.command(&Ehlo::new(name).to_string(), limit).await.map_err(at)?;
    let reply = wire.reply(limit).await.map_err(at)?;
    let offers = Offers::read(&reply);
    expect(Stage::Hello, reply)?;
    Ok(offers)
}

/// The host's name, where it looks like one that the world knows, else the connection's own address.
fn own_name(wire: &Wire) -> ClientId {
    let qualified = |name: &str| name.contains('.') && name.bytes().all(|byte| byte.is_ascii_graphic());
    match (ClientId::default(), wire.tcp().local_addr().map(|local| local.ip())) {
        (ClientId::Domain(name), _) if qualified(&name) => ClientId::Domain(name),
        (_, Ok(std::net::IpAddr::V4(address))) => ClientId::Ipv4(address),
        (_, Ok(std::net::IpAddr::V6(address))) => ClientId::Ipv6(address),
        (_, Err(_)) => ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::reply;

    #[test]
    fn reads_what_is_offered() {
        let mut inbound = b"250-mx.example\r\n250-pipelining\r\n250-SIZE 1000\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n".to_vec();
        let offers = Offers::read(&Reply::take(&mut inbound).unwrap().unwrap());
        let auth = vec!["LOGIN".to_owned(), "PLAIN".to_owned()];
        let size = Some(Some(1000));
        assert_eq!(offers, Offers { pipelining: true, eight_bit: true, utf8: true, starttls: false, size, auth });
    }

    #[test]
    fn the_first_line_is_a_name_and_no_offer() {
        assert_eq!(Offers::read(&reply("250 PIPELINING")), Offers::default());
        let mut zero = b"250-mx\r\n250 SIZE 0\r\n".to_vec();
        assert_eq!(Offers::read(&Reply::take(&mut zero).unwrap().unwrap()).size, Some(None));
    }
}
