//! A transport in one line, for environment variables.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use postrider_transport::mask_addresses;
use url::Url;

use crate::config::Config;
use crate::{AuthMechanism, Credentials, Smtp, SmtpBuilder, SmtpConfigError, Tls};

/// What need not be encoded in a user name, and would only make it harder to read.
const USERNAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'+');

/// Why a URL cannot be read. It repeats no part of the URL, save the name of a known key: a password that is not
/// percent-encoded may end up in any part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL.
    Malformed,
    /// The scheme is neither `smtp` nor `smtps`.
    Scheme,
    /// There is no host.
    NoHost,
    /// The port is not a number from 1 to 65535.
    Port,
    /// There is a path, or a `#`. A `/`, `?` or `#` in a password must be percent-encoded.
    Path,
    /// The user name or password is not UTF-8 once decoded, or holds a control character.
    Credentials,
    /// There is a password without a user name.
    NoUsername,
    /// A key after the `?` is not one of those in the manual.
    UnknownKey,
    /// A key is given twice.
    Twice {
        /// The key.
        key: &'static str,
    },
    /// The value of a key is not one of those in the manual.
    Value {
        /// The key.
        key: &'static str,
    },
    /// `smtps` is encrypted from the first octet on: there is nothing to choose.
    TlsForSmtps,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the SMTP URL ")?;
        match self {
            Self::Malformed => f.write_str("is not a URL"),
            Self::Scheme => f.write_str("must begin with smtp:// or smtps://"),
            Self::NoHost => f.write_str("has no host"),
            Self::Port => f.write_str(
                "has a port that is not a number from 1 to 65535; is a character of the password not encoded?",
            ),
            Self::Path => {
                f.write_str("has a path or a fragment; in a password, /, ? and # must be written %2F, %3F and %23")
            }
            Self::Credentials => f.write_str("has a user name or password that is not text once decoded"),
            Self::NoUsername => f.write_str("has a password without a user name"),
            Self::UnknownKey => f.write_str("has an unknown key; known are tls, pool, helo, ca and auth"),
            Self::Twice { key } => write!(f, "has the key {key} twice"),
            Self::Value { key } => write!(f, "has a value for {key} that cannot be used; it must be {}", expected(key)),
            Self::TlsForSmtps => f.write_str("has the key tls, which smtps:// does not take"),
        }
    }
}

impl std::error::Error for UrlError {}

impl From<UrlError> for SmtpConfigError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

const KEYS: [&str; 5] = ["tls", "pool", "helo", "ca", "auth"];

fn expected(key: &str) -> &'static str {
    match key {
        "tls" => "required, opportunistic or none",
        "auth" => "plain, login or xoauth2",
        "pool" => "a number",
        _ => "text",
    }
}

pub(crate) fn parse(text: &str) -> Result<SmtpBuilder, SmtpConfigError> {
    let url = Url::parse(text.trim()).map_err(|error| match error {
        url::ParseError::InvalidPort => UrlError::Port,
        url::ParseError::EmptyHost => UrlError::NoHost,
        _ => UrlError::Malformed,
    })?;
    let implicit = match url.scheme() {
        "smtp" => false,
        "smtps" => true,
        _ => return Err(UrlError::Scheme.into()),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlError::NoHost)?;
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(UrlError::Path.into());
    }
    let mut builder = Smtp::builder(decode(host)?);
    match url.port() {
        Some(0) => return Err(UrlError::Port.into()),
        Some(port) => builder = builder.port(port),
        None => {}
    }
    if implicit {
        builder = builder.tls(Tls::Implicit);
    }
    match (decode(url.username())?, url.password()) {
        (username, Some(password)) if !username.is_empty() => {
            builder = builder.credentials(Credentials::new(username, decode(password)?));
        }
        (username, None) if username.is_empty() => {}
        (username, None) => builder = builder.credentials(Credentials::new(username, "")),
        (_, Some(_)) => return Err(UrlError::NoUsername.into()),
    }
    let mut seen = Vec::new();
    for (key, value) in url.query_pairs() {
        let key = KEYS.into_iter().find(|known| *known == key).ok_or(UrlError::UnknownKey)?;
        if seen.contains(&key) {
            return Err(UrlError::Twice { key }.into());
        }
        seen.push(key);
        if key == "tls" && implicit {
            return Err(UrlError::TlsForSmtps.into());
        }
        builder = apply(builder, key, &value)?;
    }
    Ok(builder)
}

fn apply(builder: SmtpBuilder, key: &'static str, value: &str) -> Result<SmtpBuilder, SmtpConfigError> {
    Ok(match (key, value) {
        ("tls", "required") => builder.tls(Tls::Required),
        ("tls", "opportunistic") => builder.tls(Tls::Opportunistic),
        ("tls", "none") => builder.tls(Tls::None),
        ("auth", "plain") => builder.auth_mechanism(AuthMechanism::Plain),
        ("auth", "login") => builder.auth_mechanism(AuthMechanism::Login),
        ("auth", "xoauth2") => builder.auth_mechanism(AuthMechanism::XOAuth2),
        ("helo", name) => builder.hello_name(name),
        ("pool", count) => builder.max_connections(count.parse().map_err(|_| UrlError::Value { key })?),
        ("ca", path) => {
            let pem = std::fs::read(path).map_err(|error| SmtpConfigError::RootCertificateFile(error.kind()))?;
            builder.root_certificate(pem)
        }
        _ => return Err(UrlError::Value { key }.into()),
    })
}

fn decode(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Credentials)?;
    if decoded.chars().any(char::is_control) {
        return Err(UrlError::Credentials);
    }
    Ok(decoded.into_owned())
}

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
