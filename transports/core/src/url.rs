//! The URL that configures a transport.

mod error;

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, ParseError, Url};

pub use error::{UrlError, UrlErrorKind};

/// A transport's URL, taken apart and decoded: `SCHEME://USERNAME:PASSWORD@HOST:PORT?OPTION=VALUE`.
///
/// A transport reads the parts it knows, takes each option by name, and calls [`finish`](Self::finish), which refuses every option
/// that is left.
///
/// ```
/// use postrider_transport::{TransportUrl, UrlError};
///
/// fn pager(text: &str) -> Result<(String, bool), UrlError> {
///     let mut url = TransportUrl::parse(text, &["pager"])?;
///     let urgent = url.choice("urgent", &[("true", true), ("false", false)])?;
///     let host = url.host().to_owned();
///     url.finish()?;
///     Ok((host, urgent.unwrap_or(false)))
/// }
///
/// assert_eq!(pager("pager://pager.example?urgent=true"), Ok(("pager.example".to_owned(), true)));
/// let error = pager("pager://pager.example?urgnet=true").unwrap_err();
/// assert_eq!(error.to_string(), "the pager URL has an unknown option; known are urgent");
/// ```
///
/// User name and password may hold any text. Characters that end this part of a URL must be percent-encoded: `/` as `%2F`, `?` as
/// `%3F`, `#` as `%23`, and `:` in a user name as `%3A`. In the value of an option, write `&` as `%26` and `+` as `%2B`.
///
/// `Debug` shows the scheme alone.
pub struct TransportUrl {
    schemes: &'static [&'static str],
    scheme: &'static str,
    username: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
    /// The options that are not taken yet.
    options: Vec<(String, String)>,
    /// The names of all options that were requested.
    known: Vec<&'static str>,
}

impl TransportUrl {
    /// Parses a URL of one of these schemes. The first scheme names the transport in errors. Surrounding whitespace is ignored.
    ///
    /// # Errors
    /// [`UrlError`] if the text is not such a URL, or has a path or a fragment.
    pub fn parse(text: &str, schemes: &'static [&'static str]) -> Result<Self, UrlError> {
        let error = |kind| UrlError::new(schemes, kind);
        let url = Url::parse(text.trim()).map_err(|parse_error| {
            error(match parse_error {
                ParseError::InvalidPort => UrlErrorKind::Port,
                ParseError::EmptyHost => UrlErrorKind::NoHost,
                _ => UrlErrorKind::Malformed,
            })
        })?;
        let scheme =
            *schemes.iter().find(|scheme| **scheme == url.scheme()).ok_or_else(|| error(UrlErrorKind::Scheme))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| error(UrlErrorKind::NoHost))?;
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(error(UrlErrorKind::Path));
        }
        if url.port() == Some(0) {
            return Err(error(UrlErrorKind::Port));
        }
        Ok(Self {
            schemes,
            scheme,
            username: Some(url.username()).filter(|name| !name.is_empty()).map(decode).transpose().map_err(error)?,
            password: url.password().map(decode).transpose().map_err(error)?,
            host: ascii_host(host).ok_or_else(|| error(UrlErrorKind::Host))?,
            port: url.port(),
            options: url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            known: Vec::new(),
        })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The user name, decoded. `None` if it is missing or empty.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, decoded. `None` if it is missing.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The host: a domain in lower-case ASCII (RFC 5891), an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. `None` if it is missing; never 0.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Takes the value of an option, decoded. `None` if it is missing. The error for an unknown option then
    /// lists this name.
    pub fn option(&mut self, name: &'static str) -> Option<String> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let index = self.options.iter().position(|(found, _)| found == name)?;
        Some(self.options.remove(index).1)
    }

    /// Takes an option and parses its value. `expected` describes the values that parse, for the error: `a number`.
    ///
    /// # Errors
    /// [`UrlErrorKind::InvalidValue`] if the value does not parse.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Result<Option<T>, UrlError> {
        let value = self.option(name).map(|value| value.parse()).transpose();
        value.map_err(|_| self.invalid_value(name, expected))
    }

    /// Takes an option whose value is one of these names, and returns the value paired with the name.
    ///
    /// # Errors
    /// [`UrlErrorKind::InvalidValue`] if it is another value.
    pub fn choice<T: Clone>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Result<Option<T>, UrlError> {
        let Some(value) = self.option(name) else { return Ok(None) };
        match choices.iter().find(|(choice, _)| *choice == value) {
            Some((_, chosen)) => Ok(Some(chosen.clone())),
            None => {
                let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
                let expected = match names.split_last() {
                    Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                    _ => names.concat(),
                };
                Err(self.invalid_value(name, &expected))
            }
        }
    }

    /// Checks that every option was taken.
    ///
    /// # Errors
    /// [`UrlErrorKind::DuplicateOption`] or [`UrlErrorKind::UnknownOption`] if one is left.
    pub fn finish(self) -> Result<(), UrlError> {
        let Some((left, _)) = self.options.first() else { return Ok(()) };
        Err(match self.known.iter().find(|known| *known == left) {
            Some(&option) => self.error(UrlErrorKind::DuplicateOption { option }),
            None => UrlError::new(self.schemes, UrlErrorKind::UnknownOption { known: self.known }),
        })
    }

    /// An error of this kind, for a rule that one transport adds.
    pub fn error(&self, kind: UrlErrorKind) -> UrlError {
        UrlError::new(self.schemes, kind)
    }

    /// The error for an option whose value cannot be used.
    pub fn invalid_value(&self, option: &'static str, expected: &str) -> UrlError {
        self.error(UrlErrorKind::InvalidValue { option, expected: expected.to_owned() })
    }
}

/// Decodes a user name or a password.
fn decode(text: &str) -> Result<String, UrlErrorKind> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| UrlErrorKind::Credentials)?;
    if decoded.chars().any(char::is_control) { Err(UrlErrorKind::Credentials) } else { Ok(decoded.into_owned()) }
}

/// Validates the host and converts it to ASCII. The `url` crate does this for schemes such as `https` only.
fn ascii_host(text: &str) -> Option<String> {
    let host = Host::parse(text).ok()?.to_string();
    // `Host` allows a comma, which can only separate two URLs.
    (!host.contains(',')).then_some(host)
}

impl fmt::Debug for TransportUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportUrl").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
