//! What can go wrong on the way to SES, and what SES says when it refuses.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use aws_sdk_sesv2::config::http::HttpResponse;
use aws_sdk_sesv2::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::operation::RequestId;
use aws_sdk_sesv2::operation::send_email::SendEmailError;
use postrider_transport::{Class, Classify, Scope, mask_addresses};

use crate::classify::{self, Meaning};

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The request had not gone out whole: credentials, the connection, or the request itself.
    Send,
    /// The whole request had been handed to the connection: from here on SES may have accepted the message.
    Answer,
}

/// As it stands in a sentence: `the request`, `the answer`.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send => "the request",
            Self::Answer => "the answer",
        })
    }
}

/// As much of an answer as is kept, in octets: far more than SES ever says.
const KEPT: usize = 4096;

/// An answer that came over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The name of the error, as SES gives it. Where there is none, the answer need not be from SES.
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    pub(crate) body: String,
    /// Whom the message was for.
    pub(crate) recipients: Vec<String>,
}

impl Answer {
    fn read(response: &HttpResponse, error: &SdkError<SendEmailError>, recipients: Vec<String>) -> Self {
        let header = |name: &str| response.headers().get(name).map(str::to_owned);
        let body = response.body().bytes().unwrap_or_default();
        // The SDK looks no further where the body is cut off; the header stands all the same, with a URI after the colon at times.
        let named = || header("x-amzn-errortype").and_then(|text| text.split(':').next().map(str::to_owned));
        Self {
            status: response.status().as_u16(),
            code: error.code().map(str::to_owned).or_else(named).filter(|code| !code.is_empty()),
            message: error.message().map(str::to_owned),
            retry_after: header("retry-after").and_then(|text| wait(&text, header("date").as_deref())),
            request_id: error.request_id().map(str::to_owned).or_else(|| header("x-amzn-requestid")),
            body: String::from_utf8_lossy(&body[..body.len().min(KEPT)]).into_owned(),
            recipients,
        }
    }

    #[cfg(test)]
    pub(crate) fn of_status(status: u16) -> Self {
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

    /// Whether the message has these words in it, which are given in lower case.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.message.as_deref().is_some_and(|message| message.to_ascii_lowercase().contains(words))
    }

