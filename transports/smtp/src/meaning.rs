//! What a reply, or a missing one, means to the outbox.

use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::rules::{self, Rule, RuleInput};
use crate::stage::Stage;

/// What a failure means to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    /// Whether a rule gave the class and the scope.
    pub(crate) sure: bool,
    pub(crate) in_doubt: bool,
    /// Whether the server takes no more recipients in this transaction. The rest can be sent at once in another one.
    pub(crate) too_many_recipients: bool,
    /// `None` if neither the reply nor the rule has a wait.
    pub(crate) retry_after: Option<Duration>,
}

const fn meaning(class: Class, scope: Scope) -> Meaning {
    Meaning { class, scope, sure: true, in_doubt: false, too_many_recipients: false, retry_after: None }
}

/// The server or the network does not work for now.
pub(crate) const UNAVAILABLE: Meaning = meaning(Class::Transient, Scope::Transport);
/// The configuration does not fit the server.
pub(crate) const MISCONFIGURED: Meaning = meaning(Class::Permanent, Scope::Transport);
/// SMTP, or this server, cannot carry the message.
pub(crate) const INVALID_MESSAGE: Meaning = meaning(Class::Permanent, Scope::Message);
/// The end of the message was written, and no valid reply came. The network or the server is the cause. The message is charged
/// all the same, since it is in doubt.
pub(crate) const IN_DOUBT: Meaning = Meaning { in_doubt: true, ..UNAVAILABLE };

/// Returns what a refusal means.
pub(crate) fn refusal(user_rules: &[Rule], stage: Stage, input: RuleInput) -> Meaning {
    let found = rules::classify(user_rules, stage, input);
    Meaning {
        class: found.class,
        scope: found.scope,
        sure: found.rule.is_some(),
        in_doubt: false,
        too_many_recipients: found.too_many_recipients,
        retry_after: found.retry_after,
    }
}

/// Returns what it means that no valid reply came.
pub(crate) fn no_reply(message_ended: bool) -> Meaning {
    if message_ended { IN_DOUBT } else { UNAVAILABLE }
}

/// Whether the connection cannot be used after this code: the server closes it, or the two sides are out of sync.
pub(crate) fn ends_connection(code: u16) -> bool {
    matches!(code, 421 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_reply_is_in_doubt_only_after_the_end_of_the_message() {
        assert_eq!(no_reply(false), UNAVAILABLE);
        assert_eq!(no_reply(true), IN_DOUBT);
    }
}
