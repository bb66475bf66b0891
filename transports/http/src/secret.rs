//! Keys that are sent and never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::HttpConfigError;

/// A header's value that nobody gets to see. `Debug` hides it, and the HTTP client is told that it is sensitive.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
    /// The key as it is.
    ///
    /// # Errors
    /// When it is empty, or has characters that no header can hold: spaces around it, line breaks, anything outside ASCII.
    pub fn new(key: &str) -> Result<Self, HttpConfigError> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HttpConfigError::Secret);
        }
        Self::from_text(key.to_owned())
    }

    /// `Bearer KEY` (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bearer(key: &str) -> Result<Self, HttpConfigError> {
        Self::new(key)?;
        Self::from_text(format!("Bearer {key}"))
    }

    /// `Basic` with a user name and a password (RFC 7617).
    ///
    /// # Errors
    /// As [`new`](Self::new), for each of the two; and when there is a colon in the user name.
    pub fn basic(user: &str, password: &str) -> Result<Self, HttpConfigError> {
        Self::new(user)?;
        Self::new(password)?;
        if user.contains(':') {
            return Err(HttpConfigError::Secret);
        }
        let both = STANDARD.encode(format!("{user}:{password}"));
        Self::from_text(format!("Basic {both}"))
    }

    fn from_text(text: String) -> Result<Self, HttpConfigError> {
        let mut value = HeaderValue::try_from(text).map_err(|_| HttpConfigError::Secret)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
