//! Classification of failed calls. Pure functions that hold the whole table.

use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::response::ErrorResponse;

/// Classification of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classification {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) in_doubt: bool,
    /// Whether class and scope are documented.
    pub(crate) is_sure: bool,
    pub(crate) retry_after: Option<Duration>,
}

const fn classification(class: Class, scope: Scope) -> Classification {
    Classification { class, scope, in_doubt: false, is_sure: true, retry_after: None }
}

/// SES or the network is unavailable.
pub(crate) const UNAVAILABLE: Classification = classification(Class::Transient, Scope::Transport);
/// The account, its credentials or its configuration cannot send.
pub(crate) const MISCONFIGURED: Classification = classification(Class::Permanent, Scope::Transport);
/// The sender's address or domain is not verified or may not be used.
pub(crate) const SENDER_UNVERIFIED: Classification = classification(Class::Permanent, Scope::Sender);
/// A transient failure of the message.
pub(crate) const MESSAGE_TRANSIENT: Classification = classification(Class::Transient, Scope::Message);
/// A permanent failure of the message.
pub(crate) const MESSAGE_PERMANENT: Classification = classification(Class::Permanent, Scope::Message);
/// An undocumented refusal in the format of SES.
pub(crate) const UNKNOWN_ERROR: Classification = Classification { is_sure: false, ..MESSAGE_PERMANENT };
/// The whole request was sent, and no complete response of SES came back.
pub(crate) const IN_DOUBT: Classification = Classification { in_doubt: true, ..UNAVAILABLE };
/// The sending rate is exceeded. SES counts it per second and allows short bursts.
pub(crate) const THROTTLED: Classification =
    Classification { retry_after: Some(Duration::from_secs(2)), ..UNAVAILABLE };
/// The daily quota is exceeded. It covers the last 24 hours, so it frees up gradually.
pub(crate) const QUOTA_EXCEEDED: Classification =
    Classification { retry_after: Some(Duration::from_secs(3600)), ..UNAVAILABLE };

/// Classifies a response that is not an acceptance.
pub(crate) fn classify_response(response: &ErrorResponse) -> Classification {
    let classification = match &response.code {
        Some(code) => classify_code(code, response),
        None => classify_status(response.status),
    };
    Classification { retry_after: response.retry_after.or(classification.retry_after), ..classification }
}

/// Classifies by error code. Codes are documented with and without the suffix `Exception`, and both occur.
fn classify_code(code: &str, response: &ErrorResponse) -> Classification {
    match code.strip_suffix("Exception").unwrap_or(code) {
        "Throttling" | "TooManyRequests" | "LimitExceeded" | "RequestLimitExceeded" => {
            if response.message_contains("daily") { QUOTA_EXCEEDED } else { THROTTLED }
        }
        "AccountSuspended" | "SendingPaused" | "NotFound" => MISCONFIGURED,
        "MailFromDomainNotVerified" => SENDER_UNVERIFIED,
        "AccessDenied"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidAction"
        | "InvalidClientTokenId"
        | "InvalidSignature"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "UnknownOperation"
        | "UnrecognizedClient" => MISCONFIGURED,
        "MessageRejected"
            if response.message_contains("sending suspended") || response.message_contains("sending paused") =>
        {
            MISCONFIGURED
        }
        // In the sandbox recipients must be verified too. If only recipients are named, the failure is the message's.
        "MessageRejected" if response.message_contains("not verified") && response.names_only_recipients() => {
            MESSAGE_TRANSIENT
        }
        "MessageRejected" if response.message_contains("not verified") => SENDER_UNVERIFIED,
        "MessageRejected"
        | "BadRequest"
        | "InvalidParameterCombination"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "RequestEntityTooLarge"
        | "Validation"
        | "ValidationError" => MESSAGE_PERMANENT,
        // A message that makes SES fail each time must not stop the others.
        "InternalFailure" | "InternalServerError" | "InternalServiceError" => MESSAGE_TRANSIENT,
        "ServiceUnavailable" | "RequestTimeout" | "RequestAborted" => UNAVAILABLE,
        _ => match response.status {
            401 | 403 => MISCONFIGURED,
            429 => THROTTLED,
            503 => UNAVAILABLE,
            400..=499 => UNKNOWN_ERROR,
            _ => MESSAGE_TRANSIENT,
        },
    }
}

/// Classifies by status a response without an error code, which may come from a proxy or a load balancer.
fn classify_status(status: u16) -> Classification {
    match status {
        408 | 425 | 503 => UNAVAILABLE,
        413 => MESSAGE_PERMANENT,
        429 => THROTTLED,
        // A proxy's refusal is no failure of the message.
        401 | 403 | 407 => MISCONFIGURED,
        300..=499 | 501 | 505 => Classification { is_sure: false, ..MISCONFIGURED },
        // The server may have failed after it forwarded the request. 502 and 504: the forwarded request got no valid response (RFC 9110
        // sections 15.6.3 and 15.6.5).
        _ => IN_DOUBT,
    }
}

