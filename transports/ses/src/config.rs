//! Time limits, and the errors of a configuration.

use std::fmt;
use std::time::Duration;

/// Time limits for the stages of a call. A call that exceeds one fails, and its connection is closed.
///
/// ```
/// use std::time::Duration;
/// use postrider_ses::Timeouts;
///
/// let mut timeouts = Timeouts::default();
/// timeouts.request = Duration::from_secs(60);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Limit for the DNS lookup, the connection and the TLS handshake. Default: 10 seconds.
    pub connect: Duration,
    /// Limit for writing the whole request, including credentials and connection. A message that exceeds it is not sent.
    ///
    /// Default: 3 minutes, enough for 40 MB at 2 Mbit/s.
    pub request: Duration,
    /// Limit from the end of the request to the end of the response. A message that exceeds it is **in doubt**. Default: 1 minute.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), request: Duration::from_secs(180), response: Duration::from_secs(60) }
    }
}

/// Why a transport cannot be built. The texts contain no part of a URL or of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SesConfigError {
    /// The URL is invalid.
    Url(crate::UrlError),
    /// There is no region, in the settings or in the environment.
    NoRegion,
    /// The region contains something other than lower-case letters, digits and `-`.
    Region,
    /// The AWS configuration has no credentials provider.
    NoCredentials,
    /// The name of the configuration set is not 1 to 64 ASCII letters, digits, `_` and `-`.
    ConfigurationSet,
    /// The feedback address has a local part outside ASCII, which SES does not support.
    FeedbackAddress,
    /// The endpoint is not an `https` or `http` URL, or has credentials, a query or a fragment.
    Endpoint,
    /// A time limit is zero.
    ZeroTimeout {
        /// Name of the limit.
        timeout: &'static str,
    },
}

impl fmt::Display for SesConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::NoRegion => {
                f.write_str("there is no region for SES: set one, or the environment variable AWS_REGION")
            }
            Self::Region => f.write_str("the region for SES must be lower-case letters, digits and -"),
            Self::NoCredentials => f.write_str("the AWS configuration has no credentials provider"),
            Self::ConfigurationSet => {
                f.write_str("the name of the configuration set must be 1 to 64 ASCII letters, digits, _ and -")
            }
            Self::FeedbackAddress => f.write_str("the feedback address for SES must be ASCII"),
            Self::Endpoint => {
                f.write_str("the endpoint for SES must be an https or http URL without credentials, query and fragment")
            }
            Self::ZeroTimeout { timeout } => write!(f, "the {timeout} timeout must not be zero"),
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
