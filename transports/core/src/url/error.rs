//! Why a transport's URL is refused.

use std::fmt;

/// A transport's URL was refused.
///
/// Neither `Display` nor `Debug` repeats a part of the URL, except the name of a known option: a password that is not
/// percent-encoded can end up in any part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError {
    schemes: &'static [&'static str],
    kind: UrlErrorKind,
}

/// Why a transport's URL was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlErrorKind {
    /// The text is not a URL.
    Malformed,
    /// The scheme is not one of the transport's.
    Scheme,
    /// The host is missing.
    NoHost,
    /// The host is neither a domain name nor an IP address, or the transport does not accept it.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The URL has a path or a fragment.
    Path,
    /// The user name or the password is not UTF-8 once decoded, or holds a control character.
    Credentials,
    /// The URL has an option that the transport does not know.
    UnknownOption {
        /// The options that the transport knows.
        known: Vec<&'static str>,
    },
    /// The URL has an option twice.
    DuplicateOption {
        /// The name of the option.
        option: &'static str,
    },
    /// The value of an option cannot be used.
    InvalidValue {
        /// The name of the option.
        option: &'static str,
        /// The values that can be used: `required or none`.
        expected: String,
    },
    /// The URL breaks a rule of this transport. The text continues "the smtp URL …": `has a password without a user name`.
    Other(&'static str),
}

/// The remedy for the usual cause of these errors.
const ENCODE: &str = "in a user name, password or key, write / ? # : @ as %2F %3F %23 %3A %40";

impl UrlError {
    pub(super) fn new(schemes: &'static [&'static str], kind: UrlErrorKind) -> Self {
        Self { schemes, kind }
    }

    /// The reason.
    pub fn kind(&self) -> &UrlErrorKind {
        &self.kind
    }

    /// The reason, by value.
    pub fn into_kind(self) -> UrlErrorKind {
        self.kind
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} URL ", self.schemes.first().unwrap_or(&"transport"))?;
        match &self.kind {
            UrlErrorKind::Malformed => write!(f, "is not a URL; {ENCODE}"),
            UrlErrorKind::Scheme => {
                let schemes: Vec<_> = self.schemes.iter().map(|scheme| format!("{scheme}://")).collect();
                write!(f, "must begin with {}", schemes.join(" or "))
            }
            UrlErrorKind::NoHost => f.write_str("has no host"),
            UrlErrorKind::Host => f.write_str("has a host that is neither a domain name nor an IP address"),
            UrlErrorKind::Port => write!(f, "has a port that is not a number from 1 to 65535; {ENCODE}"),
            UrlErrorKind::Path => write!(f, "has a path or a fragment; {ENCODE}"),
            UrlErrorKind::Credentials => f.write_str("has a user name or password that is not text once decoded"),
            UrlErrorKind::UnknownOption { known } if known.is_empty() => {
                f.write_str("has an option after the ?, and this transport has none")
            }
            UrlErrorKind::UnknownOption { known } => {
                write!(f, "has an unknown option; known are {}", known.join(", "))
            }
            UrlErrorKind::DuplicateOption { option } => write!(f, "has the option {option} twice"),
            UrlErrorKind::InvalidValue { option, expected } => {
                write!(f, "has a value for {option} that cannot be used; it must be {expected}")
            }
            UrlErrorKind::Other(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for UrlError {}
