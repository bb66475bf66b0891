//! A provider's response.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::HttpError;
use crate::error_kind::HttpErrorKind;
use crate::status;

/// A provider's response. `Debug` shows only its status and length.
pub struct Response {
    pub(crate) provider: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Why the body is incomplete. `None` if it is complete.
    pub(crate) incomplete: Option<Incomplete>,
}

/// Why a response body is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incomplete {
    ConnectionClosed,
    TimedOut,
    TooLong,
}

/// Maximum length of the body that is kept for the operator, in octets.
const MAX_TEXT: usize = 4096;

const UNEXPECTED_BODY: &str = "the response is not in this provider's format";

impl Response {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Value of a header. `None` if it is missing or is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Body as text: at most 4 KiB, with invalid UTF-8 replaced.
    ///
    /// For a body in a content coding that the client cannot decode, this is only the name of the coding.
    pub fn text(&self) -> String {
        if let Some(coding) = self.content_coding() {
            return format!("({} octets in the content coding {coding})", self.body.len());
        }
        let end = self.body.len().min(MAX_TEXT);
        String::from_utf8_lossy(&self.body[..end]).trim().to_owned()
    }

    /// Returns whether the body is complete and empty.
    pub fn is_empty(&self) -> bool {
        self.incomplete.is_none() && self.body.is_empty()
    }

    /// Parses the body as JSON.
    ///
    /// # Errors
    /// [`NoResponse`](HttpErrorKind::NoResponse) if the body is incomplete or does not match `T`. After a success status, this leaves the
    /// message **in doubt**.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let text = match self.incomplete {
            Some(Incomplete::ConnectionClosed) => "the connection broke within the response",
            Some(Incomplete::TimedOut) => "the response did not end within the time limit",
            Some(Incomplete::TooLong) => "the response is longer than any response of this provider",
            None if self.content_coding().is_some() => "the response has a content coding that was not requested",
            None => match serde_json::from_slice(&self.body) {
                Ok(value) => return Ok(value),
                // The parser's error may quote the response, so it is not kept.
                Err(_) => UNEXPECTED_BODY,
            },
        };
        Err(self.error(HttpErrorKind::NoResponse, text))
    }

    /// Parses the body as a JSON object. An array is an error, although serde accepts one for a struct.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub fn json_object<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let fields: serde_json::Map<String, serde_json::Value> = self.json()?;
        serde_json::from_value(fields.into()).map_err(|_| self.unexpected_body())
    }

    /// Returns the error for a success status with a body that is not in the provider's format.
    pub(crate) fn unexpected_body(&self) -> HttpError {
        self.error(HttpErrorKind::NoResponse, UNEXPECTED_BODY)
    }

    /// Content coding of the body (RFC 9110 section 8.4). `None` if the client has decoded it, since the client then removes the header.
    fn content_coding(&self) -> Option<&str> {
        self.header("content-encoding").filter(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
    }

    /// Creates an error with this response's status and text, and its `Retry-After` if the kind is one to retry.
    pub fn error(&self, kind: HttpErrorKind, text: impl Into<Cow<'static, str>>) -> HttpError {
        let retry_after = match kind {
            HttpErrorKind::Message | HttpErrorKind::Recipient | HttpErrorKind::Sender | HttpErrorKind::Account => None,
            _ => self.retry_after(),
        };
        HttpError::new(kind, self.provider, text)
            .with_response(self.status(), self.text())
            .with_retry_after(retry_after)
    }

    /// Creates the error that follows from the status alone (RFC 9110 section 15).
    ///
    /// For responses that the provider's documentation does not cover. A refusal in another format than the provider's may come from a
    /// proxy, so it is no permanent failure of the message, except for 413 (content too large). Where the account's failure is a guess, the
    /// error is [not sure](crate::HttpError::unsure). A 500 may come after the provider accepted the message, so the message is **in
    /// doubt** and the attempt is charged.
    pub fn status_error(&self) -> HttpError {
        let (kind, text, is_sure) = status::in_another_format(self.status());
        let error = self.error(kind, text);
        if is_sure { error } else { error.unsure() }
    }

    /// Time to wait by the header `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3).
    ///
    /// `None` if the header is missing or invalid, or if the time is zero or past.
    pub fn retry_after(&self) -> Option<Duration> {
        self.parse_retry_after(self.header("retry-after")?)
    }

    /// Parses a value in the format of `Retry-After`, from any part of the response.
    ///
    /// `None` as for [`retry_after`](Self::retry_after).
    pub fn parse_retry_after(&self, value: &str) -> Option<Duration> {
        let value = value.trim();
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)).filter(|wait| !wait.is_zero()),
            Err(_) => self.until(httpdate::parse_http_date(value).ok()?),
        }
    }

    /// Time until a rate limit resets, by a header that holds seconds since the Unix epoch.
    ///
    /// `None` as for [`retry_after`](Self::retry_after). Many providers add such a header to every response; it means a wait only if the
    /// response is a rate limit.
    pub fn until_reset(&self, header: &str) -> Option<Duration> {
        self.until(UNIX_EPOCH.checked_add(Duration::from_secs(self.header(header)?.trim().parse().ok()?))?)
    }

    /// Time until `time`. `None` if it is now or past.
    fn until(&self, time: SystemTime) -> Option<Duration> {
        time.duration_since(self.now()).ok().filter(|wait| !wait.is_zero())
    }

    /// Time until midnight in UTC, for quotas that reset then.
    pub fn until_midnight(&self) -> Duration {
        const DAY: u64 = 24 * 60 * 60;
        let since_epoch = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(DAY - since_epoch.as_secs() % DAY)
    }

    /// Current time by the server's clock (the header `Date`), or by the local clock if the header is missing.
    fn now(&self) -> SystemTime {
        let date = self.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        date.unwrap_or_else(SystemTime::now)
    }
}

