//! What refusals mean: ordered rules, as data.
//!
//! A refusal is matched against the user's rules, and then against the rows of the tables here in their order. The first match
//! decides. A refusal without a match is *unsure*. The order goes from certain to likely:
//!
//! 1. stages and codes with one meaning
//! 2. the numbers and tags of providers
//! 3. words about one recipient, the authentication of the sender's domain, the client, the account and its limits, the sender, the
//!    content, and the server, in this order
//! 4. enhanced codes
//! 5. codes alone

mod account;
mod classify;
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

pub(crate) use classify::classify;
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

#[cfg(test)]
mod tests {
    use super::words::Words;
    use super::*;
    use crate::stage::Stage;

    #[test]
    fn every_rule_has_a_source_and_a_condition() {
        for rule in RULES.iter() {
            assert!(rule.source_text().len() > 10, "{rule}");
            let any = RuleInput { code: 299, enhanced: None, words: Words::new(std::iter::empty()) };
            assert!(!rule.matches(Stage::Prepare, &any), "{rule} matches everything");
        }
    }
}
