//! The error of one call.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_sdk_sesv2::error::{BoxError, SdkError};
use aws_sdk_sesv2::operation::send_email::SendEmailError;
use postrider_transport::{Class, Classify, Scope, mask_addresses};

use crate::classify::{self, Classification};
use crate::response::ErrorResponse;

/// Stage of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The connection has not taken the whole request. Includes loading credentials and connecting.
    Request,
    /// The connection has taken the whole request, so SES may have accepted the message.
    Response,
}

/// Formats as `the request` or `the response`.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "the request",
            Self::Response => "the response",
        })
    }
}

enum Cause {
    /// A refusal, which may be incomplete.
    Refused(Box<ErrorResponse>),
    /// A success status with a body that is not in SES's format.
    UnexpectedBody(Box<ErrorResponse>),
    /// No response.
    NoResponse(BoxError),
    /// The stage exceeded this limit.
    Timeout(Duration),
    /// The attempt has no recipients.
    NoRecipient,
}

/// A call that failed. The message may still have been accepted if it is [`in_doubt`](Classify::in_doubt).
///
/// A [`Failure`](postrider_transport::Failure) wraps it, and [`downcast_ref`](postrider_transport::Failure::downcast_ref) returns it.
/// `Display` shows the error code and message of SES, with addresses masked.
pub struct SesError {
    stage: Stage,
    cause: Cause,
    classification: Classification,
}

impl SesError {
    /// Converts an error of the SDK at this stage of the call.
    pub(crate) fn from_sdk(stage: Stage, error: SdkError<SendEmailError>, recipients: Vec<String>) -> Self {
        match error.raw_response().map(|response| ErrorResponse::new(response, &error, recipients)) {
            Some(response) if response.is_success() => Self::unexpected_body(response),
            Some(response) => {
                let classification = classify::classify_response(&response);
                Self { stage, classification, cause: Cause::Refused(Box::new(response)) }
            }
            None => Self {
                stage,
                classification: classify::classify_no_response(stage == Stage::Response),
                cause: Cause::NoResponse(error.into_source().unwrap_or_else(|error| error.into())),
            },
        }
    }

    /// A success without a message id and a request id.
    pub(crate) fn no_message_id(request_id: Option<&str>) -> Self {
        let body = "no MessageId".to_owned();
        let request_id = request_id.map(str::to_owned);
        let recipients = Vec::new();
        Self::unexpected_body(ErrorResponse {
            status: 200,
            code: None,
            message: None,
            retry_after: None,
            request_id,
            body,
            recipients,
        })
    }

    fn unexpected_body(response: ErrorResponse) -> Self {
        Self {
            stage: Stage::Response,
            cause: Cause::UnexpectedBody(Box::new(response)),
            classification: classify::IN_DOUBT,
        }
    }

    pub(crate) fn timeout(stage: Stage, limit: Duration) -> Self {
        let classification = classify::classify_no_response(stage == Stage::Response);
        Self { stage, cause: Cause::Timeout(limit), classification }
    }

    pub(crate) fn no_recipient() -> Self {
        Self { stage: Stage::Request, cause: Cause::NoRecipient, classification: classify::MESSAGE_PERMANENT }
    }

    /// Stage at which the call failed.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Status of the response, such as 400. `None` without a response.
    pub fn status(&self) -> Option<u16> {
        self.response().map(|response| response.status)
    }

    /// Error code of SES, such as `MessageRejected`. `None` if the response has none.
    pub fn code(&self) -> Option<&str> {
        self.response().and_then(|response| response.code.as_deref())
    }

    /// Request id, for AWS support. `None` if the response has none.
    pub fn request_id(&self) -> Option<&str> {
        self.response().and_then(|response| response.request_id.as_deref())
    }

    /// Returns whether the stage exceeded its [time limit](crate::Timeouts).
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::Timeout(_))
    }

    fn response(&self) -> Option<&ErrorResponse> {
        match &self.cause {
            Cause::Refused(response) | Cause::UnexpectedBody(response) => Some(response),
            _ => None,
        }
    }
}

impl Classify for SesError {
    fn class(&self) -> Class {
        self.classification.class
    }

    fn scope(&self) -> Scope {
        self.classification.scope
    }

    fn sure(&self) -> bool {
        self.classification.is_sure
    }

    fn retry_after(&self) -> Option<Duration> {
        self.classification.retry_after
    }

    fn in_doubt(&self) -> bool {
        self.classification.in_doubt
    }

    fn reply(&self) -> Option<Cow<'_, str>> {
        self.response().map(|response| format!("{} {}", response.status, response.body).trim_end().to_owned().into())
    }
}

impl fmt::Display for SesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.cause {
            Cause::Refused(response) => match &response.code {
                Some(code) => {
                    write!(f, "SES responded with {} {code}", response.status)?;
                    if let Some(message) = &response.message {
                        write!(f, ": {}", mask_addresses(message))?;
                    }
                }
                None => write!(f, "the response has status {} and no error code of SES", response.status)?,
            },
            Cause::UnexpectedBody(response) => {
                write!(f, "the response has status {} but not the format of SES", response.status)?;
            }
            Cause::NoResponse(error) => {
                write!(f, "{stage} failed")?;
                let mut chain = Some(&**error as &dyn Error);
                while let Some(error) = chain {
                    // The SDK lists the credential sources on separate lines.
                    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                    write!(f, ": {}", mask_addresses(&text))?;
                    chain = error.source();
                }
            }
            Cause::Timeout(limit) => write!(f, "{stage} exceeded the time limit of {limit:?}")?,
            Cause::NoRecipient => f.write_str("the attempt has no recipients")?,
        }
        if let Some(id) = self.request_id() {
            write!(f, " (request {id})")?;
        }
        if self.classification.in_doubt {
            f.write_str("; the message may have been accepted")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SesError")
            .field("stage", &self.stage)
            .field("class", &self.classification.class)
            .field("scope", &self.classification.scope)
            .field("in_doubt", &self.classification.in_doubt)
            .field("text", &self.to_string())
            .finish()
    }
}

/// Has no source, since `Display` shows the whole chain, masked.
impl Error for SesError {}
