//! What the status of a response means if the provider's documentation does not say more (RFC 9110 section 15).

use crate::error_kind::HttpErrorKind;
use HttpErrorKind::{Account, Message, NoResponse, RateLimit, Unavailable};

/// Kind of a refusal in the provider's own format that no rule of the provider matches, and whether the kind is sure. `None` for the other
/// statuses, for which the format does not matter: those below 200, and those from 500 on except 503.
#[allow(dead_code, reason = "its use depends on the enabled providers")]
pub(crate) fn in_provider_format(status: u16) -> Option<(HttpErrorKind, bool)> {
    match status {
        401 | 402 | 407 => Some((Account, true)),
        408 | 425 | 503 => Some((Unavailable, true)),
        413 => Some((Message, true)),
        429 => Some((RateLimit, true)),
        200..500 => Some((Message, false)),
        _ => None,
    }
}

/// Kind of a response in another format, the text of the error, and whether the kind is sure.
pub(crate) fn in_another_format(status: u16) -> (HttpErrorKind, &'static str, bool) {
    let (kind, text) = match status {
        413 => (Message, "the request is too large"),
        429 => (RateLimit, "too many requests"),
        408 | 425 | 503 => (Unavailable, "the service is unavailable"),
        300..400 => (Account, "the response is a redirect; the base URL may be wrong"),
        401 | 403 | 407 => (Account, "this account may not send"),
        402 => (Account, "payment is required"),
        400..=499 | 501 | 505 => (Account, "the refusal is not in this provider's format"),
        // An internal failure, a gateway without a response from behind it, or an unknown status: the message may have been accepted.
        _ => (NoResponse, "the response is not the provider's own"),
    };
    (kind, text, matches!(status, 401 | 402 | 403 | 407 | 408 | 413 | 425 | 429 | 500..))
}

#[cfg(test)]
mod tests {
    use postrider_transport::{Class, Scope};

    use super::*;

    #[test]
    fn only_413_is_a_permanent_failure_of_the_message() {
        for status in 300..600 {
            let (kind, ..) = in_another_format(status);
            let is_permanent = kind.class() == Class::Permanent && kind.scope() == Scope::Message;
            assert_eq!(is_permanent, status == 413, "{status}");
        }
    }

    #[test]
    fn an_internal_server_error_is_in_doubt() {
        for status in [500, 502, 504, 520] {
            assert!(in_another_format(status).0.in_doubt(), "{status}");
        }
        assert!(!in_another_format(503).0.in_doubt());
    }
}
