//! Keys that are sent and never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::HttpConfigError;

/// A header's value that nobody gets to see. `Debug` hides it, the HTTP client is told that it is sensitive, and an answer that repeats it
/// is read with asterisks in its place.
#[derive(Clone)]
pub struct Secret {
    header: HeaderValue,
    /// The key, and what it travels as where that is another text.
    forms: Vec<String>,
}

/// No provider's key is shorter, and what is may well be a word of an answer.
const SHORTEST: usize = 8;

impl Secret {
    /// The key as it is.
    ///
    /// # Errors
    /// When it is empty, or has characters that no header can hold: spaces around it, line breaks, anything outside ASCII.
    pub fn new(key: &str) -> Result<Self, HttpConfigError> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HttpConfigError::Secret);
        }
        Self::of(key.to_owned(), vec![key.to_owned()])
    }

    /// `Bearer KEY` (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bearer(key: &str) -> Result<Self, HttpConfigError> {
        Self::new(key)?;
        Self::of(format!("Bearer {key}"), vec![key.to_owned()])
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
        Self::of(format!("Basic {both}"), vec![password.to_owned(), both])
    }

    fn of(text: String, mut forms: Vec<String>) -> Result<Self, HttpConfigError> {
        let mut header = HeaderValue::try_from(text).map_err(|_| HttpConfigError::Secret)?;
        header.set_sensitive(true);
        forms.retain(|form| form.len() >= SHORTEST);
        Ok(Self { header, forms })
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Blots it out of what a provider, or whoever stands before it, answered.
    pub(crate) fn blot_out(&self, body: &mut [u8]) {
        for form in self.forms.iter().map(String::as_bytes) {
            let mut from = 0;
            while let Some(place) = body[from..].windows(form.len()).position(|window| window == form) {
                // As long as it was, so that all else stays in its place.
                body[from + place..from + place + form.len()].fill(b'*');
                from += place + form.len();
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

    fn blotted(secret: &Secret, text: &str) -> String {
        let mut body = text.as_bytes().to_vec();
        secret.blot_out(&mut body);
        String::from_utf8(body).unwrap_or_default()
    }

    #[test]
    fn is_blotted_out_in_every_form() -> Result<(), HttpConfigError> {
        let bearer = Secret::bearer("key-1234")?;
        assert_eq!(blotted(&bearer, "Bearer key-1234key-1234 key-123"), "Bearer **************** key-123");
        let basic = Secret::basic("api", "key-1234")?;
        assert_eq!(blotted(&basic, "api:key-1234, YXBpOmtleS0xMjM0"), "api:********, ****************");
        // A test's key, which is a word like any other.
        assert_eq!(blotted(&Secret::new("id")?, r#"{"id":"1"}"#), r#"{"id":"1"}"#);
        Ok(())
    }
}