/// Classifies a call without a valid response.
pub(crate) fn classify_no_response(request_taken: bool) -> Classification {
    if request_taken { IN_DOUBT } else { UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "API reference v2, SendEmail, errors";
    const COMMON: &str = "AWS, common errors";
    const QUOTAS: &str = "developer guide, errors related to the sending quotas";

    fn response(status: u16, code: Option<&str>, message: &str) -> ErrorResponse {
        ErrorResponse {
            code: code.map(str::to_owned),
            message: Some(message.to_owned()),
            ..ErrorResponse::with_status(status)
        }
    }

    #[test]
    fn error_codes_are_classified_by_the_table() {
        for (status, code, message, expected, source) in [
            (400, "AccountSuspendedException", "", MISCONFIGURED, API),
            (400, "BadRequestException", "Missing final '@domain'", MESSAGE_PERMANENT, API),
            (400, "LimitExceededException", "", THROTTLED, API),
            (400, "MailFromDomainNotVerifiedException", "", SENDER_UNVERIFIED, API),
            (400, "MessageRejected", "Invalid content", MESSAGE_PERMANENT, API),
            (404, "NotFoundException", "Configuration set <x> does not exist.", MISCONFIGURED, API),
            (400, "SendingPausedException", "", MISCONFIGURED, API),
            (429, "TooManyRequestsException", "Too Many Requests", THROTTLED, API),
            (
                400,
                "MessageRejected",
                "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@b.example",
                SENDER_UNVERIFIED,
                "developer guide, error messages",
            ),
            (
                400,
                "MessageRejected",
                "Sending suspended for this account.",
                MISCONFIGURED,
                "developer guide, error messages",
            ),
            (400, "ThrottlingException", "Maximum sending rate exceeded.", THROTTLED, QUOTAS),
            (400, "ThrottlingException", "Daily message quota exceeded.", QUOTA_EXCEEDED, QUOTAS),
            (429, "TooManyRequestsException", "Daily message quota exceeded", QUOTA_EXCEEDED, QUOTAS),
            (400, "Throttling", "Daily sending quota exceeded", QUOTA_EXCEEDED, "AWS knowledge centre"),
            (403, "AccessDeniedException", "not authorized to perform: ses:SendEmail", MISCONFIGURED, COMMON),
            (
                403,
                "ExpiredTokenException",
                "The security token included in the request is expired",
                MISCONFIGURED,
                COMMON,
            ),
            (
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
                MISCONFIGURED,
                COMMON,
            ),
            (403, "UnrecognizedClientException", "", MISCONFIGURED, COMMON),
            (403, "SignatureDoesNotMatch", "", MISCONFIGURED, "AWS, troubleshooting signature version 4"),
            (
                403,
                "InvalidSignatureException",
                "Signature expired",
                MISCONFIGURED,
                "AWS, troubleshooting signature version 4",
            ),
            (400, "IncompleteSignature", "", MISCONFIGURED, COMMON),
            (403, "MissingAuthenticationTokenException", "Missing Authentication Token", MISCONFIGURED, COMMON),
            (403, "OptInRequired", "", MISCONFIGURED, COMMON),
            (400, "RequestExpired", "", MISCONFIGURED, COMMON),
            (404, "UnknownOperationException", "", MISCONFIGURED, COMMON),
            (413, "RequestEntityTooLargeException", "", MESSAGE_PERMANENT, COMMON),
            (400, "ValidationException", "", MESSAGE_PERMANENT, COMMON),
            (400, "InvalidParameterValue", "", MESSAGE_PERMANENT, COMMON),
            (408, "RequestTimeoutException", "", UNAVAILABLE, COMMON),
            (500, "InternalFailure", "", MESSAGE_TRANSIENT, COMMON),
            (500, "InternalServerErrorException", "", MESSAGE_TRANSIENT, COMMON),
            (503, "ServiceUnavailable", "", UNAVAILABLE, COMMON),
            (418, "TeapotException", "", UNKNOWN_ERROR, "undocumented: the relay waits for evidence"),
            (500, "TeapotException", "", MESSAGE_TRANSIENT, "RFC 9110 section 15.6.1"),
            (403, "TeapotException", "", MISCONFIGURED, "RFC 9110 section 15.5.4"),
            (429, "TeapotException", "", THROTTLED, "RFC 6585 section 4"),
            (503, "TeapotException", "", UNAVAILABLE, "RFC 9110 section 15.6.4"),
        ] {
            assert_eq!(
                classify_response(&response(status, Some(code), message)),
                expected,
                "{status} {code}: {message} ({source})"
            );
        }
    }

    #[test]
    fn bare_statuses_are_classified_by_the_table() {
        for (status, expected) in [
            (302, Classification { is_sure: false, ..MISCONFIGURED }),
            (400, Classification { is_sure: false, ..MISCONFIGURED }),
            (401, MISCONFIGURED),
            (403, MISCONFIGURED),
            (404, Classification { is_sure: false, ..MISCONFIGURED }),
            (405, Classification { is_sure: false, ..MISCONFIGURED }),
            (407, MISCONFIGURED),
            (408, UNAVAILABLE),
            (413, MESSAGE_PERMANENT),
            (418, Classification { is_sure: false, ..MISCONFIGURED }),
            (425, UNAVAILABLE),
            (429, THROTTLED),
            (500, IN_DOUBT),
            (501, Classification { is_sure: false, ..MISCONFIGURED }),
            (502, IN_DOUBT),
            (503, UNAVAILABLE),
            (504, IN_DOUBT),
            (520, IN_DOUBT),
        ] {
            assert_eq!(classify_response(&response(status, None, "")), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_overrides_the_default_wait() {
        let wait = Duration::from_secs(77);
        let with_header =
            ErrorResponse { retry_after: Some(wait), ..response(429, Some("TooManyRequestsException"), "") };
        assert_eq!(classify_response(&with_header), Classification { retry_after: Some(wait), ..THROTTLED });
    }

    #[test]
    fn no_response_is_in_doubt_only_after_the_whole_request() {
        assert_eq!(classify_no_response(false), UNAVAILABLE);
        assert_eq!(classify_no_response(true), IN_DOUBT);
    }
}
