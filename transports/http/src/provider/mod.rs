//! The trait of a provider, and a module for each provider.

#[cfg(feature = "brevo")]
mod brevo;
#[allow(dead_code, reason = "its use depends on the enabled providers")]
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
mod mime;
#[cfg(feature = "postmark")]
mod postmark;
#[allow(dead_code, reason = "its use depends on the enabled providers")]
mod recipients;
#[cfg(feature = "resend")]
mod resend;
#[allow(dead_code, reason = "its use depends on the enabled providers")]
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

use crate::{HttpConfigError, HttpError, ProviderUrl, Response, Secret};

/// A mail provider's API: how to build its requests and parse its responses.
///
/// [`Http`](crate::Http) handles connections, timeouts and messages in doubt. Implement this trait to add a provider of your own.
///
/// # Rules for implementations
/// - Do not drop any part of a mail. Return [`Unsupported`] from [`check`](Self::check) for what the API cannot express.
/// - Build the same request, octet for octet, at each attempt of a delivery.
/// - Treat a refusal as permanent only if it is in the provider's documented format. Anything else may come from a proxy; use
///   [`Response::status_error`].
pub trait Provider: Send + Sync + Sized + 'static {
    /// Name of the provider in logs and in the history, and the scheme of its URLs.
    const NAME: &'static str;

    /// Reads the settings from a URL such as `sendgrid://KEY@default?region=eu`.
    ///
    /// # Errors
    /// If a part is missing or invalid. The error must not contain secrets from the URL.
    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError>;

    /// Base URL of the API: `https://` and a host, without a path. [`HttpBuilder::base_url`](crate::HttpBuilder::base_url) replaces it.
    fn base_url(&self) -> &str;

    /// Name and value of the header that authenticates a request.
    fn authorization(&self) -> (HeaderName, &Secret);

    /// Checks that the API can express this mail. Must not do I/O.
    ///
    /// # Errors
    /// The first part that the API cannot express.
    fn check(&self, email: &Email) -> Result<(), Unsupported>;

    /// Builds the request for one message, for exactly the recipients in `outgoing`.
    ///
    /// # Errors
    /// If the API cannot express the message for these recipients, although it passed [`check`](Self::check).
    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure>;

    /// Parses the response to [`build_request`](Self::build_request).
    ///
    /// # Errors
    /// If the message was not accepted, or is in doubt.
    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure>;

    /// Limits of the provider's batch call. `None`, the default, if it has no such call. A provider with limits must implement
    /// [`build_batch_request`](Self::build_batch_request) and [`parse_batch_response`](Self::parse_batch_response).
    fn batch_limits(&self) -> Option<BatchLimits> {
        None
    }

    /// Returns whether this message may be part of a batch. Default: `true`.
    fn is_batchable(&self, outgoing: &Outgoing<Email>) -> bool {
        let _ = outgoing;
        true
    }

    /// Combines the requests of several messages into one, in their order.
    ///
    /// Called only with [batchable](Self::is_batchable) messages, within the [limits](Self::batch_limits). The default
    /// is an empty request.
    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        let _ = batch;
        Request::json_bytes("", Vec::new())
    }

    /// Parses the response to [`build_batch_request`](Self::build_batch_request). Default: [`BatchOutcome::SendEach`].
    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        let _ = (batch, response);
        BatchOutcome::SendEach
    }
}

/// Limits of one batch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchLimits {
    /// Maximum number of messages.
    pub messages: usize,
    /// Maximum size of the request, in octets.
    pub octets: usize,
}

impl BatchLimits {
    /// Creates limits for the number of messages and the size of the request in octets.
    pub const fn new(messages: usize, octets: usize) -> Self {
        Self { messages, octets }
    }
}

/// Outcome of a batch request.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchOutcome {
    /// One result for each message, in their order.
    Results(Vec<Result<Receipt, Failure>>),
    /// The provider refused the whole batch because of one message. The transport sends each message alone.
    SendEach,
    /// The provider accepted the messages with a receipt, by position, and refused the others without a usable reason. The transport sends
    /// each of the others alone.
    PartlyAccepted(Vec<Option<Receipt>>),
}

impl BatchOutcome {
    /// Creates an outcome with the same error for each of `messages` messages.
    pub fn same_error(messages: usize, error: &HttpError) -> Self {
        Self::Results((0..messages).map(|_| Err(error.duplicate().into())).collect())
    }
}

/// A `POST` request.
#[derive(Clone)]
pub struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Request {
    /// Creates a request with a body that is already JSON. The path begins with `/`.
    pub fn json_bytes(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let json = (http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { path: path.into(), headers: vec![json], body: body.into() }
    }

    /// Creates a request with a value that is serialized as JSON. The path begins with `/`.
    ///
    /// # Errors
    /// If the value cannot be serialized, such as a map whose keys are not strings.
    pub fn json(path: impl Into<String>, value: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(value)
            .map_err(|_| Failure::permanent(Scope::Message, "the message cannot be serialized as JSON"))?;
        Ok(Self::json_bytes(path, body))
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Body of the request.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({}, {} bytes)", self.path, self.body.len())
    }
}
