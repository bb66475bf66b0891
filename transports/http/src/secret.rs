//! Credentials that are sent but never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::HttpConfigError;

/// A secret header value.
///
/// `Debug` hides it, the HTTP client treats it as sensitive, and the transport replaces it by asterisks in responses.
#[derive(Clone)]
pub struct Secret {
    header: HeaderValue,
    /// The texts to redact: the key, and its encoded form.
    redacted: Vec<String>,
}

/// Minimum length of a text to redact. All providers' keys are longer, and a shorter text may be a word of the response.
const MIN_REDACTED: usize = 8;

impl Secret {
    /// Uses the key as the header value.
    ///
    /// # Errors
    /// If the key is empty or contains anything but visible ASCII characters.
    pub fn new(key: &str) -> Result<Self, HttpConfigError> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HttpConfigError::Secret);
        }
        Self::from_parts(key.to_owned(), vec![key.to_owned()])
    }

    /// Uses the header value `Bearer KEY` (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bearer(key: &str) -> Result<Self, HttpConfigError> {
        Self::new(key)?;
        Self::from_parts(format!("Bearer {key}"), vec![key.to_owned()])
    }

    /// Uses `Basic` authentication with a user name and a password (RFC 7617).
    ///
    /// # Errors
    /// As [`new`](Self::new) for each of the two, and if the user name contains a colon.
    pub fn basic(user: &str, password: &str) -> Result<Self, HttpConfigError> {
        Self::new(user)?;
        Self::new(password)?;
        if user.contains(':') {
            return Err(HttpConfigError::Secret);
        }
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        Self::from_parts(format!("Basic {credentials}"), vec![password.to_owned(), credentials])
    }

    fn from_parts(text: String, mut redacted: Vec<String>) -> Result<Self, HttpConfigError> {
        let mut header = HeaderValue::try_from(text).map_err(|_| HttpConfigError::Secret)?;
        header.set_sensitive(true);
        redacted.retain(|text| text.len() >= MIN_REDACTED);
        Ok(Self { header, redacted })
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Replaces the secret in a response body by asterisks. The length stays the same.
    pub(crate) fn redact(&self, body: &mut [u8]) {
        for text in self.redacted.iter().map(String::as_bytes) {
            let mut from = 0;
            while let Some(place) = body[from..].windows(text.len()).position(|window| window == text) {
                body[from + place..from + place + text.len()].fill(b'*');
                from += place + text.len();
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(secret: &Secret, text: &str) -> String {
        let mut body = text.as_bytes().to_vec();
        secret.redact(&mut body);
        String::from_utf8(body).unwrap_or_default()
    }

    #[test]
    fn redacts_the_key_and_its_encoded_form() -> Result<(), HttpConfigError> {
        let bearer = Secret::bearer("key-1234")?;
        assert_eq!(redacted(&bearer, "Bearer key-1234key-1234 key-123"), "Bearer **************** key-123");
        let basic = Secret::basic("api", "key-1234")?;
        assert_eq!(redacted(&basic, "api:key-1234, YXBpOmtleS0xMjM0"), "api:********, ****************");
        // A short key may be an ordinary word.
        assert_eq!(redacted(&Secret::new("id")?, r#"{"id":"1"}"#), r#"{"id":"1"}"#);
        Ok(())
    }
}
