//! A provider's refusals as a table, of which each line can be checked against its source.

use postrider_transport::mask_addresses;

use crate::{Answer, HttpError, HttpErrorKind};

/// One line. The first that fits says what a refusal means.
pub(super) struct Rule {
    /// The statuses; none stands for any.
    statuses: &'static [u16],
    /// The provider's codes; none stands for any.
    codes: &'static [&'static str],
    /// What the name of the faulty field begins with; empty for any, or for none.
    field: &'static str,
    /// Words of the text, in lower case; empty for any. Addresses are taken out of the text before.
    words: &'static str,
    kind: HttpErrorKind,
    /// Where that is documented.
    source: &'static str,
}

/// By status.
pub(super) const fn status(statuses: &'static [u16], kind: HttpErrorKind, source: &'static str) -> Rule {
    Rule { statuses, codes: &[], field: "", words: "", kind, source }
}

/// By the provider's codes, whatever the status.
pub(super) const fn codes(codes: &'static [&'static str], kind: HttpErrorKind, source: &'static str) -> Rule {
    Rule { statuses: &[], codes, field: "", words: "", kind, source }
}

/// By status and words.
pub(super) const fn words(
    statuses: &'static [u16],
    words: &'static str,
    kind: HttpErrorKind,
    source: &'static str,
) -> Rule {
    Rule { statuses, codes: &[], field: "", words, kind, source }
}

impl Rule {
    /// Only with these codes.
    pub(super) const fn of(mut self, codes: &'static [&'static str]) -> Self {
        self.codes = codes;
        self
    }

    /// Only about a field whose name begins so.
    pub(super) const fn about(mut self, field: &'static str) -> Self {
        self.field = field;
        self
    }

    fn fits(&self, status: u16, said: &Said<'_>, text: &str) -> bool {
        let status = said.status.unwrap_or(status);
        // What failed inside condemns nothing, whatever the code that comes with it.
        let any = status < 500 || matches!(self.kind, HttpErrorKind::Busy | HttpErrorKind::Unavailable);
        (self.statuses.contains(&status) || self.statuses.is_empty() && any)
            && (self.codes.is_empty() || self.codes.contains(&said.code))
            && said.field.starts_with(self.field)
            && text.contains(self.words)
    }
}

/// One error as the provider says it, in its own documented form.
#[derive(Clone, Copy, Default)]
pub(super) struct Said<'a> {
    /// Its own, where it differs from the answer's: in a batch, say.
    pub(super) status: Option<u16>,
    /// Empty where it has none.
    pub(super) code: &'a str,
    /// Empty where it names none.
    pub(super) field: &'a str,
    pub(super) text: &'a str,
}

/// What a refusal in the provider's own form means.
///
/// Of several errors in one answer, what holds for other mail too goes before what holds for this one only. What no line knows, and what
/// is the client's fault by its status, is this mail's, as far as anybody can tell: the error says that it is not sure.
pub(super) fn read(rules: &[Rule], answer: &Answer, said: &[Said<'_>]) -> HttpError {
    use HttpErrorKind::{Account, Busy, Message, NoAnswer, Quota, Rate, Recipient, Sender, Unavailable};
    let known: Vec<_> = said.iter().map(|one| meaning(rules, answer.status(), one)).collect();
    let order = [NoAnswer, Account, Quota, Rate, Unavailable, Sender, Message];
    let rule = order.iter().find_map(|kind| known.iter().flatten().find(|rule| rule.kind == *kind));
    let all_known = known.iter().all(Option::is_some);
    let least = [Busy, Recipient].iter().find_map(|kind| known.iter().flatten().find(|rule| rule.kind == *kind));
    let texts: Vec<_> = said.iter().map(|one| one.text).filter(|text| !text.is_empty()).collect();
    let texts = if texts.is_empty() { "it refused and did not say why".to_owned() } else { texts.join("; ") };
    let error = match rule.or(least.filter(|_| all_known)) {
        Some(rule) => {
            tracing::debug!(
                provider = answer.provider,
                status = answer.status(),
                source = rule.source,
                "a known refusal"
            );
            answer.error(rule.kind, texts)
        }
        // What a status means by itself (RFC 9110 section 15), where it leaves anything to guess, the error says so.
        None => match said.iter().find_map(|one| one.status).unwrap_or(answer.status()) {
            401 | 402 | 407 => answer.error(Account, texts),
            408 | 425 | 503 => answer.error(Unavailable, texts),
            413 => answer.error(Message, texts),
            429 => answer.error(Rate, texts),
            200..500 => answer.error(Message, texts).unsure(),
            _ => answer.error(answer.refusal().kind(), texts),
        },
    };
    let codes: Vec<_> = said.iter().map(|one| one.code).filter(|code| !code.is_empty()).collect();
    if codes.is_empty() { error } else { error.with_code(codes.join(", ")) }
}

/// The line that knows one error.
pub(super) fn meaning<'r>(rules: &'r [Rule], status: u16, said: &Said<'_>) -> Option<&'r Rule> {
    let text = without_addresses(said.text).to_lowercase();
    rules.iter().find(|rule| rule.fits(status, said, &text))
}

/// Whoever is named must not decide what is wrong: `sender@x.example` says nothing of a sender.
fn without_addresses(text: &str) -> String {
    let masked = mask_addresses(text);
    masked.split_whitespace().filter(|word| !word.contains('@')).collect::<Vec<_>>().join(" ")
}

impl Rule {
    pub(super) fn kind(&self) -> HttpErrorKind {
        self.kind
    }
}

/// Each line of a table has a source, and can be reached: no line before it takes all that it would.
#[cfg(test)]
pub(super) fn assert_sound(rules: &[Rule]) {
    for (place, rule) in rules.iter().enumerate() {
        assert!(rule.source.starts_with("https://"), "line {place} has no source");
        let statuses = if rule.statuses.is_empty() { &[0][..] } else { rule.statuses };
        let codes = if rule.codes.is_empty() { &[""][..] } else { rule.codes };
        let reached = statuses.iter().flat_map(|status| codes.iter().map(move |code| (status, code)));
        for (status, code) in reached {
            let said = Said { status: None, code, field: rule.field, text: rule.words };
            let found = meaning(rules, *status, &said).map(|found| std::ptr::eq(found, rule));
            assert_eq!(found, Some(true), "line {place}, {status} {code}: another comes before it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_does_not_decide() {
        let rules = [words(&[400], "sender", HttpErrorKind::Sender, "https://x.example")];
        let meaning = |text| super::meaning(&rules, 400, &Said { text, ..Said::default() }).is_some();
        assert!(meaning("the Sender you used a@x.example is not valid"));
        assert!(!meaning("<sender@x.example> will not do, nor will a@sender.example"));
    }
}
