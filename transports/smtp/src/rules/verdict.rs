//! What a rule says about the refusals that it matches.

use postrider_transport::{Class, Scope};

/// What a refusal means by a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) scope: Scope,
    /// `None`: the class of the code, transient for 4yz and permanent for 5yz.
    pub(crate) class: Option<Class>,
    /// Whether the server takes no more recipients in this transaction. The rest can be sent at once in another one.
    pub(crate) too_many_recipients: bool,
}

const fn verdict(scope: Scope, class: Option<Class>) -> Verdict {
    Verdict { scope, class, too_many_recipients: false }
}

/// This recipient, with the class of the code.
pub(super) const RECIPIENT: Verdict = verdict(Scope::Message, None);
/// This recipient, always transient.
pub(super) const RECIPIENT_LATER: Verdict = verdict(Scope::Message, Some(Class::Transient));
/// This recipient, in another transaction.
pub(super) const TOO_MANY_RECIPIENTS: Verdict = Verdict { too_many_recipients: true, ..RECIPIENT_LATER };
/// This message, with the class of the code.
pub(super) const CONTENT: Verdict = verdict(Scope::Message, None);
/// The sender's address or its domain, with the class of the code.
pub(super) const SENDER: Verdict = verdict(Scope::Sender, None);
/// The account or the client, with the class of the code. Other mail would be refused too.
pub(super) const ACCOUNT: Verdict = verdict(Scope::Transport, None);
/// A limit of the account or the client, always transient.
pub(super) const LIMIT: Verdict = verdict(Scope::Transport, Some(Class::Transient));
/// The server does not work for now, always transient.
pub(super) const SERVER: Verdict = verdict(Scope::Transport, Some(Class::Transient));
