//! Settings that all providers share, and their errors.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt as _;
use url::{Host, Url};

use crate::client::ApiClient;
use crate::{Http, Provider};

/// Time limits for the stages of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Limit for the DNS lookup, the connection and the TLS handshake. Default: 15 seconds.
    pub connect: Duration,
    /// Limit for writing the whole request, connecting included. A message that exceeds it is not sent. Default: 2 minutes.
    pub request: Duration,
    /// Limit from the end of the request to the start of the response, and again to its end. Default: 2 minutes.
    ///
    /// A message that exceeds it is **in doubt**, so a short limit causes duplicates.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self { connect: Duration::from_secs(15), request: minutes(2), response: minutes(2) }
    }
}

/// How long an idle connection stays open.
///
/// Servers keep theirs open for longer. A server that closes a connection just as it is reused would leave the message in doubt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Builder of an [`Http`] transport, for the settings that all providers share.
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

    /// Replaces the provider's base URL.
    ///
    /// The URL has the scheme `https` and a host, and may have a path, which is put before the API's paths. The scheme `http` is
    /// allowed only for a loopback host.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// Sets the time limits.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Checks the settings and creates the transport. It does not connect yet.
    ///
    /// # Errors
    /// If the base URL is invalid, or the root certificates of this machine cannot be read.
    pub fn build(self) -> Result<Http<P>, HttpConfigError> {
        let base = parse_base_url(self.base_url.as_deref().unwrap_or(self.provider.base_url()))?;
        let http = http_client(&self.timeouts, base.scheme() == "https")?;
        let client = ApiClient { provider: P::NAME, http, base, timeouts: self.timeouts };
        Ok(Http::from_parts(self.provider, client))
    }
}

/// Parses a base URL and adds a final slash, without which `Url::join` would replace the last segment of the path.
fn parse_base_url(text: &str) -> Result<Url, HttpConfigError> {
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

fn http_client(timeouts: &Timeouts, is_https: bool) -> Result<reqwest::Client, HttpConfigError> {
    let invalid_roots = |error: &dyn fmt::Display| HttpConfigError::RootCertificates(error.to_string());
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid_roots(&error))?
        .with_platform_verifier()
        .map_err(|error| invalid_roots(&error))?
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(timeouts.connect)
        .pool_idle_timeout(IDLE_TIMEOUT)
        // Some providers refuse requests without a User-Agent.
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")));
    // Without TLS a proxy would see the key and the mail.
    let client = if is_https { client } else { client.no_proxy() };
    client.build().map_err(|error| invalid_roots(&error))
}

/// Why a transport cannot be built.
///
/// The texts contain no part of a key or a URL, except the name of a known setting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// A key is empty or contains a character that no key has. A common case is a line break at the end.
    Secret,
    /// An environment variable is not set, is empty, or is not text.
    Env {
        /// Name of the variable.
        name: &'static str,
    },
    /// A setting has an invalid value.
    Value {
        /// Name of the setting.
        setting: &'static str,
        /// The valid values.
        expected: String,
    },
    /// The base URL is not an `https` URL with a host, or has a user name, a query or a fragment.
    BaseUrl,
    /// The base URL is an `http` URL of another machine, so the key would be sent unencrypted.
    Insecure,
    /// The transport's URL is not a valid URL. A `/`, `?`, `#`, `:` or `@` in a key must be percent-encoded.
    Url,
    /// The scheme of the transport's URL is not the provider's name.
    Scheme,
    /// The transport's URL lacks a part.
    Missing {
        /// The missing part.
        what: &'static str,
    },
    /// The transport's URL has more credentials before the `@` than this provider uses.
    ExtraCredentials,
    /// The transport's URL has an unknown setting.
    UnknownSetting {
        /// The known settings.
        known: Vec<String>,
    },
    /// The root certificates of this machine cannot be used.
    RootCertificates(String),
}

impl fmt::Display for HttpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret => {
                f.write_str("a key is empty or contains a space, a line break or another invalid character")
            }
            Self::Env { name } => write!(f, "the environment variable {name} is not set"),
            Self::Value { setting, expected } => {
                write!(f, "the value of the setting {setting} is invalid; it must be {expected}")
            }
            Self::BaseUrl => {
                f.write_str("the base URL must be https:// and a host, without a user name, a query or a fragment")
            }
            Self::Insecure => f.write_str("the base URL must be https://, otherwise the key would be sent unencrypted"),
            Self::Url => f.write_str("the URL is invalid; in a key, /, ?, #, : and @ must be percent-encoded"),
            Self::Scheme => f.write_str("the scheme of the URL is not the name of this provider"),
            Self::Missing { what } => write!(f, "the URL lacks {what}"),
            Self::ExtraCredentials => f.write_str("the URL has more credentials before the @ than this provider uses"),
            Self::UnknownSetting { known } if known.is_empty() => {
                f.write_str("the URL has a setting after the ?, but this provider has none")
            }
            Self::UnknownSetting { known } => {
                write!(f, "the URL has an unknown setting; known are {}", known.join(", "))
            }
            Self::RootCertificates(reason) => {
                write!(f, "the root certificates of this machine cannot be used: {reason}")
            }
        }
    }
}

impl std::error::Error for HttpConfigError {}

/// Reads a required environment variable.
#[allow(dead_code, reason = "unused without a provider feature")]
pub(crate) fn read_env(name: &'static str) -> Result<String, HttpConfigError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(HttpConfigError::Env { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_allowed_for_loopback_hosts_only() {
        for url in ["https://api.example.com", "http://127.0.0.1:8080", "http://localhost/mock", "http://[::1]:1"] {
            assert!(parse_base_url(url).is_ok(), "{url}");
        }
        for url in
            ["http://api.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "http://localhost.example"]
        {
            assert_eq!(parse_base_url(url), Err(HttpConfigError::Insecure), "{url}");
        }
        for url in ["", "api.example.com", "ftp://localhost", "https://", "https://u:p@h", "https://h?x", "https://h#x"]
        {
            assert_eq!(parse_base_url(url), Err(HttpConfigError::BaseUrl), "{url}");
        }
    }
}
