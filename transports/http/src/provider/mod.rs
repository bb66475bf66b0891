//! What differs from provider to provider, a file for each.

#[cfg(feature = "brevo")]
mod brevo;
#[allow(dead_code, reason = "which of it is used depends on the providers that are built")]
mod json;
#[cfg(feature = "mailersend")]
mod mailersend;
#[cfg(feature = "mailgun")]
mod mailgun;
#[cfg(feature = "mailjet")]
mod mailjet;
#[cfg(feature = "mailtrap")]
mod mailtrap;
#[cfg(any(feature = "mailgun", feature = "sparkpost"))]
mod message;
#[cfg(feature = "postmark")]
mod postmark;
#[cfg(feature = "resend")]
mod resend;
#[allow(dead_code, reason = "which of it is used depends on the providers that are built")]
mod rules;
#[cfg(feature = "sendgrid")]
mod sendgrid;
#[cfg(feature = "sparkpost")]
mod sparkpost;

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Email, Failure, Outgoing, Receipt, Scope, Unsupported};
use serde::Serialize;

#[cfg(feature = "brevo")]
pub use brevo::Brevo;
#[cfg(feature = "mailersend")]
pub use mailersend::MailerSend;
#[cfg(feature = "mailgun")]
pub use mailgun::Mailgun;
#[cfg(feature = "mailjet")]
pub use mailjet::Mailjet;
#[cfg(feature = "mailtrap")]
pub use mailtrap::Mailtrap;
#[cfg(feature = "postmark")]
pub use postmark::Postmark;
#[cfg(feature = "resend")]
pub use resend::Resend;
#[cfg(feature = "sendgrid")]
pub use sendgrid::SendGrid;
#[cfg(feature = "sparkpost")]
pub use sparkpost::SparkPost;

use crate::{Answer, HttpConfigError, HttpError, ProviderUrl, Secret};

/// A mail provider's API: how a message is asked for, and what the answers mean.
///
/// [`Http`](crate::Http) does the rest: connections, time limits, what is in doubt. The providers of this crate are behind
/// a feature each; one of your own is an implementation of this trait.
///
/// # The rules of an implementation
/// - Nothing is dropped silently. What the API cannot express is [`Unsupported`], from [`check`](Self::check).
/// - The same delivery yields the same request, octet for octet, at each attempt.
/// - Only the provider's own words condemn a message: a refusal that is not in its documented form may come from anything
///   in between, and is left to [`Answer::refusal`].
pub trait Provider: Send + Sync + Sized + 'static {
    /// What an operator sees in logs and in the history, and the scheme of its URLs.
    const NAME: &'static str;

    /// Takes the settings from a URL such as `sendgrid://KEY@default?region=eu`.
    ///
    /// # Errors
    /// When something is missing or unknown. No error repeats a part of the URL that could be secret.
    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError>;

    /// Where the API is: `https://` and a host, without a path. Another one may be
    /// [configured](crate::HttpBuilder::base_url).
    fn base_url(&self) -> &str;

    /// The header that says who asks.
    fn authorization(&self) -> (HeaderName, &Secret);

    /// What the API cannot express of this message. It must not do I/O.
    ///
    /// # Errors
    /// The first thing that it cannot.
    fn check(&self, email: &Email) -> Result<(), Unsupported>;

    /// How to ask for one message, for the recipients in `outgoing` and no others.
    ///
    /// # Errors
    /// When it cannot be asked for, although [`check`](Self::check) had nothing to say: for the recipients that are left,
    /// say.
    fn request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure>;

    /// What the answer to [`request`](Self::request) means.
    ///
    /// # Errors
    /// When the message was not accepted, or when that cannot be told.
    fn receipt(&self, outgoing: &Outgoing<Email>, answer: &Answer) -> Result<Receipt, Failure>;

    /// The limits of the provider's batch call, if it has one.
    fn batch_limits(&self) -> Option<BatchLimits> {
        None
    }

    /// Whether this message may go into a batch.
    fn is_batchable(&self, outgoing: &Outgoing<Email>) -> bool {
        let _ = outgoing;
        true
    }

    /// One request out of several, in their order. Called only with batchable messages, within the limits.
    fn batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        let _ = batch;
        Request::json("", Vec::new())
    }

    /// What the answer to [`batch_request`](Self::batch_request) means.
    fn batch_receipts(&self, batch: &[&Outgoing<Email>], answer: &Answer) -> BatchOutcome {
        let _ = (batch, answer);
        BatchOutcome::OneByOne
    }
}

/// How much fits into one batch call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Messages.
    pub messages: usize,
    /// Octets of the whole request.
    pub octets: usize,
}

/// What came of a batch.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchOutcome {
    /// A result for each message, in their order.
    Each(Vec<Result<Receipt, Failure>>),
    /// The provider took none of them because of one of them: each is to be asked for alone.
    OneByOne,
    /// The provider took some of them, whose receipts stand at their places. It refused the others, without saying what that
    /// means: each of these is to be asked for alone.
    Taken(Vec<Option<Receipt>>),
}

impl BatchOutcome {
    /// The same error for each of so many messages.
    pub fn all(messages: usize, error: &HttpError) -> Self {
        Self::Each((0..messages).map(|_| Err(error.repeated().into())).collect())
    }
}

/// One `POST`.
#[derive(Clone)]
pub struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Request {
    /// A request with a body in JSON. The path begins with `/`.
    pub fn json(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let json = (http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { path: path.into(), headers: vec![json], body: body.into() }
    }

    /// The same, with what is to be written in JSON.
    ///
    /// # Errors
    /// When it has no form in JSON: a map whose keys are no text, say.
    pub fn of_json(path: impl Into<String>, value: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(value)
            .map_err(|_| Failure::permanent(Scope::Message, "the message has no form in JSON"))?;
        Ok(Self::json(path, body))
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({}, {} bytes)", self.path, self.body.len())
    }
}
