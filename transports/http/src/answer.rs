//! What a provider answered, and what it means where the provider has not said otherwise.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::{HttpError, HttpErrorKind};

/// A whole answer, or as much of it as came. `Debug` shows its status and its length.
pub struct Answer {
    pub(crate) provider: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Why the body ends before its end, if it does.
    pub(crate) cut: Option<Cut>,
}

/// Why a body is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The connection broke.
    Broken,
    /// It took too long.
    TimedOut,
    /// It is longer than any answer can be.
    TooLong,
}

/// How much of an answer is kept for the operator.
const REPLY: usize = 4096;

impl Answer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text, what is not UTF-8 replaced; at most 4 KiB of it. Of a body in a content coding that could not be decoded, only the
    /// coding's name.
    pub fn text(&self) -> String {
        if let Some(coding) = self.coding() {
            return format!("({} octets in the content coding {coding})", self.body.len());
        }
        let end = self.body.len().min(REPLY);
        String::from_utf8_lossy(&self.body[..end]).trim().to_owned()
    }

    /// Whether the body is whole and there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.cut.is_none() && self.body.is_empty()
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// When it is not whole, or is something else. After a status that promises success this means that the message is **in
    /// doubt**: [`Failure::in_doubt`](postrider_transport::Failure::in_doubt) is what the error says.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let what = match self.cut {
            Some(Cut::Broken) => "the answer broke off",
            Some(Cut::TimedOut) => "the answer did not come to its end in time",
            Some(Cut::TooLong) => "the answer is longer than any answer of this provider",
            None if self.coding().is_some() => "the answer is in a content coding that was not asked for",
            None => match serde_json::from_slice(&self.body) {
                Ok(value) => return Ok(value),
                // What the parser says may quote the answer.
                Err(_) => "the answer is not what this provider answers",
            },
        };
        Err(self.error(HttpErrorKind::NoAnswer, what))
    }

    /// The body read as a JSON object, which an array is not, although serde would take it for one.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let fields: serde_json::Map<String, serde_json::Value> = self.json()?;
        serde_json::from_value(fields.into()).map_err(|_| self.strange())
    }

    /// A status of success with a body that is not what the provider answers.
    pub(crate) fn strange(&self) -> HttpError {
        self.error(HttpErrorKind::NoAnswer, "the answer is not what this provider answers")
    }

    /// The coding that the body is still in (RFC 9110 section 8.4). The client takes the header away where it has decoded the body.
    fn coding(&self) -> Option<&str> {
        self.header("content-encoding").filter(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
    }

    /// An error of this meaning, with the answer's status, its text for the operator, and how long it asks to wait.
    pub fn error(&self, kind: HttpErrorKind, text: impl Into<Cow<'static, str>>) -> HttpError {
        let wait = match kind {
            HttpErrorKind::Message | HttpErrorKind::Recipient | HttpErrorKind::Sender | HttpErrorKind::Account => None,
            _ => self.retry_after(),
        };
        HttpError::new(kind, self.provider, text).with_answer(self.status(), self.text()).with_retry_after(wait)
    }

    /// What a status means by itself (RFC 9110 section 15), for answers that the provider's documentation says nothing of.
    ///
    /// A refusal whose form is not the provider's own may come from anything in between. It therefore never condemns the
    /// message, unless the message is too large (413); that it is the account's is a guess, and the error says so. A 500 says nothing of
    /// how far it came, and leaves the message **in doubt**, so that each such attempt counts.
    pub fn refusal(&self) -> HttpError {
        use HttpErrorKind::{Account, Message, NoAnswer, Rate, Unavailable};
        let (kind, text) = match self.status() {
            413 => (Message, "the request is too large"),
            429 => (Rate, "too many requests"),
            408 | 425 | 503 => (Unavailable, "it cannot serve at present"),
            300..400 => (Account, "it points elsewhere; the base URL may be wrong"),
            401 | 403 | 407 => (Account, "it does not let this account send"),
            402 => (Account, "it asks for payment"),
            400..=499 | 501 | 505 => (Account, "it refused in a form that is not its own"),
            // What failed inside, a gateway that lost what is behind it, and whatever nobody has documented: it may have come to the
            // message before.
            _ => (NoAnswer, "it gave no answer of its own"),
        };
        let error = self.error(kind, text);
        let known = matches!(self.status(), 401 | 402 | 403 | 407 | 408 | 413 | 425 | 429 | 500..);
        if known { error } else { error.unsure() }
    }

    /// How long the answer asks to wait: `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3). `None` where it does not say,
    /// or names no time to come: that sets no bound, and is no order to come back at once.
    pub fn retry_after(&self) -> Option<Duration> {
        self.wait(self.header("retry-after")?)
    }

    /// How long such a value asks to wait, wherever it stands in the answer: seconds from now, or a date of HTTP. `None` as for
    /// [`retry_after`](Self::retry_after).
    pub fn wait(&self, value: &str) -> Option<Duration> {
        let value = value.trim();
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)).filter(|wait| !wait.is_zero()),
            Err(_) => self.until(httpdate::parse_http_date(value).ok()?),
        }
    }

    /// How long until the time that a provider's own header names, in seconds since the Unix epoch. `None` as for
    /// [`retry_after`](Self::retry_after).
    ///
    /// Many providers send such headers with every answer. They say how long to wait only where the answer is a rate limit.
    pub fn reset_at(&self, header: &str) -> Option<Duration> {
        self.until(UNIX_EPOCH.checked_add(Duration::from_secs(self.header(header)?.trim().parse().ok()?))?)
    }

    /// Nothing where that time has come.
    fn until(&self, time: SystemTime) -> Option<Duration> {
        time.duration_since(self.now()).ok().filter(|wait| !wait.is_zero())
    }

    /// How long until the day ends in UTC, for quotas that begin anew then.
    pub fn until_midnight(&self) -> Duration {
        const DAY: u64 = 24 * 60 * 60;
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(DAY - since.as_secs() % DAY)
    }

    /// By the clock that wrote the answer, where it says what it shows.
    fn now(&self) -> SystemTime {
        let date = self.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        date.unwrap_or_else(SystemTime::now)
    }
}