/// Hides headers and body, which may hold addresses.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status(), self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_transport::Classify as _;

    fn response(status: u16, headers: &[(&'static str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).expect("a valid value"))
        });
        Response {
            provider: "test",
            status: StatusCode::from_u16(status).expect("a valid status"),
            headers: headers.collect(),
            body: Vec::new(),
            incomplete: None,
        }
    }

    #[test]
    fn debug_hides_headers_and_body() {
        let response =
            Response { body: b"for ada@example.org".to_vec(), ..response(200, &[("x-message-id", "some-id")]) };
        assert_eq!(format!("{response:?}"), "Response(200, 19 bytes)");
    }

    #[test]
    fn a_past_time_is_no_retry_after() {
        let (earlier, later) = ("Tue, 24 Nov 2026 10:00:00 GMT", "Tue, 24 Nov 2026 10:01:30 GMT");
        let wait = |headers: &[(&'static str, &str)]| response(429, headers).retry_after();
        assert_eq!(wait(&[("retry-after", "0")]), None);
        assert_eq!(wait(&[("date", later), ("retry-after", earlier)]), None);
        assert_eq!(wait(&[("date", later), ("retry-after", later)]), None);
        let reset = |at: &str| response(429, &[("date", later), ("x-reset", at)]).until_reset("x-reset");
        // `date -u -d '2026-11-24 10:01:30' +%s`
        assert_eq!(reset("1795514490"), None);
        assert_eq!(reset("1795514491"), Some(Duration::from_secs(1)));
        assert_eq!(reset("60"), None, "a delay is not a time since the epoch");
        for status in 300..600 {
            let error = response(status, &[("retry-after", "0")]).status_error();
            assert_eq!(error.retry_after(), None, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |headers: &[(&'static str, &str)]| response(429, headers).retry_after();
        assert_eq!(wait(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        let date = ("date", "Tue, 24 Nov 2026 10:00:00 GMT");
        let until = ("retry-after", "Tue, 24 Nov 2026 10:01:30 GMT");
        assert_eq!(wait(&[date, until]), Some(Duration::from_secs(90)));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-5")]), None);
    }
}
