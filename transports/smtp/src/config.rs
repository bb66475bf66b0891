//! What a transport is told, once it has been checked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;

use crate::tls::TlsClient;
use crate::{Rule, Tls};

/// A user name and its password, or its token for XOAUTH2. `Debug` hides both.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) username: String,
    pub(crate) secret: String,
}

impl Credentials {
    /// Takes both as they are, not percent-encoded.
    pub fn new(username: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { username: username.into(), secret: secret.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How the credentials are shown to the server (RFC 4954).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMechanism {
    /// PLAIN (RFC 4616). The first choice where none is asked for.
    Plain,
    /// LOGIN, which was never standardised and is all that some servers offer. The second choice.
    Login,
    /// XOAUTH2, of Google and Microsoft, with an access token in place of the password. Only where asked for. A token expires;
    /// to give a new one, build a new transport.
    XOAuth2,
}

/// How long each stage may take. What exceeds its limit fails, and the connection is given up.
///
/// The defaults are those of RFC 5321 section 4.5.3.2 where it names one. They are long, and meant to be: to give up early on
/// the last reply means to send a message twice.
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
    /// To look the name up, and then to connect to each of its addresses. Default: 30 seconds.
    pub connect: Duration,
    /// Until the server greets. Default: 5 minutes (section 4.5.3.2.1).
    pub greeting: Duration,
    /// Until the reply to `EHLO`, `STARTTLS` or `RSET`. Default: 5 minutes.
    pub hello: Duration,
    /// For the handshake of TLS. Default: 1 minute.
    pub handshake: Duration,
    /// Until each reply in `AUTH`. Default: 3 minutes; RFC 4954 names none, and a server may ask a directory.
    pub auth: Duration,
    /// Until the reply to `MAIL FROM`. Default: 5 minutes (section 4.5.3.2.2).
    pub mail: Duration,
    /// Until the reply to each `RCPT TO`. Default: 5 minutes (section 4.5.3.2.3).
    pub rcpt: Duration,
    /// Until the reply to `DATA`. Default: 2 minutes (section 4.5.3.2.4).
    pub data: Duration,
    /// Until the server takes the next block of the message, or of commands. Default: 3 minutes (section 4.5.3.2.5).
    pub block: Duration,
    /// Until the reply to the end of the message. What exceeds it is **in doubt**. Default: 10 minutes (section 4.5.3.2.6).
    pub accept: Duration,
    /// Until the reply to `QUIT`, for which no message waits. Default: 5 seconds.
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
    /// The defaults, where they are not above `limit`, and else `limit`.
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

/// Everything that a connection is made from.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Tls,
    /// Present unless `tls` is none.
    pub(crate) client: Option<TlsClient>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) mechanism: Option<AuthMechanism>,
    /// Where none is given, each connection finds one.
    pub(crate) hello: Option<ClientId>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// Asked before our own.
    pub(crate) rules: Arc<[Rule]>,
}

/// How many connections there are, and how long each lives.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) messages: u32,
    pub(crate) age: Duration,
    pub(crate) idle: Duration,
}

/// Why a transport cannot be built. It repeats nothing of a URL or of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmtpConfigError {
    /// The URL cannot be read.
    Url(crate::UrlError),
    /// The host is missing, or is neither a name nor an IP address.
    Host,
    /// The name for `EHLO` is not printable ASCII without spaces, or is empty.
    HelloName,
    /// An extra root certificate is not PEM, or there is none in it.
    RootCertificate,
    /// A file with a root certificate cannot be read.
    RootCertificateFile(std::io::ErrorKind),
    /// The platform's root certificates cannot be used.
    Trust(String),
    /// A number that must be at least 1 is 0.
    Zero {
        /// Which one.
        what: &'static str,
    },
    /// A mechanism for credentials is asked for, and there are none.
    NoCredentials,
    /// The user name is empty, or the user name or password holds a control character, which the mechanisms use as a mark.
    Credentials,
    /// The user name and the password are longer than a line of AUTH may be (RFC 4954 section 4: 12,288 octets in base64).
    CredentialsTooLong,
}

impl fmt::Display for SmtpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Host => f.write_str("the SMTP host is missing, or is neither a name nor an IP address"),
            Self::HelloName => f.write_str("the name for EHLO must be printable ASCII without spaces"),
            Self::RootCertificate => f.write_str("a root certificate is not a certificate in PEM form"),
            Self::RootCertificateFile(kind) => write!(f, "the file of the root certificate cannot be read: {kind}"),
            Self::Trust(reason) => write!(f, "the root certificates of this machine cannot be used: {reason}"),
            Self::Zero { what } => write!(f, "{what} must be at least 1"),
            Self::Credentials => {
                f.write_str("the user name is empty, or there is a control character in the credentials")
            }
            Self::CredentialsTooLong => f.write_str("the credentials are longer than SMTP can carry"),
            Self::NoCredentials => f.write_str("an AUTH mechanism is asked for, but there are no credentials"),
        }
    }
}

impl std::error::Error for SmtpConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            _ => None,
        }
    }
}
