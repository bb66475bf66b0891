//! The error of one request.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use postrider_transport::{Class, Classify, Scope, mask_addresses};

use crate::error_kind::HttpErrorKind;

/// A request that failed.
///
/// `Display` shows up to 300 characters of the provider's text, with mail addresses masked.
/// [`Failure::reply`](postrider_transport::Failure::reply) holds the verbatim response.
pub struct HttpError(Box<Inner>);

struct Inner {
    kind: HttpErrorKind,
    provider: &'static str,
    status: Option<u16>,
    code: Option<String>,
    text: Cow<'static, str>,
    is_sure: bool,
    retry_after: Option<Duration>,
    reply: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Maximum number of characters of the provider's text that `Display` shows.
const MAX_SHOWN: usize = 300;

impl HttpError {
    pub(crate) fn new(kind: HttpErrorKind, provider: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            provider,
            status: None,
            code: None,
            text: text.into(),
            is_sure: true,
            retry_after: None,
            reply: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the status and the text of the response.
    pub(crate) fn with_response(mut self, status: u16, reply: String) -> Self {
        self.0.status = Some(status);
        self.0.reply = Some(reply).filter(|reply| !reply.is_empty());
        self
    }

    /// Copies the error, for another message of the same request.
    pub(crate) fn duplicate(&self) -> Self {
        let inner = &*self.0;
        Self(Box::new(Inner {
            kind: inner.kind,
            provider: inner.provider,
            status: inner.status,
            code: inner.code.clone(),
            text: inner.text.clone(),
            is_sure: inner.is_sure,
            retry_after: inner.retry_after,
            reply: inner.reply.clone(),
            source: inner.source.as_ref().map(|source| source.to_string().into()),
        }))
    }

    /// Marks the kind as a guess that no documentation supports. See [`Classify::sure`].
    #[must_use]
    pub fn unsure(mut self) -> Self {
        self.0.is_sure = false;
        self
    }

    /// Adds the provider's error code.
    #[must_use]
    pub fn with_code(mut self, code: impl fmt::Display) -> Self {
        self.0.code = Some(code.to_string());
        self
    }

    /// Sets the time to wait before a retry. `None` changes nothing.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after.or(self.0.retry_after);
        self
    }

    /// The provider's text, with unmasked addresses.
    #[allow(dead_code, reason = "its use depends on the enabled providers")]
    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    /// Kind of the failure.
    pub fn kind(&self) -> HttpErrorKind {
        self.0.kind
    }

    /// Name of the provider.
    pub fn provider(&self) -> &'static str {
        self.0.provider
    }

    /// Status of the response. `None` without a response.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The provider's error code. `None` if the response has none.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.status, &self.0.code) {
            (Some(status), Some(code)) => write!(f, "{status} ({code}) ")?,
            (Some(status), None) => write!(f, "{status} ")?,
            (None, _) => {}
        }
        let text: String = self.0.text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
        f.write_str(&mask_addresses(&text))?;
        if self.0.kind.in_doubt() {
            f.write_str("; the message may have been accepted")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("kind", &self.0.kind)
            .field("sure", &self.0.is_sure)
            .field("status", &self.0.status)
            .field("code", &self.0.code)
            .field("error", &self.to_string())
            .finish_non_exhaustive()
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl Classify for HttpError {
    fn class(&self) -> Class {
        self.0.kind.class()
    }

    fn scope(&self) -> Scope {
        self.0.kind.scope()
    }

    fn sure(&self) -> bool {
        self.0.is_sure
    }

    fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    fn in_doubt(&self) -> bool {
        self.0.kind.in_doubt()
    }

    fn reply(&self) -> Option<Cow<'_, str>> {
        self.0.reply.as_deref().map(Cow::Borrowed)
    }
}
