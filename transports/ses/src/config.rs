//! What a transport is told, and why it cannot be built.

use std::fmt;
use std::time::Duration;

/// How long each stage of a call may take. What exceeds its limit fails, and its connection is given up.
///
/// ```
/// use std::time::Duration;
/// use postrider_ses::Timeouts;
///
/// let mut timeouts = Timeouts::default();
/// timeouts.send = Duration::from_secs(60);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// To look the name up, connect, and agree upon TLS. Default: 10 seconds.
    pub connect: Duration,
    /// Until the whole request has gone out: the credentials, the connection, and the message itself. Default: 3 minutes, in
    /// which 40 MB go out at 2 Mbit/s.
    pub send: Duration,
    /// From then on, until the answer is complete. What exceeds it is **in doubt**. Default: 1 minute.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), send: Duration::from_secs(180), answer: Duration::from_secs(60) }
    }
}

/// Why a transport cannot be built. It repeats nothing of a URL or of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SesConfigError {
    /// The URL cannot be read.
    Url(crate::UrlError),
    /// No region is named, neither here nor in the environment.
    NoRegion,
    /// The region is none, such as `eu-west-1`: it has something other than lower-case letters, digits and `-`.
    Region,
    /// The configuration given has no source of credentials.
    NoCredentials,
    /// The configuration set is not named by 1 to 64 ASCII letters, digits, `_` and `-`.
    ConfigurationSet,
    /// The feedback address has a local part outside ASCII, which SES does not take.
    FeedbackAddress,
    /// The endpoint is no `https` or `http` URL without credentials, query and fragment.
    Endpoint,
    /// A time-out is zero.
    Zero {
        /// Which one.
        what: &'static str,
    },
}

impl fmt::Display for SesConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::NoRegion => f.write_str("no region is named for SES: give one, or set AWS_REGION"),
            Self::Region => f.write_str("the region for SES must be lower-case letters, digits and -"),
            Self::NoCredentials => f.write_str("the AWS configuration has no source of credentials"),
            Self::ConfigurationSet => {
                f.write_str("the configuration set must be named by 1 to 64 letters, digits, _ and -")
            }
            Self::FeedbackAddress => f.write_str("SES takes no feedback address outside ASCII"),
            Self::Endpoint => {
                f.write_str("the endpoint for SES must be an https or http URL without credentials, query and fragment")
            }
            Self::Zero { what } => write!(f, "the time-out for {what} must not be zero"),
        }
    }
}

impl std::error::Error for SesConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            _ => None,
        }
    }
}
