//! Finds the rule that matches a refusal.

use std::time::Duration;

use postrider_transport::{Class, Scope};

use super::rule::Rule;
use super::words::Words;
use super::{RULES, RuleInput, retry_after};
use crate::stage::Stage;

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
