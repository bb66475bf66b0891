//! What every provider's transport is told, and what can be wrong with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt as _;
use url::{Host, Url};

use crate::exchange::Exchange;
use crate::{Http, Provider};

/// How long each stage of a request may take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// To look the name up, connect and agree on encryption. Default: 15 seconds.
    pub connect: Duration,
    /// Until the whole request is written, connecting included. What exceeds it is certainly not sent. Default: 2 minutes.
    pub request: Duration,
    /// From then on until the answer begins, and again until it ends. What exceeds it is **in doubt**, so that to give up early means
    /// to send twice. Default: 2 minutes.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self { connect: Duration::from_secs(15), request: minutes(2), answer: minutes(2) }
    }
}

/// How long a connection waits for a next message. Below the patience of the servers, so that none is closed just as it is used
/// again, which would leave the message in doubt.
const IDLE: Duration = Duration::from_secs(15);

/// Collects what [`Http`] needs besides the provider's own settings.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build is called"]
pub struct HttpBuilder<P> {
    provider: P,
    base_url: Option<String>,
    timeouts: Timeouts,
}

impl<P: Provider> HttpBuilder<P> {
    pub(crate) fn new(provider: P) -> Self {
        Self { provider, base_url: None, timeouts: Timeouts::default() }
    }

    /// Where the API is, in place of the provider's own address: `https://` and a host, and a path that goes before the API's own. Only to
    /// this very machine may it be `http://`.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// How long each stage may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Checks, and makes the transport. It connects to nothing yet.
    ///
    /// # Errors
    /// When the base URL will not do, or this machine's root certificates cannot be read.
    pub fn build(self) -> Result<Http<P>, HttpConfigError> {
        let base = base(self.base_url.as_deref().unwrap_or(self.provider.base_url()))?;
        let client = client(&self.timeouts, base.scheme() == "https")?;
        let exchange = Exchange { provider: P::NAME, client, base, timeouts: self.timeouts };
        Ok(Http::from_parts(self.provider, exchange))
    }
}

/// Without its last slash the last part of a path would be replaced.
fn base(text: &str) -> Result<Url, HttpConfigError> {
    let mut url = Url::parse(text).map_err(|_| HttpConfigError::BaseUrl)?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    match url.scheme() {
        _ if !plain || url.host().is_none() => return Err(HttpConfigError::BaseUrl),
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(HttpConfigError::Insecure),
        _ => return Err(HttpConfigError::BaseUrl),
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn client(timeouts: &Timeouts, encrypted: bool) -> Result<reqwest::Client, HttpConfigError> {
    let trust = |error: &dyn fmt::Display| HttpConfigError::Trust(error.to_string());
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| trust(&error))?
        .with_platform_verifier()
        .map_err(|error| trust(&error))?
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(timeouts.connect)
        .pool_idle_timeout(IDLE)
        // Some providers refuse requests that do not say what sends them.
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")));
    // A proxy would be shown the key and the mail, which are in clear only because they do not leave this machine.
    let client = if encrypted { client } else { client.no_proxy() };
    client.build().map_err(|error| trust(&error))
}

/// Why a transport cannot be built. It repeats no part of a key or a URL, save the name of a known setting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// A key is empty, or has a character that no header can hold; a line break at its end is a usual one.
    Secret,
    /// An environment variable is not set, or is not text.
    Env {
        /// Its name.
        name: &'static str,
    },
    /// A setting has a value that cannot be used.
    Value {
        /// Which one.
        setting: &'static str,
        /// What it may be.
        expected: String,
    },
    /// The base URL is not `https://` with a host, or has a user name, a query or a fragment.
    BaseUrl,
    /// The base URL is `http://`, and not of this very machine: the key would travel in clear.
    Insecure,
    /// The transport's URL is no URL. A `/`, `?`, `#`, `:` or `@` in a key must be percent-encoded.
    Url,
    /// The transport's URL begins with another provider's name.
    Scheme,
    /// The transport's URL lacks a part.
    Missing {
        /// Which one.
        what: &'static str,
    },
    /// The transport's URL has more before the `@` than this provider takes.
    Surplus,
    /// The transport's URL has a setting that this provider does not know, or one twice.
    UnknownSetting {
        /// Those that it knows.
        known: Vec<String>,
    },
    /// The platform's root certificates cannot be used.
    Trust(String),
}

impl fmt::Display for HttpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret => {
                f.write_str("a key is empty, or has a space, a line break or another character that none has")
            }
            Self::Env { name } => write!(f, "the environment variable {name} is not set"),
            Self::Value { setting, expected } => {
                write!(f, "the setting {setting} has a value that cannot be used; it must be {expected}")
            }
            Self::BaseUrl => f.write_str("the base URL must be https:// and a host, without user name, ? and #"),
            Self::Insecure => f.write_str("the base URL must be https://, or the key would travel in clear"),
            Self::Url => f.write_str("it is no URL; in a key, /, ?, #, : and @ must be percent-encoded"),
            Self::Scheme => f.write_str("the URL is of another provider"),
            Self::Missing { what } => write!(f, "the URL lacks {what}"),
            Self::Surplus => f.write_str("the URL has more before the @ than this provider takes"),
            Self::UnknownSetting { known } if known.is_empty() => {
                f.write_str("the URL has a setting after the ?, and this provider has none")
            }
            Self::UnknownSetting { known } => {
                write!(f, "the URL has a setting that is not known, or one twice; known are {}", known.join(", "))
            }
            Self::Trust(reason) => write!(f, "the root certificates of this machine cannot be used: {reason}"),
        }
    }
}

impl std::error::Error for HttpConfigError {}

/// An environment variable that must be there.
#[allow(dead_code, reason = "without a provider nothing is read")]
pub(crate) fn env(name: &'static str) -> Result<String, HttpConfigError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(HttpConfigError::Env { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_travels_in_clear_to_this_machine_only() {
        for url in ["https://api.example.com", "http://127.0.0.1:8080", "http://localhost/mock", "http://[::1]:1"] {
            assert!(base(url).is_ok(), "{url}");
        }
        for url in
            ["http://api.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "http://localhost.example"]
        {
            assert_eq!(base(url), Err(HttpConfigError::Insecure), "{url}");
        }
        for url in ["", "api.example.com", "ftp://localhost", "https://", "https://u:p@h", "https://h?x", "https://h#x"]
        {
            assert_eq!(base(url), Err(HttpConfigError::BaseUrl), "{url}");
        }
    }
}
