//! What refusals mean: ordered rules, as data.
//!
//! A reply is held against the user's rules and then against the tables here, from the first line to the last. The first line
//! that holds decides. The order is from what is certain to what is likely: stages and codes that leave no choice, the numbers and
//! tags of providers, words about one recipient, about authentication of the sender's domain, about the client, the account and its
//! limits, the sender, the content, the server, then what an enhanced code says, and a code alone. What no line knows is
//! *unsure*.

mod account;
mod client;
mod codes;
mod content;
mod enhanced;
mod providers;
mod recipient;
mod row;
mod rule;
mod sender;
mod server;
mod setup;
mod text;
mod wait;

use std::sync::LazyLock;
use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::error::Stage;
use crate::reply::{Enhanced, Reply};
use text::Words;

pub use rule::Rule;
pub(crate) use rule::Verdict;

/// What the tables say that something means.
mod means {
    use postrider_transport::{Class, Scope};

    use super::Verdict;

    const fn verdict(scope: Scope, class: Option<Class>) -> Verdict {
        Verdict { scope, class, envelope_full: false }
    }

    /// This recipient, as the code says.
    pub(super) const RECIPIENT: Verdict = verdict(Scope::Message, None);
    /// This recipient, for now, whatever the code says.
    pub(super) const RECIPIENT_LATER: Verdict = verdict(Scope::Message, Some(Class::Transient));
    /// This recipient is one too many for this transaction.
    pub(super) const TOO_MANY: Verdict = Verdict { envelope_full: true, ..RECIPIENT_LATER };
    /// This message, as the code says.
    pub(super) const CONTENT: Verdict = verdict(Scope::Message, None);
    /// The sender's address, or its domain.
    pub(super) const SENDER: Verdict = verdict(Scope::Sender, None);
    /// The account or the client: nobody's mail would fare better.
    pub(super) const ACCOUNT: Verdict = verdict(Scope::Transport, None);
    /// A limit of the account or the client, which passes whatever the code says.
    pub(super) const LIMIT: Verdict = verdict(Scope::Transport, Some(Class::Transient));
    /// The server is out of order for now, whatever the code says.
    pub(super) const SERVER: Verdict = verdict(Scope::Transport, Some(Class::Transient));
}

/// Any 4yz, and any 5yz.
const TRANSIENT: (u16, u16) = (400, 499);
const PERMANENT: (u16, u16) = (500, 599);

/// The tables, in their order.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    [
        setup::ROWS,
        providers::ROWS,
        recipient::STRONG,
        sender::AUTHENTICATION,
        content::STRONG,
        client::ROWS,
        recipient::CODED,
        account::ROWS,
        account::LIMITS,
        sender::ROWS,
        content::ROWS,
        recipient::ROWS,
        server::ROWS,
        enhanced::ROWS,
        codes::ROWS,
    ]
    .into_iter()
    .flatten()
    .map(Rule::from_row)
    .collect()
});

/// The wait that a reply may ask for, at most.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a refusal was found to mean.
#[derive(Debug, Clone)]
pub(crate) struct Finding<'a> {
    pub(crate) scope: Scope,
    pub(crate) class: Class,
    pub(crate) envelope_full: bool,
    pub(crate) retry_after: Option<Duration>,
    /// The rule that decided; none knew the reply where there is none.
    pub(crate) rule: Option<&'a Rule>,
    words: Words,
}

impl Finding<'_> {
    pub(crate) fn describe(&self) -> Option<String> {
        self.rule.map(|rule| rule.describe(&self.words))
    }
}

/// All of a reply that rules look at. Replies that differ only in what is taken out of them, such as the address that a server
/// repeats, are the same here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gist {
    code: u16,
    enhanced: Option<Enhanced>,
    words: Words,
}

impl Gist {
    pub(crate) fn of(reply: &Reply) -> Self {
        Self { code: reply.code(), enhanced: reply.enhanced(), words: Words::new(reply.texts()) }
    }
}

/// Finds what a refusal means.
pub(crate) fn find(own: &[Rule], stage: Stage, gist: Gist) -> Finding<'_> {
    let Gist { code, enhanced, words } = gist;
    let rule = own.iter().chain(RULES.iter()).find(|rule| rule.holds(stage, code, enhanced, &words));
    let by_code = if code < 500 { Class::Transient } else { Class::Permanent };
    let verdict = rule.map(|rule| rule.verdict);
    Finding {
        scope: verdict.map_or(Scope::Message, |verdict| verdict.scope),
        class: verdict.and_then(|verdict| verdict.class).unwrap_or(by_code),
        envelope_full: verdict.is_some_and(|verdict| verdict.envelope_full),
        retry_after: wait::read(&words).or_else(|| rule?.wait.map(|wait| wait.min(DAY))),
        rule,
        words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::reply;

    fn found(stage: Stage, text: &str) -> (Scope, Class, bool) {
        let reply = reply(text);
        let finding = find(&[], stage, Gist::of(&reply));
        (finding.scope, finding.class, finding.rule.is_some())
    }

    #[test]
    fn every_rule_has_a_source_and_a_condition() {
        for rule in RULES.iter() {
            assert!(rule.source_text().len() > 10, "{rule}");
            assert!(
                !rule.holds(Stage::Prepare, 299, None, &Words::new(std::iter::empty())),
                "{rule} is about everything"
            );
        }
    }

    /// What nobody has seen before is not known, and what is known is sure.
    #[test]
    fn only_what_no_rule_knows_is_unsure() {
        use Stage::{Accept, Data, Mail, Recipient};
        for stage in [Recipient, Data, Accept] {
            assert_eq!(found(stage, "550 5.7.999 frobnicated"), (Scope::Message, Class::Permanent, false), "{stage}");
            assert_eq!(found(stage, "554 no"), (Scope::Message, Class::Permanent, false), "{stage}");
            assert_eq!(found(stage, "451 4.7.1 hm"), (Scope::Message, Class::Transient, false), "{stage}");
        }
        for text in ["550 5.1.1 x", "550 5.1.10 x", "556 x", "551 x", "550 User unknown", "550 Mailbox unavailable"] {
            assert_eq!(found(Recipient, text), (Scope::Message, Class::Permanent, true), "{text}");
        }
        // Nothing but the sender has been named there.
        assert_eq!(found(Mail, "550 frobnicated"), (Scope::Sender, Class::Permanent, true));
    }

    /// Codes of both classes, each by its registered subject, where nothing is said in words.
    #[test]
    fn an_enhanced_code_of_the_other_class_is_no_reason() {
        assert_eq!(found(Stage::Recipient, "550 4.2.2 hm"), (Scope::Message, Class::Permanent, false));
        assert_eq!(found(Stage::Recipient, "450 5.7.25 hm"), (Scope::Message, Class::Transient, true));
        assert_eq!(found(Stage::Accept, "554 sorry (#5.7.25)"), (Scope::Transport, Class::Permanent, true));
    }

    #[test]
    fn a_word_in_an_address_or_a_link_is_nobodys() {
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
