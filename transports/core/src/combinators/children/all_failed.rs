//! What several transports said, as one error.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::{Class, Classify, Failure, Scope};

/// None of several transports carried the message: what each of them said.
///
/// `Display` names each transport with its words, addresses masked: `smtp: the connection failed; ses: paused: 454 throttled`.
pub struct AllFailed {
    said: Vec<(String, Failure)>,
    class: Class,
    scope: Scope,
    in_doubt: bool,
    sure: bool,
    unsupported: bool,
    retry_after: Option<Duration>,
}

impl AllFailed {
    /// No transport can express the message.
    pub(super) fn never(mut said: Vec<(String, Failure)>) -> Failure {
        if said.len() == 1
            && let Some((_, failure)) = said.pop()
        {
            return failure;
        }
        // Another one beside these may.
        let unsupported = said.iter().any(|(_, failure)| failure.is_unsupported());
        let transient = said.iter().any(|(_, failure)| failure.class() == Class::Transient);
        let class = if transient { Class::Transient } else { Class::Permanent };
        let sure = said.iter().all(|(_, failure)| failure.is_sure());
        Self { said, class, scope: Scope::Message, in_doubt: false, sure, unsupported, retry_after: None }.into()
    }

    /// Those that could express the message cannot send at present.
    pub(super) fn for_now(said: Vec<(String, Failure)>, retry_after: Option<Duration>) -> Failure {
        // Where one of them refuses the sender, another sender may well go through.
        let sender = said.iter().any(|(_, failure)| failure.scope() == Scope::Sender);
        let (class, scope) = (Class::Transient, if sender { Scope::Sender } else { Scope::Transport });
        Self { said, class, scope, in_doubt: false, sure: true, unsupported: false, retry_after }.into()
    }

    /// The message came to an end at one, after others had not been able to carry it.
    pub(super) fn ended_by(mut said: Vec<(String, Failure)>, name: String, last: Failure) -> Failure {
        let reply = last.reply().map(str::to_owned);
        let (class, scope, in_doubt) = (last.class(), last.scope(), last.in_doubt());
        let (sure, unsupported, retry_after) = (last.is_sure(), last.is_unsupported(), last.retry_after());
        said.push((name, last));
        let failure = Failure::from(Self { said, class, scope, in_doubt, sure, unsupported, retry_after });
        match reply {
            Some(reply) => failure.with_reply(reply),
            None => failure,
        }
    }

    /// Each transport that was asked or passed over, by name, with what it said, in that order.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.said.iter().map(|(name, failure)| (name.as_str(), failure))
    }
}

impl Classify for AllFailed {
    fn class(&self) -> Class {
        self.class
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    fn sure(&self) -> bool {
        self.sure
    }

    fn unsupported(&self) -> bool {
        self.unsupported
    }

    /// The replies of all, each after the name of who gave it.
    fn reply(&self) -> Option<Cow<'_, str>> {
        let replies = self.failures().filter_map(|(name, failure)| Some(format!("{name}: {}", failure.reply()?)));
        let replies: Vec<_> = replies.collect();
        (!replies.is_empty()).then(|| replies.join("\n").into())
    }
}

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.said.is_empty() {
            return f.write_str("there is no transport to ask");
        }
        for (index, (name, failure)) in self.said.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.failures()).finish()
    }
}

impl Error for AllFailed {}
