//! What refusals mean: ordered rules, as data.
//!
//! A refusal is matched against the user's rules, and then against the rows of the tables here in their order. The first match
//! decides. The order goes from certain to likely: stages and codes with one meaning, the numbers and tags of providers, words
//! about one recipient, the authentication of the sender's domain, the client, the account and its limits, the sender, the
//! content, the server, then enhanced codes, and codes alone. A refusal without a match is *unsure*.

mod account;
mod client;
mod codes;
mod content;
mod enhanced;
mod input;
mod phrase;
mod providers;
mod recipient;
mod retry_after;
mod row;
mod rule;
mod sender;
mod server;
mod session_setup;
mod verdict;
mod words;

use std::sync::LazyLock;
use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::stage::Stage;
use words::Words;

pub(crate) use input::RuleInput;
pub use rule::Rule;

/// The tables in their order.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    [
        session_setup::ROWS,
        providers::ROWS,
        recipient::SPECIFIC,
        sender::AUTHENTICATION,
        content::SPECIFIC,
        client::ROWS,
        recipient::ENHANCED,
        account::STATUS,
        account::LIMITS,
        sender::ADDRESS,
        content::GENERAL,
        recipient::GENERAL,
        server::ROWS,
        enhanced::ROWS,
        codes::ROWS,
    ]
    .into_iter()
    .flatten()
    .map(Rule::from_row)
    .collect()
});

/// What a refusal means.
#[derive(Debug, Clone)]
pub(crate) struct Classification<'a> {
    pub(crate) scope: Scope,
    pub(crate) class: Class,
    pub(crate) too_many_recipients: bool,
    pub(crate) retry_after: Option<Duration>,
    /// The rule that decided. `None` if no rule matched.
    pub(crate) rule: Option<&'a Rule>,
    words: Words,
}

impl Classification<'_> {
    /// Describes the rule that decided.
    pub(crate) fn describe(&self) -> Option<String> {
        self.rule.map(|rule| rule.describe(&self.words))
    }
}

/// Returns what a refusal means.
pub(crate) fn classify(user_rules: &[Rule], stage: Stage, input: RuleInput) -> Classification<'_> {
    let rule = user_rules.iter().chain(RULES.iter()).find(|rule| rule.matches(stage, &input));
    let RuleInput { code, words, .. } = input;
    let by_code = if code < 500 { Class::Transient } else { Class::Permanent };
    let verdict = rule.map(|rule| rule.verdict);
    Classification {
        scope: verdict.map_or(Scope::Message, |verdict| verdict.scope),
        class: verdict.and_then(|verdict| verdict.class).unwrap_or(by_code),
        too_many_recipients: verdict.is_some_and(|verdict| verdict.too_many_recipients),
        retry_after: retry_after::parse(&words).or_else(|| rule?.retry_after.map(|wait| wait.min(retry_after::MAX))),
        rule,
        words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply_parser::reply;

    fn found(stage: Stage, text: &str) -> (Scope, Class, bool) {
        let reply = reply(text);
        let found = classify(&[], stage, RuleInput::new(&reply));
        (found.scope, found.class, found.rule.is_some())
    }

    #[test]
    fn every_rule_has_a_source_and_a_condition() {
        for rule in RULES.iter() {
            assert!(rule.source_text().len() > 10, "{rule}");
            let any = RuleInput { code: 299, enhanced: None, words: Words::new(std::iter::empty()) };
            assert!(!rule.matches(Stage::Prepare, &any), "{rule} matches everything");
        }
    }

    #[test]
    fn only_a_refusal_without_a_rule_is_unsure() {
        use Stage::{Accept, Data, Mail, Recipient};
        for stage in [Recipient, Data, Accept] {
            assert_eq!(found(stage, "550 5.7.999 frobnicated"), (Scope::Message, Class::Permanent, false), "{stage}");
            assert_eq!(found(stage, "554 no"), (Scope::Message, Class::Permanent, false), "{stage}");
            assert_eq!(found(stage, "451 4.7.1 hm"), (Scope::Message, Class::Transient, false), "{stage}");
        }
        for text in ["550 5.1.1 x", "550 5.1.10 x", "556 x", "551 x", "550 User unknown", "550 Mailbox unavailable"] {
            assert_eq!(found(Recipient, text), (Scope::Message, Class::Permanent, true), "{text}");
        }
        // MAIL FROM names the sender only.
        assert_eq!(found(Mail, "550 frobnicated"), (Scope::Sender, Class::Permanent, true));
    }

    #[test]
    fn an_enhanced_code_counts_only_with_the_class_of_the_code() {
        assert_eq!(found(Stage::Recipient, "550 4.2.2 hm"), (Scope::Message, Class::Permanent, false));
        assert_eq!(found(Stage::Recipient, "450 5.7.25 hm"), (Scope::Message, Class::Transient, true));
        assert_eq!(found(Stage::Accept, "554 sorry (#5.7.25)"), (Scope::Transport, Class::Permanent, true));
    }

    #[test]
    fn words_in_addresses_links_and_hosts_are_ignored() {
        let plain = found(Stage::Accept, "554 5.7.999 hm");
        for text in [
            "554 5.7.999 <quota.exceeded@spam.example> hm",
            "554 5.7.999 hm, see https://example.com/mailbox/full?user=unknown",
            "554 5.7.999 hm mailbox-full.example.com hm",
        ] {
            assert_eq!(found(Stage::Accept, text), plain, "{text}");
        }
    }
}
