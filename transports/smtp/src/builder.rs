//! Telling a transport what it needs to know.

use std::net::IpAddr;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use postrider_transport::Mime;

use crate::auth;
use crate::config::{Config, Limits};
use crate::tls::TlsClient;
use crate::{AuthMechanism, Credentials, Rule, Smtp, SmtpConfigError, Timeouts, Tls};

/// Collects what [`Smtp`] needs. What is wrong comes out of [`build`](Self::build).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build is called"]
pub struct SmtpBuilder {
    host: String,
    port: Option<u16>,
    tls: Option<Tls>,
    roots: Vec<Vec<u8>>,
    credentials: Option<Credentials>,
    mechanism: Option<AuthMechanism>,
    hello: Option<String>,
    limits: Limits,
    timeouts: Timeouts,
    rules: Vec<Rule>,
    mime: Mime,
}

impl SmtpBuilder {
    pub(crate) fn new(host: String) -> Self {
        Self {
            host,
            port: None,
            tls: None,
            roots: Vec::new(),
            credentials: None,
            mechanism: None,
            hello: None,
            limits: Limits {
                connections: 32,
                messages: 100,
                age: Duration::from_secs(300),
                idle: Duration::from_secs(60),
            },
            timeouts: Timeouts::default(),
            rules: Vec::new(),
            mime: Mime::new(),
        }
    }

    /// The port. Default: 465 with [`Tls::Implicit`]; else 587 with credentials (RFC 6409) and 25 without.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// When the connection is encrypted. Default: [`Tls::Required`], and to this very machine [`Tls::Opportunistic`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Trusts one more root, or several, in PEM form, beside those of the platform. May be called more than once.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Who to be. Default: nobody; the server must then take mail from this address.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// How to show the credentials. Default: the first of PLAIN and LOGIN that the server offers.
    pub fn auth_mechanism(mut self, mechanism: AuthMechanism) -> Self {
        self.mechanism = Some(mechanism);
        self
    }

    /// The name for `EHLO`: this machine's name in the public DNS, or an address in brackets. Default: the host's own name
    /// where it has a dot in it, else the connection's own address (RFC 5321 section 4.1.4).
    pub fn hello_name(mut self, name: impl Into<String>) -> Self {
        self.hello = Some(name.into());
        self
    }

    /// How many connections may be open at once. A call beyond it waits. Default: 32.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits.connections = count;
        self
    }

    /// How many messages go through one connection before it is closed. Default: 100, which most servers allow.
    pub fn max_messages_per_connection(mut self, count: u32) -> Self {
        self.limits.messages = count;
        self
    }

    /// How long a connection is used, from the time it was opened; it ends with the message that it carries then. Default: 5
    /// minutes, so that a change in the DNS is noticed.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.limits.age = age;
        self
    }

    /// How long a connection waits for a next message before it is closed. Zero: not at all. Default: 1 minute, which is below
    /// the patience of most servers.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.limits.idle = idle;
        self
    }

    /// How long each stage may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Says what certain refusals of this server mean, before the rules of this crate are asked. Called again, the earlier rule
    /// comes first.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Signs each mail.
    #[cfg(feature = "dkim")]
    pub fn dkim(mut self, dkim: postrider_transport::Dkim) -> Self {
        self.mime = self.mime.with_dkim(dkim);
        self
    }

    /// Checks, and makes the transport. It connects to nothing yet; [`Smtp::check_connection`] does.
    ///
    /// # Errors
    /// The first thing that is wrong. With TLS, also when this machine's root certificates cannot be read.
    pub fn build(self) -> Result<Smtp, SmtpConfigError> {
        for (what, value) in [
            ("the number of connections", self.limits.connections),
            ("the number of messages for each connection", self.limits.messages as usize),
        ] {
            if value == 0 {
                return Err(SmtpConfigError::Zero { what });
            }
        }
        if self.mechanism.is_some() && self.credentials.is_none() {
            return Err(SmtpConfigError::NoCredentials);
        }
        if let Some(Credentials { username, secret }) = &self.credentials {
            // RFC 4616 section 2 parts the fields of PLAIN by NUL, XOAUTH2 parts its own by another control character.
            if username.is_empty() || username.chars().chain(secret.chars()).any(char::is_control) {
                return Err(SmtpConfigError::Credentials);
            }
            if !auth::fits(username, secret) {
                return Err(SmtpConfigError::CredentialsTooLong);
            }
        }
        let host = host(&self.host)?;
        let tls = self.tls.unwrap_or(if is_loopback(&host) { Tls::Opportunistic } else { Tls::Required });
        let client = match tls {
            Tls::None => None,
            _ => {
                let verify = tls != Tls::Opportunistic || self.credentials.is_some() || !self.roots.is_empty();
                Some(TlsClient::new(&host, &self.roots, verify)?)
            }
        };
        let default_port = match (tls, &self.credentials) {
            (Tls::Implicit, _) => 465,
            (_, Some(_)) => 587,
            (_, None) => 25,
        };
        let config = Config {
            port: self.port.unwrap_or(default_port),
            host,
            tls,
            client,
            credentials: self.credentials,
            mechanism: self.mechanism,
            hello: self.hello.map(hello).transpose()?,
            timeouts: self.timeouts,
            limits: self.limits,
            rules: self.rules.into(),
        };
        Ok(Smtp::new(config, self.mime))
    }
}

/// The host in ASCII, an IPv6 address without its brackets.
fn host(text: &str) -> Result<String, SmtpConfigError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    match url::Host::parse(text) {
        Ok(url::Host::Domain(name)) => Ok(name),
        Ok(url::Host::Ipv4(address)) => Ok(address.to_string()),
        Ok(url::Host::Ipv6(address)) => Ok(address.to_string()),
        Err(_) => Err(SmtpConfigError::Host),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A space or a line break in it would be a second command.
fn hello(name: String) -> Result<ClientId, SmtpConfigError> {
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SmtpConfigError::HelloName);
    }
    Ok(ClientId::Domain(name))
}
