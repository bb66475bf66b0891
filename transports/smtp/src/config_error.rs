//! Why a transport cannot be built.

use std::fmt;

/// The configuration is invalid. The error repeats no part of a URL or of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmtpConfigError {
    /// The URL is invalid.
    Url(crate::UrlError),
    /// The host is missing, or it is neither a name nor an IP address.
    Host,
    /// The name for `EHLO` is empty, or it is not printable ASCII without spaces.
    HelloName,
    /// A root certificate is not PEM, or the PEM holds no certificate.
    RootCertificate,
    /// The file of a root certificate cannot be read.
    RootCertificateFile(std::io::ErrorKind),
    /// The platform's root certificates cannot be used.
    RootCertificates(String),
    /// A number that must be at least 1 is 0.
    Zero {
        /// The setting.
        what: &'static str,
    },
    /// There is an AUTH mechanism without credentials.
    NoCredentials,
    /// The user name is empty, or the credentials hold a control character, which the mechanisms use as a separator.
    Credentials,
    /// The credentials exceed a line of AUTH (RFC 4954 section 4: 12,288 octets in base64).
    CredentialsTooLong,
}

impl fmt::Display for SmtpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Host => f.write_str("the SMTP host is missing, or it is neither a name nor an IP address"),
            Self::HelloName => f.write_str("the name for EHLO must be printable ASCII without spaces"),
            Self::RootCertificate => f.write_str("a root certificate is not a certificate in PEM form"),
            Self::RootCertificateFile(kind) => write!(f, "the file of the root certificate cannot be read: {kind}"),
            Self::RootCertificates(reason) => {
                write!(f, "the root certificates of this machine cannot be used: {reason}")
            }
            Self::Zero { what } => write!(f, "{what} must be at least 1"),
            Self::Credentials => f.write_str("the user name is empty, or the credentials hold a control character"),
            Self::CredentialsTooLong => f.write_str("the credentials are too long for SMTP"),
            Self::NoCredentials => f.write_str("an AUTH mechanism is set, but there are no credentials"),
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
