//! Tables of a provider's documented refusals, with a source for each row.

use postrider_transport::mask_addresses;

use crate::{HttpError, HttpErrorKind, Response, status};

/// One row of a table. The first row that matches an error decides its kind.
pub(super) struct Rule {
    /// Statuses of the response. Empty for any.
    statuses: &'static [u16],
    /// The provider's error codes. Empty for any.
    codes: &'static [&'static str],
    /// Prefix of the name of the invalid field. Empty for any, or for none.
    field: &'static str,
    /// Part of the text, in lower case. Empty for any. Addresses are removed from the text before it is compared.
    text: &'static str,
    kind: HttpErrorKind,
    /// URL of the documentation.
    source: &'static str,
}

/// Matches by status.
pub(super) const fn on_status(statuses: &'static [u16], kind: HttpErrorKind, source: &'static str) -> Rule {
    Rule { statuses, codes: &[], field: "", text: "", kind, source }
}

/// Matches by the provider's error code, with any status.
pub(super) const fn on_code(codes: &'static [&'static str], kind: HttpErrorKind, source: &'static str) -> Rule {
    Rule { statuses: &[], codes, field: "", text: "", kind, source }
}

/// Matches by status and text.
pub(super) const fn on_text(
    statuses: &'static [u16],
    text: &'static str,
    kind: HttpErrorKind,
    source: &'static str,
) -> Rule {
    Rule { statuses, codes: &[], field: "", text, kind, source }
}

impl Rule {
    /// Restricts the rule to these error codes.
    pub(super) const fn with_codes(mut self, codes: &'static [&'static str]) -> Self {
        self.codes = codes;
        self
    }

    /// Restricts the rule to fields with this prefix.
    pub(super) const fn with_field(mut self, field: &'static str) -> Self {
        self.field = field;
        self
    }

    pub(super) fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    fn matches(&self, status: u16, error: &ApiError<'_>, text: &str) -> bool {
        let status = error.status.unwrap_or(status);
        // With a 5xx, no error code is a permanent failure.
        let any_status = status < 500 || matches!(self.kind, HttpErrorKind::ServerError | HttpErrorKind::Unavailable);
        (self.statuses.contains(&status) || self.statuses.is_empty() && any_status)
            && (self.codes.is_empty() || self.codes.contains(&error.code))
            && error.field.starts_with(self.field)
            && text.contains(self.text)
    }
}

/// One error of a response in the provider's documented format.
#[derive(Clone, Copy, Default)]
pub(super) struct ApiError<'a> {
    /// Status of this error, such as that of one message in a batch. `None` if it is the response's.
    pub(super) status: Option<u16>,
    /// Error code. Empty if there is none.
    pub(super) code: &'a str,
    /// Name of the invalid field. Empty if there is none.
    pub(super) field: &'a str,
    pub(super) text: &'a str,
}

/// Classifies the errors of a response in the provider's format.
///
/// Of several errors, one that concerns other mail too decides. If no rule matches a 4xx, the failure is the message's, and the error is
/// not sure.
pub(super) fn classify(rules: &[Rule], response: &Response, errors: &[ApiError<'_>]) -> HttpError {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Recipient, Sender, ServerError, Unavailable};
    let found: Vec<_> = errors.iter().map(|error| find_rule(rules, response.status(), error)).collect();
    let first_of = |kinds: &[HttpErrorKind]| {
        kinds.iter().find_map(|kind| found.iter().flatten().find(|rule| rule.kind == *kind)).copied()
    };
    let decisive = first_of(&[NoResponse, Account, Quota, RateLimit, Unavailable, Sender, Message]);
    // These decide only if a rule matches every error.
    let minor = first_of(&[ServerError, Recipient]).filter(|_| found.iter().all(Option::is_some));
    let texts: Vec<_> = errors.iter().map(|error| error.text).filter(|text| !text.is_empty()).collect();
    let text = if texts.is_empty() { "refused without a reason".to_owned() } else { texts.join("; ") };
    let error = match decisive.or(minor) {
        Some(rule) => {
            tracing::debug!(
                provider = response.provider,
                status = response.status(),
                source = rule.source,
                "known refusal"
            );
            response.error(rule.kind, text)
        }
        None => {
            let status = errors.iter().find_map(|error| error.status).unwrap_or(response.status());
            match status::in_provider_format(status) {
                Some((kind, true)) => response.error(kind, text),
                Some((kind, false)) => response.error(kind, text).unsure(),
                None => response.error(response.status_error().kind(), text),
            }
        }
    };
    let codes: Vec<_> = errors.iter().map(|error| error.code).filter(|code| !code.is_empty()).collect();
    if codes.is_empty() { error } else { error.with_code(codes.join(", ")) }
}

/// Finds the first rule that matches an error.
pub(super) fn find_rule<'r>(rules: &'r [Rule], status: u16, error: &ApiError<'_>) -> Option<&'r Rule> {
    let text = remove_addresses(error.text).to_lowercase();
    rules.iter().find(|rule| rule.matches(status, error, &text))
}

/// Removes addresses, so that `sender@x.example` does not match a rule for the word "sender".
fn remove_addresses(text: &str) -> String {
    let masked = mask_addresses(text);
    masked.split_whitespace().filter(|word| !word.contains('@')).collect::<Vec<_>>().join(" ")
}

/// Asserts that each rule has a source and is not hidden by the rules before it.
#[cfg(test)]
pub(super) fn assert_rules_are_valid(rules: &[Rule]) {
    for (row, rule) in rules.iter().enumerate() {
        assert!(rule.source.starts_with("https://"), "row {row} has no source");
        let statuses = if rule.statuses.is_empty() { &[0][..] } else { rule.statuses };
        let codes = if rule.codes.is_empty() { &[""][..] } else { rule.codes };
        let pairs = statuses.iter().flat_map(|status| codes.iter().map(move |code| (status, code)));
        for (status, code) in pairs {
            let error = ApiError { status: None, code, field: rule.field, text: rule.text };
            let is_reached = find_rule(rules, *status, &error).map(|found| std::ptr::eq(found, rule));
            assert_eq!(is_reached, Some(true), "row {row}, {status} {code}: an earlier row matches");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_within_an_address_match_no_rule() {
        let rules = [on_text(&[400], "sender", HttpErrorKind::Sender, "https://x.example")];
        let is_found = |text| find_rule(&rules, 400, &ApiError { text, ..ApiError::default() }).is_some();
        assert!(is_found("the Sender you used a@x.example is not valid"));
        assert!(!is_found("<sender@x.example> will not do, nor will a@sender.example"));
    }
}