/// What the headers and the body hold is nobody's business.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status(), self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_transport::{Class, Classify, Scope};

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).expect("a value"))
        });
        Answer {
            provider: "test",
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.collect(),
            body: Vec::new(),
            cut: None,
        }
    }

    #[test]
    fn no_refusal_in_another_form_condemns_a_message_unless_it_is_too_large() {
        for status in 300..600 {
            let error = answer(status, &[]).refusal();
            let condemned = error.class() == Class::Permanent && error.scope() == Scope::Message;
            assert_eq!(condemned, status == 413, "{status}");
        }
    }

    #[test]
    fn a_failure_inside_leaves_the_message_in_doubt() {
        for status in [500, 502, 504, 520] {
            assert!(answer(status, &[]).refusal().in_doubt(), "{status}");
        }
        assert!(!answer(503, &[]).refusal().in_doubt());
    }

    #[test]
    fn shows_nothing_of_what_it_holds() {
        let answer = Answer { body: b"for ada@example.org".to_vec(), ..answer(200, &[("x-message-id", "id-of-it")]) };
        assert_eq!(format!("{answer:?}"), "Answer(200, 19 bytes)");
    }

    #[test]
    fn a_time_that_has_come_is_no_bound() {
        let (earlier, later) = ("Tue, 24 Nov 2026 10:00:00 GMT", "Tue, 24 Nov 2026 10:01:30 GMT");
        let wait = |headers: &[(&'static str, &str)]| answer(429, headers).retry_after();
        assert_eq!(wait(&[("retry-after", "0")]), None);
        assert_eq!(wait(&[("date", later), ("retry-after", earlier)]), None);
        assert_eq!(wait(&[("date", later), ("retry-after", later)]), None);
        let reset = |at: &str| answer(429, &[("date", later), ("x-reset", at)]).reset_at("x-reset");
        // `date -u -d '2026-11-24 10:01:30' +%s`
        assert_eq!(reset("1795514490"), None);
        assert_eq!(reset("1795514491"), Some(Duration::from_secs(1)));
        assert_eq!(reset("60"), None, "seconds from now are no time since the epoch");
        for status in 300..600 {
            let error = answer(status, &[("retry-after", "0")]).refusal();
            assert_eq!(error.retry_after(), None, "{status}");
        }
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let wait = |headers: &[(&'static str, &str)]| answer(429, headers).retry_after();
        assert_eq!(wait(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        let date = ("date", "Tue, 24 Nov 2026 10:00:00 GMT");
        let until = ("retry-after", "Tue, 24 Nov 2026 10:01:30 GMT");
        assert_eq!(wait(&[date, until]), Some(Duration::from_secs(90)));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-5")]), None);
    }
}
