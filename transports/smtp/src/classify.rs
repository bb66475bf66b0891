//! What an answer, or the lack of one, means to the outbox.

use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::error::Stage;
use crate::reply::Reply;
use crate::rules::{self, Gist, Rule};

/// What a failure means to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    /// Whether a rule stands behind the class and the scope.
    pub(crate) sure: bool,
    pub(crate) in_doubt: bool,
    /// The envelope is full; whoever was refused by it may be asked for again at once, in another transaction.
    pub(crate) envelope_full: bool,
    pub(crate) retry_after: Option<Duration>,
}

const fn meaning(class: Class, scope: Scope) -> Meaning {
    Meaning { class, scope, sure: true, in_doubt: false, envelope_full: false, retry_after: None }
}

/// The server, or the way to it, is out of order for now.
pub(crate) const OUT_OF_ORDER: Meaning = meaning(Class::Transient, Scope::Transport);
/// What is configured here does not fit the server.
pub(crate) const MISCONFIGURED: Meaning = meaning(Class::Permanent, Scope::Transport);
/// Not this message, ever.
pub(crate) const NEVER: Meaning = meaning(Class::Permanent, Scope::Message);
/// The end of the message went out and no answer that can be read came back. It is the network's condition or the server's; the
/// message is charged all the same, since it is in doubt.
pub(crate) const IN_DOUBT: Meaning = Meaning { in_doubt: true, ..OUT_OF_ORDER };

/// What a reply means that refuses.
pub(crate) fn of_reply(own: &[Rule], stage: Stage, reply: &Reply) -> Meaning {
    of_gist(own, stage, Gist::of(reply))
}

/// The same of what rules look at.
pub(crate) fn of_gist(own: &[Rule], stage: Stage, gist: Gist) -> Meaning {
    let found = rules::find(own, stage, gist);
    Meaning {
        class: found.class,
        scope: found.scope,
        sure: found.rule.is_some(),
        in_doubt: false,
        envelope_full: found.envelope_full,
        retry_after: found.retry_after,
    }
}

/// What it means that no answer came, or none that can be read.
pub(crate) fn of_silence(message_ended: bool) -> Meaning {
    if message_ended { IN_DOUBT } else { OUT_OF_ORDER }
}

/// Whether the connection is of no more use after a refusal with this code: the server closes it, or is out of step.
pub(crate) fn ends_connection(code: u16) -> bool {
    matches!(code, 421 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_doubt_only_once_the_message_has_ended() {
        assert_eq!(of_silence(false), OUT_OF_ORDER);
        assert_eq!(of_silence(true), IN_DOUBT);
    }
}
