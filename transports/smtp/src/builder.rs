//! Building a transport.

use std::net::IpAddr;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use postrider_transport::Mime;

use crate::auth;
use crate::config::{Config, PoolLimits};
use crate::tls::TlsClient;
use crate::{AuthMechanism, Credentials, Rule, Smtp, SmtpConfigError, Timeouts, Tls};

/// Configures an [`Smtp`] transport. [`build`](Self::build) checks everything.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build is called"]
pub struct SmtpBuilder {
    host: String,
    port: Option<u16>,
    tls: Option<Tls>,
    roots: Vec<Vec<u8>>,
    credentials: Option<Credentials>,
    mechanism: Option<AuthMechanism>,
    ehlo_name: Option<String>,
    limits: PoolLimits,
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
            ehlo_name: None,
            limits: PoolLimits {
                max_connections: 32,
                max_messages: 100,
                max_age: Duration::from_secs(300),
                idle_timeout: Duration::from_secs(60),
            },
            timeouts: Timeouts::default(),
            rules: Vec::new(),
            mime: Mime::new(),
        }
    }

    /// Sets the port. Default: 465 with [`Tls::Implicit`]; otherwise 587 with credentials (RFC 6409) and 25 without.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets when a connection is encrypted. Default: [`Tls::Required`], or [`Tls::Opportunistic`] to this machine.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Adds one or more root certificates in PEM form to those of the platform. Further calls add more.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Sets the user name and the password. Default: none; the server must accept mail from this machine's address.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets the AUTH mechanism. Default: the first of PLAIN and LOGIN that the server offers.
    pub fn auth_mechanism(mut self, mechanism: AuthMechanism) -> Self {
        self.mechanism = Some(mechanism);
        self
    }

    /// Sets the name for `EHLO`: this machine's name in the public DNS, or an address in brackets. Default: the machine's name if
    /// it has a dot, else the local address of the connection (RFC 5321 section 4.1.4).
    pub fn hello_name(mut self, name: impl Into<String>) -> Self {
        self.ehlo_name = Some(name.into());
        self
    }

    /// Sets how many connections may be open at once. Further calls wait. Default: 32.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits.max_connections = count;
        self
    }

    /// Sets how many messages a connection carries before it is closed. Default: 100, which most servers allow.
    pub fn max_messages_per_connection(mut self, count: u32) -> Self {
        self.limits.max_messages = count;
        self
    }

    /// Sets how long a connection is used after it was opened. A message under way is finished first. Default: 5 minutes, so that
    /// the transport notices DNS changes.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.limits.max_age = age;
        self
    }

    /// Sets how long a connection may be idle before it is closed. Zero closes it after each message. Default: 1 minute, less
    /// than the limits of most servers.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Sets how long each stage may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Adds a rule that says what some refusals of this server mean. These rules come before those of this crate, in the order of
    /// the calls.
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

    /// Builds the transport. It does not connect; [`Smtp::check_connection`] does.
    ///
    /// # Errors
    /// A setting is invalid, or, with TLS, the root certificates of this machine cannot be read.
    pub fn build(self) -> Result<Smtp, SmtpConfigError> {
        for (what, value) in [
            ("the number of connections", self.limits.max_connections),
            ("the number of messages for each connection", self.limits.max_messages as usize),
        ] {
            if value == 0 {
                return Err(SmtpConfigError::Zero { what });
            }
        }
        if self.mechanism.is_some() && self.credentials.is_none() {
            return Err(SmtpConfigError::NoCredentials);
        }
        if let Some(Credentials { username, secret }) = &self.credentials {
            // Fields are separated by NUL in PLAIN (RFC 4616 section 2), and by another control character in XOAUTH2.
            if username.is_empty() || username.chars().chain(secret.chars()).any(char::is_control) {
                return Err(SmtpConfigError::Credentials);
            }
            if !auth::fits_response(username, secret) {
                return Err(SmtpConfigError::CredentialsTooLong);
            }
        }
        let host = parse_host(&self.host)?;
        let tls = self.tls.unwrap_or(if is_loopback(&host) { Tls::Opportunistic } else { Tls::Required });
        let tls_client = match tls {
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
            tls_client,
            credentials: self.credentials,
            mechanism: self.mechanism,
            ehlo_name: self.ehlo_name.map(check_ehlo_name).transpose()?,
            timeouts: self.timeouts,
            limits: self.limits,
            rules: self.rules.into(),
        };
        Ok(Smtp::new(config, self.mime))
    }
}

/// Returns the host in ASCII. An IPv6 address comes without brackets.
fn parse_host(text: &str) -> Result<String, SmtpConfigError> {
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

/// Refuses spaces and line breaks, which would make a second command.
fn check_ehlo_name(name: String) -> Result<ClientId, SmtpConfigError> {
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SmtpConfigError::HelloName);
    }
    Ok(ClientId::Domain(name))
}
