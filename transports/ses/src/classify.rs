//! What an answer, or the lack of one, means. Pure: the whole table is in this file.

use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::error::Answer;

/// What a failure means to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) in_doubt: bool,
    /// A line of the table stands behind class and scope.
    pub(crate) sure: bool,
    pub(crate) retry_after: Option<Duration>,
}

const fn meaning(class: Class, scope: Scope) -> Meaning {
    Meaning { class, scope, in_doubt: false, sure: true, retry_after: None }
}

/// SES, or the way to it, is out of order for now.
pub(crate) const OUT_OF_ORDER: Meaning = meaning(Class::Transient, Scope::Transport);
/// The account, its credentials or what is configured here does not let anything through.
pub(crate) const MISCONFIGURED: Meaning = meaning(Class::Permanent, Scope::Transport);
/// The sender's address or domain is not verified, or may not be used.
pub(crate) const UNVERIFIED: Meaning = meaning(Class::Permanent, Scope::Sender);
/// Not this message, not now.
pub(crate) const LATER: Meaning = meaning(Class::Transient, Scope::Message);
/// Not this message, ever.
pub(crate) const NEVER: Meaning = meaning(Class::Permanent, Scope::Message);
/// A refusal that is SES's own by its form, and that no line of the table knows.
pub(crate) const UNKNOWN: Meaning = Meaning { sure: false, ..NEVER };
/// The request went out whole, and no complete answer of SES came back.
pub(crate) const IN_DOUBT: Meaning = Meaning { in_doubt: true, ..OUT_OF_ORDER };
/// Too fast. The rate counts by the second, and short bursts are allowed.
pub(crate) const TOO_FAST: Meaning = Meaning { retry_after: Some(Duration::from_secs(2)), ..OUT_OF_ORDER };
/// The quota counts over the last 24 hours, so that it comes back bit by bit, and nobody says when.
pub(crate) const QUOTA_SPENT: Meaning = Meaning { retry_after: Some(Duration::from_secs(3600)), ..OUT_OF_ORDER };

/// What an answer means that is no acceptance.
pub(crate) fn of_answer(answer: &Answer) -> Meaning {
    let meaning = match &answer.code {
        Some(code) => of_code(code, answer),
        None => of_status(answer.status),
    };
    Meaning { retry_after: answer.retry_after.or(meaning.retry_after), ..meaning }
}

/// Names with and without `Exception` at their end are the same: both are documented, and both occur.
fn of_code(code: &str, answer: &Answer) -> Meaning {
    match code.strip_suffix("Exception").unwrap_or(code) {
        "Throttling" | "TooManyRequests" | "LimitExceeded" | "RequestLimitExceeded" => {
            if answer.says("daily") {
                QUOTA_SPENT
            } else {
                TOO_FAST
            }
        }
        "AccountSuspended" | "SendingPaused" | "NotFound" => MISCONFIGURED,
        "MailFromDomainNotVerified" => UNVERIFIED,
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
        "MessageRejected" if answer.says("sending suspended") || answer.says("sending paused") => MISCONFIGURED,
        // In the sandbox recipients have to be verified as well. Where only they are named, it is for now this message's condition.
        "MessageRejected" if answer.says("not verified") && answer.names_recipients_only() => LATER,
        "MessageRejected" if answer.says("not verified") => UNVERIFIED,
        "MessageRejected"
        | "BadRequest"
        | "InvalidParameterCombination"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "RequestEntityTooLarge"
        | "Validation"
        | "ValidationError" => NEVER,
        // A message that upsets SES each time must not stop the others.
        "InternalFailure" | "InternalServerError" | "InternalServiceError" => LATER,
        "ServiceUnavailable" | "RequestTimeout" | "RequestAborted" => OUT_OF_ORDER,
        _ => match answer.status {
            401 | 403 => MISCONFIGURED,
            429 => TOO_FAST,
            503 => OUT_OF_ORDER,
            400..=499 => UNKNOWN,
            _ => LATER,
        },
    }
}

/// The meaning of a status on an answer that bears no error code, and so need not be from SES: a proxy or a load balancer.
fn of_status(status: u16) -> Meaning {
    match status {
        408 | 425 | 503 => OUT_OF_ORDER,
        413 => NEVER,
        429 => TOO_FAST,
        // It does not speak for SES, and so does not condemn a message.
        401 | 403 | 407 => MISCONFIGURED,
        300..=499 | 501 | 505 => Meaning { sure: false, ..MISCONFIGURED },
        // It may have failed after it had passed the request on. 502 and 504 (RFC 9110 sections 15.6.3 and 15.6.5): what it passed it to has
        // not answered as it should.
        _ => IN_DOUBT,
    }
}

