//! The failures of several transports as one error.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::{Class, Classify, Failure, Scope};

/// None of several transports carried the message.
///
/// `Display` shows each transport's name and failure, with addresses masked: `smtp: the connection failed; ses: paused: 454 throttled`.
pub struct AllFailed {
    errors: Vec<(String, Failure)>,
    class: Class,
    scope: Scope,
    in_doubt: bool,
    sure: bool,
    unsupported: bool,
    retry_after: Option<Duration>,
}

impl AllFailed {
    /// No transport supports the message.
    pub(super) fn unsupported(mut errors: Vec<(String, Failure)>) -> Failure {
        if errors.len() == 1
            && let Some((_, failure)) = errors.pop()
        {
            return failure;
        }
        let unsupported = errors.iter().any(|(_, failure)| failure.is_unsupported());
        let transient = errors.iter().any(|(_, failure)| failure.class() == Class::Transient);
        let class = if transient { Class::Transient } else { Class::Permanent };
        let sure = errors.iter().all(|(_, failure)| failure.is_sure());
        Self { errors, class, scope: Scope::Message, in_doubt: false, sure, unsupported, retry_after: None }.into()
    }

    /// Every transport that supports the message is paused or failed.
    pub(super) fn unavailable(errors: Vec<(String, Failure)>, retry_after: Option<Duration>) -> Failure {
        // If one of them refuses the sender, messages of other senders may go through.
        let sender = errors.iter().any(|(_, failure)| failure.scope() == Scope::Sender);
        let (class, scope) = (Class::Transient, if sender { Scope::Sender } else { Scope::Transport });
        Self { errors, class, scope, in_doubt: false, sure: true, unsupported: false, retry_after }.into()
    }

    /// The last transport's failure is final, after others failed.
    pub(super) fn ended_by(mut errors: Vec<(String, Failure)>, name: String, last: Failure) -> Failure {
        let reply = last.reply().map(str::to_owned);
        let (class, scope, in_doubt) = (last.class(), last.scope(), last.in_doubt());
        let (sure, unsupported, retry_after) = (last.is_sure(), last.is_unsupported(), last.retry_after());
        errors.push((name, last));
        let failure = Failure::from(Self { errors, class, scope, in_doubt, sure, unsupported, retry_after });
        match reply {
            Some(reply) => failure.with_reply(reply),
            None => failure,
        }
    }

    /// The failures in order, each with the transport's name. A transport that was skipped is included.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.errors.iter().map(|(name, failure)| (name.as_str(), failure))
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

    /// All replies, one per line, each after the transport's name.
    fn reply(&self) -> Option<Cow<'_, str>> {
        let replies = self.failures().filter_map(|(name, failure)| Some(format!("{name}: {}", failure.reply()?)));
        let replies: Vec<_> = replies.collect();
        (!replies.is_empty()).then(|| replies.join("\n").into())
    }
}

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return f.write_str("there is no transport");
        }
        for (index, (name, failure)) in self.errors.iter().enumerate() {
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
