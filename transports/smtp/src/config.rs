//! The configuration of a transport.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;

use crate::tls::TlsClient;
use crate::{Rule, Tls};

/// A user name and its password or XOAUTH2 token. `Debug` hides both.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) username: String,
    pub(crate) secret: String,
}

impl Credentials {
    /// Creates credentials from a user name and a password or access token, neither of them percent-encoded.
    pub fn new(username: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { username: username.into(), secret: secret.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How the client authenticates (RFC 4954).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMechanism {
    /// PLAIN (RFC 4616). The first choice by default.
    Plain,
    /// LOGIN, which has no standard. Some servers offer nothing else. The second choice by default.
    Login,
    /// XOAUTH2 of Google and Microsoft, with an access token as the password. Never used by default. A token expires; build a
    /// new transport for a new token.
    XOAuth2,
}

/// How long each stage may take. A stage that exceeds its limit fails, and its connection is closed.
///
/// The defaults are those of RFC 5321 section 4.5.3.2, where it has one. They are long for a reason: a client that does not wait
/// for the last reply sends the message twice.
///
/// ```
/// use std::time::Duration;
/// use postrider_smtp::Timeouts;
///
/// let mut timeouts = Timeouts::at_most(Duration::from_secs(60));
/// timeouts.accept = Duration::from_secs(600);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Limit for looking up the name, and again for connecting to each of its addresses. Default: 30 seconds.
    pub connect: Duration,
    /// Limit for the server's greeting. Default: 5 minutes (section 4.5.3.2.1).
    pub greeting: Duration,
    /// Limit for the reply to `EHLO`, `STARTTLS` or `RSET`. Default: 5 minutes.
    pub hello: Duration,
    /// Limit for the TLS handshake. Default: 1 minute.
    pub handshake: Duration,
    /// Limit for each reply in `AUTH`. Default: 3 minutes. RFC 4954 has no value, and a server may query a directory.
    pub auth: Duration,
    /// Limit for the reply to `MAIL FROM`. Default: 5 minutes (section 4.5.3.2.2).
    pub mail: Duration,
    /// Limit for the reply to each `RCPT TO`. Default: 5 minutes (section 4.5.3.2.3).
    pub rcpt: Duration,
    /// Limit for the reply to `DATA`. Default: 2 minutes (section 4.5.3.2.4).
    pub data: Duration,
    /// Limit for writing a block of the message or of commands. Default: 3 minutes (section 4.5.3.2.5).
    pub block: Duration,
    /// Limit for the reply to the end of the message. Beyond it, the message is **in doubt**. Default: 10 minutes (section 4.5.3.2.6).
    pub accept: Duration,
    /// Limit for the reply to `QUIT`. No message waits for it. Default: 5 seconds.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            hello: minutes(5),
            handshake: minutes(1),
            auth: minutes(3),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            accept: minutes(10),
            quit: Duration::from_secs(5),
        }
    }
}

impl Timeouts {
    /// Returns the defaults, each reduced to `limit` if it is longer.
    pub fn at_most(limit: Duration) -> Self {
        let all = Self::default();
        Self {
            connect: all.connect.min(limit),
            greeting: all.greeting.min(limit),
            hello: all.hello.min(limit),
            handshake: all.handshake.min(limit),
            auth: all.auth.min(limit),
            mail: all.mail.min(limit),
            rcpt: all.rcpt.min(limit),
            data: all.data.min(limit),
            block: all.block.min(limit),
            accept: all.accept.min(limit),
            quit: all.quit.min(limit),
        }
    }
}

/// A configuration that [`SmtpBuilder::build`](crate::SmtpBuilder::build) has checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Tls,
    /// `None` if `tls` is [`Tls::None`].
    pub(crate) tls_client: Option<TlsClient>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) mechanism: Option<AuthMechanism>,
    /// The name for `EHLO`. `None`: each connection uses the host's name or its own address.
    pub(crate) ehlo_name: Option<ClientId>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: PoolLimits,
    /// The user's rules, tried before the rules of this crate.
    pub(crate) rules: Arc<[Rule]>,
}

/// How many connections there are, and how long each is used.
#[derive(Debug, Clone)]
pub(crate) struct PoolLimits {
    pub(crate) max_connections: usize,
    /// Messages for each connection.
    pub(crate) max_messages: u32,
    pub(crate) max_age: Duration,
    /// Zero: a connection is closed after each message.
    pub(crate) idle_timeout: Duration,
}