/// What it means that no answer came, or none that can be read.
pub(crate) fn of_silence(handed_over: bool) -> Meaning {
    if handed_over { IN_DOUBT } else { OUT_OF_ORDER }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "API reference v2, SendEmail, errors";
    const COMMON: &str = "AWS, common errors";
    const QUOTAS: &str = "developer guide, errors related to the sending quotas";

    fn answer(status: u16, code: Option<&str>, message: &str) -> Answer {
        Answer { code: code.map(str::to_owned), message: Some(message.to_owned()), ..Answer::of_status(status) }
    }

    #[test]
    fn every_row_of_the_table_of_codes() {
        for (status, code, message, expected, source) in [
            (400, "AccountSuspendedException", "", MISCONFIGURED, API),
            (400, "BadRequestException", "Missing final '@domain'", NEVER, API),
            (400, "LimitExceededException", "", TOO_FAST, API),
            (400, "MailFromDomainNotVerifiedException", "", UNVERIFIED, API),
            (400, "MessageRejected", "Invalid content", NEVER, API),
            (404, "NotFoundException", "Configuration set <x> does not exist.", MISCONFIGURED, API),
            (400, "SendingPausedException", "", MISCONFIGURED, API),
            (429, "TooManyRequestsException", "Too Many Requests", TOO_FAST, API),
            (
                400,
                "MessageRejected",
                "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@b.example",
                UNVERIFIED,
                "developer guide, error messages",
            ),
            (
                400,
                "MessageRejected",
                "Sending suspended for this account.",
                MISCONFIGURED,
                "developer guide, error messages",
            ),
            (400, "ThrottlingException", "Maximum sending rate exceeded.", TOO_FAST, QUOTAS),
            (400, "ThrottlingException", "Daily message quota exceeded.", QUOTA_SPENT, QUOTAS),
            (429, "TooManyRequestsException", "Daily message quota exceeded", QUOTA_SPENT, QUOTAS),
            (400, "Throttling", "Daily sending quota exceeded", QUOTA_SPENT, "AWS knowledge centre"),
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
            (413, "RequestEntityTooLargeException", "", NEVER, COMMON),
            (400, "ValidationException", "", NEVER, COMMON),
            (400, "InvalidParameterValue", "", NEVER, COMMON),
            (408, "RequestTimeoutException", "", OUT_OF_ORDER, COMMON),
            (500, "InternalFailure", "", LATER, COMMON),
            (500, "InternalServerErrorException", "", LATER, COMMON),
            (503, "ServiceUnavailable", "", OUT_OF_ORDER, COMMON),
            (418, "TeapotException", "", UNKNOWN, "unknown: the relay waits for evidence"),
            (500, "TeapotException", "", LATER, "RFC 9110 section 15.6.1"),
            (403, "TeapotException", "", MISCONFIGURED, "RFC 9110 section 15.5.4"),
            (429, "TeapotException", "", TOO_FAST, "RFC 6585 section 4"),
            (503, "TeapotException", "", OUT_OF_ORDER, "RFC 9110 section 15.6.4"),
        ] {
            assert_eq!(
                of_answer(&answer(status, Some(code), message)),
                expected,
                "{status} {code}: {message} ({source})"
            );
        }
    }

    #[test]
    fn every_row_of_the_table_of_bare_statuses() {
        for (status, expected) in [
            (302, Meaning { sure: false, ..MISCONFIGURED }),
            (400, Meaning { sure: false, ..MISCONFIGURED }),
            (401, MISCONFIGURED),
            (403, MISCONFIGURED),
            (404, Meaning { sure: false, ..MISCONFIGURED }),
            (405, Meaning { sure: false, ..MISCONFIGURED }),
            (407, MISCONFIGURED),
            (408, OUT_OF_ORDER),
            (413, NEVER),
            (418, Meaning { sure: false, ..MISCONFIGURED }),
            (425, OUT_OF_ORDER),
            (429, TOO_FAST),
            (500, IN_DOUBT),
            (501, Meaning { sure: false, ..MISCONFIGURED }),
            (502, IN_DOUBT),
            (503, OUT_OF_ORDER),
            (504, IN_DOUBT),
            (520, IN_DOUBT),
        ] {
            assert_eq!(of_answer(&answer(status, None, "")), expected, "{status}");
        }
    }

    #[test]
    fn what_the_answer_says_of_waiting_goes_before_a_guess() {
        let wait = Duration::from_secs(77);
        let told = Answer { retry_after: Some(wait), ..answer(429, Some("TooManyRequestsException"), "") };
        assert_eq!(of_answer(&told), Meaning { retry_after: Some(wait), ..TOO_FAST });
    }

    #[test]
    fn silence_is_doubt_only_once_the_request_is_out() {
        assert_eq!(of_silence(false), OUT_OF_ORDER);
        assert_eq!(of_silence(true), IN_DOUBT);
    }
}
