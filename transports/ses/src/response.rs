//! A response that is not an acceptance.

use std::time::{Duration, SystemTime};

use aws_sdk_sesv2::config::http::HttpResponse;
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::operation::RequestId;
use aws_sdk_sesv2::operation::send_email::SendEmailError;

/// Maximum length of the body that is kept, in octets.
const MAX_BODY: usize = 4096;

/// A response that is not an acceptance.
pub(crate) struct ErrorResponse {
    pub(crate) status: u16,
    /// Error code. `None` if the response may not be from SES.
    pub(crate) code: Option<String>,
    /// Error message. `None` if the response has none.
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    pub(crate) body: String,
    /// Recipients of the message.
    pub(crate) recipients: Vec<String>,
}

impl ErrorResponse {
    pub(crate) fn new(response: &HttpResponse, error: &SdkError<SendEmailError>, recipients: Vec<String>) -> Self {
        let header = |name: &str| response.headers().get(name).map(str::to_owned);
        let body = response.body().bytes().unwrap_or_default();
        // The SDK does not read the header if the body is incomplete. A URI may follow the code after a colon.
        let header_code = || header("x-amzn-errortype").and_then(|text| text.split(':').next().map(str::to_owned));
        Self {
            status: response.status().as_u16(),
            code: error.code().map(str::to_owned).or_else(header_code).filter(|code| !code.is_empty()),
            message: error.message().map(str::to_owned),
            retry_after: header("retry-after").and_then(|text| parse_retry_after(&text, header("date").as_deref())),
            request_id: error.request_id().map(str::to_owned).or_else(|| header("x-amzn-requestid")),
            body: String::from_utf8_lossy(&body[..body.len().min(MAX_BODY)]).into_owned(),
            recipients,
        }
    }

    #[cfg(test)]
    pub(crate) fn with_status(status: u16) -> Self {
        Self {
            status,
            code: None,
            message: None,
            retry_after: None,
            request_id: None,
            body: String::new(),
            recipients: Vec::new(),
        }
    }

    /// Returns whether the error message contains a text, which must be in lower case.
    pub(crate) fn message_contains(&self, text: &str) -> bool {
        self.message.as_deref().is_some_and(|message| message.to_ascii_lowercase().contains(text))
    }

    /// Returns whether the identities that failed a check are all recipients.
    ///
    /// The message lists them: `… failed the check in region EU-WEST-1: a@b.example, c@d.example` (developer guide, error messages).
    pub(crate) fn names_only_recipients(&self) -> bool {
        let failed =
            self.message.as_deref().and_then(|message| message.rsplit_once(": ")).map_or("", |(_, failed)| failed);
        let is_recipient = |one: &str| self.recipients.iter().any(|recipient| recipient.eq_ignore_ascii_case(one));
        !failed.is_empty() && failed.split(',').map(str::trim).all(is_recipient)
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Parses `Retry-After`: seconds, or a date by the server's clock (RFC 9110 section 10.2.3). `None` if the time is zero or past.
fn parse_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
            httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?
        }
    };
    Some(wait).filter(|wait| !wait.is_zero())
}
