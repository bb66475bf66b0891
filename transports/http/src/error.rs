//! What can go wrong between a request and its answer.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use postrider_transport::{Class, Classify, Scope, mask_addresses};

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The provider will never take this message. Permanent; the message's condition.
    Message,
    /// The provider will never take it for these recipients. Permanent; the message's condition.
    Recipient,
    /// The provider could not deal with this message now. Transient; the message's condition.
    Busy,
    /// The account may not send from this address: it, or its domain, is not verified. Permanent; the sender's condition.
    Sender,
    /// The account or its configuration cannot send: a wrong key, a suspension. Permanent; the transport's condition.
    Account,
    /// What the account may send is used up, for the day or the month. Transient; the transport's condition.
    Quota,
    /// Too fast. Transient; the transport's condition.
    Rate,
    /// The provider cannot be reached, or says that it cannot serve at present: certainly not sent. Transient; the transport's
    /// condition.
    Unavailable,
    /// The whole request went out, and no answer came back that could be understood. **In doubt**; transient; the
    /// transport's condition.
    NoAnswer,
}

/// One request that did not end as it should.
///
/// `Display` has the provider's words with mail addresses masked and at most 300 characters of them;
/// [`Failure::reply`](postrider_transport::Failure::reply) has its answer to the letter.
pub struct HttpError(Box<Inner>);

struct Inner {
    kind: HttpErrorKind,
    provider: &'static str,
    status: Option<u16>,
    code: Option<String>,
    text: Cow<'static, str>,
    sure: bool,
    retry_after: Option<Duration>,
    reply: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// How much of a provider's words goes into an error.
const WORDS: usize = 300;

impl HttpError {
    pub(crate) fn new(kind: HttpErrorKind, provider: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            provider,
            status: None,
            code: None,
            text: text.into(),
            sure: true,
            retry_after: None,
            reply: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the answer that says so.
    pub(crate) fn with_answer(mut self, status: u16, reply: String) -> Self {
        self.0.status = Some(status);
        self.0.reply = Some(reply).filter(|reply| !reply.is_empty());
        self
    }

    /// The same again, for another message of the same request.
    pub(crate) fn repeated(&self) -> Self {
        let inner = &*self.0;
        Self(Box::new(Inner {
            kind: inner.kind,
            provider: inner.provider,
            status: inner.status,
            code: inner.code.clone(),
            text: inner.text.clone(),
            sure: inner.sure,
            retry_after: inner.retry_after,
            reply: inner.reply.clone(),
            source: inner.source.as_ref().map(|source| source.to_string().into()),
        }))
    }

    /// Says that the meaning is a guess, since no documentation has this answer: see [`Classify::sure`].
    #[must_use]
    pub fn unsure(mut self) -> Self {
        self.0.sure = false;
        self
    }

    /// Adds the provider's own code for what is wrong.
    #[must_use]
    pub fn with_code(mut self, code: impl fmt::Display) -> Self {
        self.0.code = Some(code.to_string());
        self
    }

    /// Adds how long to wait, where the provider says so.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait.or(self.0.retry_after);
        self
    }

    /// The provider's words, addresses and all.
    #[allow(dead_code, reason = "whether it is used depends on the providers that are built")]
    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    /// What it means.
    pub fn kind(&self) -> HttpErrorKind {
        self.0.kind
    }

    /// The provider's name.
    pub fn provider(&self) -> &'static str {
        self.0.provider
    }

    /// The status of the answer, where there was one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The provider's own code for it, where the answer had one.
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
        let text: String = self.0.text.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        f.write_str(&mask_addresses(&text))?;
        if self.0.kind == HttpErrorKind::NoAnswer {
            f.write_str("; it may have been accepted")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("kind", &self.0.kind)
            .field("sure", &self.0.sure)
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
        use HttpErrorKind::{Account, Busy, Message, NoAnswer, Quota, Rate, Recipient, Sender, Unavailable};
        match self.0.kind {
            Message | Recipient | Sender | Account => Class::Permanent,
            Busy | Quota | Rate | Unavailable | NoAnswer => Class::Transient,
        }
    }

    fn scope(&self) -> Scope {
        use HttpErrorKind::{Account, Busy, Message, NoAnswer, Quota, Rate, Recipient, Sender, Unavailable};
        match self.0.kind {
            Message | Recipient | Busy => Scope::Message,
            Sender => Scope::Sender,
            Account | Quota | Rate | Unavailable | NoAnswer => Scope::Transport,
        }
    }

    fn sure(&self) -> bool {
        self.0.sure
    }

    fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    fn in_doubt(&self) -> bool {
        self.0.kind == HttpErrorKind::NoAnswer
    }

    fn reply(&self) -> Option<Cow<'_, str>> {
        self.0.reply.as_deref().map(Cow::Borrowed)
    }
}
