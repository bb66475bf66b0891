//! The URL that configures the transport, for environment variables.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use postrider_transport::{TransportUrl, mask_addresses};
pub use postrider_transport::{UrlError, UrlErrorKind};

use crate::config::Config;
use crate::{AuthMechanism, Credentials, Smtp, SmtpBuilder, SmtpConfigError, Tls};

impl From<UrlError> for SmtpConfigError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

pub(crate) fn parse(text: &str) -> Result<SmtpBuilder, SmtpConfigError> {
    let mut url = TransportUrl::parse(text, &["smtp", "smtps"])?;
    let mut builder = Smtp::builder(url.host());
    if let Some(port) = url.port() {
        builder = builder.port(port);
    }
    match (url.username(), url.password()) {
        (Some(username), password) => {
            builder = builder.credentials(Credentials::new(username, password.unwrap_or_default()));
        }
        (None, Some(_)) => return Err(url.error(UrlErrorKind::Other("has a password without a user name")).into()),
        (None, None) => {}
    }
    let tls = [("required", Tls::Required), ("opportunistic", Tls::Opportunistic), ("none", Tls::None)];
    match (url.scheme(), url.choice("tls", &tls)?) {
        ("smtps", None) => builder = builder.tls(Tls::Implicit),
        ("smtps", Some(_)) => {
            return Err(url.error(UrlErrorKind::Other("has the option tls, which smtps:// does not take")).into());
        }
        (_, Some(tls)) => builder = builder.tls(tls),
        (_, None) => {}
    }
    if let Some(count) = url.parsed("pool", "a number")? {
        builder = builder.max_connections(count);
    }
    if let Some(name) = url.option("helo") {
        builder = builder.hello_name(name);
    }
    let root_file = url.option("ca");
    let mechanisms =
        [("plain", AuthMechanism::Plain), ("login", AuthMechanism::Login), ("xoauth2", AuthMechanism::XOAuth2)];
    if let Some(mechanism) = url.choice("auth", &mechanisms)? {
        builder = builder.auth_mechanism(mechanism);
    }
    url.finish()?;
    if let Some(path) = root_file {
        let pem = std::fs::read(path).map_err(|error| SmtpConfigError::RootCertificateFile(error.kind()))?;
        builder = builder.root_certificate(pem);
    }
    Ok(builder)
}

/// Characters that a user name keeps as they are, to be easy to read.
const USERNAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'+');

/// The URL without the password, and with mail addresses masked.
pub(crate) fn redacted(config: &Config) -> String {
    let (scheme, tls) = match config.tls {
        Tls::Implicit => ("smtps", ""),
        Tls::Required => ("smtp", "?tls=required"),
        Tls::Opportunistic => ("smtp", "?tls=opportunistic"),
        Tls::None => ("smtp", "?tls=none"),
    };
    let user = config.credentials.as_ref().map_or_else(String::new, |credentials| {
        let name = mask_addresses(&credentials.username);
        format!("{}:***@", utf8_percent_encode(&name, USERNAME))
    });
    let host = if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    format!("{scheme}://{user}{host}:{}{tls}", config.port)
}

#[cfg(test)]
mod tests;