    /// Whether all identities that failed a check are recipients: `… failed the check in region EU-WEST-1: a@b.example, c@d.example`
    /// (developer guide, error messages). A domain, or the sender's address, is the sender's.
    pub(crate) fn names_recipients_only(&self) -> bool {
        let failed =
            self.message.as_deref().and_then(|message| message.rsplit_once(": ")).map_or("", |(_, failed)| failed);
        let is_recipient = |one: &str| self.recipients.iter().any(|recipient| recipient.eq_ignore_ascii_case(one));
        !failed.is_empty() && failed.split(',').map(str::trim).all(is_recipient)
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// How long a `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3) by the clock that wrote the answer. Nothing where it
/// names no time to come, which sets no bound.
fn wait(value: &str, date: Option<&str>) -> Option<Duration> {
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

enum Fault {
    /// An answer that is no acceptance; as much of it as came.
    Refused(Box<Answer>),
    /// An answer by whose status SES accepted the message, and that is not SES's.
    Unreadable(Box<Answer>),
    /// No answer.
    Silence(BoxError),
    /// The stage took longer than its limit.
    Timeout(Duration),
    /// The message has nobody to go to.
    NoRecipient,
}

/// A message did not go out by SES, or perhaps did: see [`in_doubt`](Classify::in_doubt). It becomes a
/// [`Failure`](postrider_transport::Failure), from which [`downcast_ref`](postrider_transport::Failure::downcast_ref) gets it
/// back.
///
/// `Display` has SES's name for the error and its words, with addresses masked.
pub struct SesError {
    stage: Stage,
    fault: Fault,
    meaning: Meaning,
}

impl SesError {
    /// What the SDK reports, at the stage that the call had reached.
    pub(crate) fn from_sdk(stage: Stage, error: SdkError<SendEmailError>, recipients: Vec<String>) -> Self {
        match error.raw_response().map(|response| Answer::read(response, &error, recipients)) {
            Some(answer) if answer.is_success() => Self::unreadable(answer),
            Some(answer) => {
                Self { stage, meaning: classify::of_answer(&answer), fault: Fault::Refused(Box::new(answer)) }
            }
            None => Self {
                stage,
                meaning: classify::of_silence(stage == Stage::Answer),
                fault: Fault::Silence(error.into_source().unwrap_or_else(|error| error.into())),
            },
        }
    }

    /// An acceptance without the name of the message, which SES always gives.
    pub(crate) fn nameless(request_id: Option<&str>) -> Self {
        let body = "no MessageId".to_owned();
        let request_id = request_id.map(str::to_owned);
        let recipients = Vec::new();
        Self::unreadable(Answer {
            status: 200,
            code: None,
            message: None,
            retry_after: None,
            request_id,
            body,
            recipients,
        })
    }

    fn unreadable(answer: Answer) -> Self {
        Self { stage: Stage::Answer, fault: Fault::Unreadable(Box::new(answer)), meaning: classify::IN_DOUBT }
    }

    pub(crate) fn timeout(stage: Stage, limit: Duration) -> Self {
        let meaning = classify::of_silence(stage == Stage::Answer);
        Self { stage, fault: Fault::Timeout(limit), meaning }
    }

    pub(crate) fn no_recipient() -> Self {
        Self { stage: Stage::Send, fault: Fault::NoRecipient, meaning: classify::NEVER }
    }

    /// How far the call had come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The status of the answer, such as 400, where there is one.
    pub fn status(&self) -> Option<u16> {
        self.answer().map(|answer| answer.status)
    }

    /// SES's name for the error, such as `MessageRejected`, where there is one.
    pub fn code(&self) -> Option<&str> {
        self.answer().and_then(|answer| answer.code.as_deref())
    }

    /// By what AWS's support finds the request again, where an answer named it.
    pub fn request_id(&self) -> Option<&str> {
        self.answer().and_then(|answer| answer.request_id.as_deref())
    }

    /// Whether the stage took longer than its [limit](crate::Timeouts).
    pub fn is_timeout(&self) -> bool {
        matches!(self.fault, Fault::Timeout(_))
    }

    fn answer(&self) -> Option<&Answer> {
        match &self.fault {
            Fault::Refused(answer) | Fault::Unreadable(answer) => Some(answer),
            _ => None,
        }
    }
}

impl Classify for SesError {
    fn class(&self) -> Class {
        self.meaning.class
    }

    fn scope(&self) -> Scope {
        self.meaning.scope
    }

    fn sure(&self) -> bool {
        self.meaning.sure
    }

    fn retry_after(&self) -> Option<Duration> {
        self.meaning.retry_after
    }

    fn in_doubt(&self) -> bool {
        self.meaning.in_doubt
    }

    fn reply(&self) -> Option<Cow<'_, str>> {
        self.answer().map(|answer| format!("{} {}", answer.status, answer.body).trim_end().to_owned().into())
    }
}

impl fmt::Display for SesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.fault {
            Fault::Refused(answer) => match &answer.code {
                Some(code) => {
                    write!(f, "SES answered {} {code}", answer.status)?;
                    if let Some(message) = &answer.message {
                        write!(f, ": {}", mask_addresses(message))?;
                    }
                }
                None => write!(f, "the request was answered by {} without an error of SES", answer.status)?,
            },
            Fault::Unreadable(answer) => {
                write!(f, "the request was answered by {}, and the rest is no complete answer of SES", answer.status)?;
            }
            Fault::Silence(error) => {
                write!(f, "{stage} failed")?;
                let mut chain = Some(&**error as &dyn Error);
                while let Some(error) = chain {
                    // The SDK tells where it looked for credentials, a line for each.
                    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                    write!(f, ": {}", mask_addresses(&text))?;
                    chain = error.source();
                }
            }
            Fault::Timeout(limit) => write!(f, "{stage} took longer than {limit:?}")?,
            Fault::NoRecipient => f.write_str("the mail has no recipient left")?,
        }
        if let Some(id) = self.request_id() {
            write!(f, " (request {id})")?;
        }
        if self.meaning.in_doubt {
            f.write_str("; the message may have been accepted all the same")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SesError")
            .field("stage", &self.stage)
            .field("class", &self.meaning.class)
            .field("scope", &self.meaning.scope)
            .field("in_doubt", &self.meaning.in_doubt)
            .field("text", &self.to_string())
            .finish()
    }
}

/// It has no source: `Display` tells all of the chain, masked.
impl Error for SesError {}
