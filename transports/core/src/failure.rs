//! A failed attempt.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::receipt::FirstRefusals;
use crate::{Class, Classify, Refusal, Scope, mask_addresses};

/// A failed attempt: the transport's error and its classification.
///
/// `Display` shows the error's text with mail addresses masked. `Debug` adds the classification.
pub struct Failure(Box<Inner>);

struct Inner {
    class: Class,
    scope: Scope,
    in_doubt: bool,
    sure: bool,
    unsupported: bool,
    retry_after: Option<Duration>,
    reply: Option<String>,
    refused: Vec<Refusal>,
    via: Option<String>,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    fn new(class: Class, scope: Scope, in_doubt: bool, source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Box::new(Inner {
            class,
            scope,
            in_doubt,
            sure: true,
            unsupported: false,
            retry_after: None,
            reply: None,
            refused: Vec::new(),
            via: None,
            source,
        }))
    }

    /// A retry cannot succeed, and the message was not accepted.
    ///
    /// With [`Scope::Message`], the message becomes a dead letter. With another scope, messages wait until an operator fixes the cause.
    pub fn permanent(scope: Scope, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Permanent, scope, false, error.into())
    }

    /// A later attempt may succeed, and the message was not accepted.
    pub fn transient(scope: Scope, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, scope, false, error.into())
    }

    /// The message may have been accepted: the request was sent, and no complete answer arrived.
    ///
    /// The failure is transient. Its scope is [`Scope::Transport`] for every transport, so that a next hop that stops answering does
    /// not get the whole backlog. The attempt counts, because only the budget limits the number of copies.
    pub fn maybe_accepted(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, Scope::Transport, true, error.into())
    }

    /// Replaces the scope.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.0.scope = scope;
        self
    }

    /// Marks class and scope as a guess: see [`Classify::sure`].
    #[must_use]
    pub fn unsure(mut self) -> Self {
        self.0.sure = false;
        self
    }

    /// Sets how long the next hop asks to wait: see [`Classify::retry_after`].
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets the verbatim answer of the next hop.
    #[must_use]
    pub fn with_reply(mut self, reply: impl Into<String>) -> Self {
        self.0.reply = Some(reply.into());
        self
    }

    /// Sets the recipients that were refused individually, each with a class of its own. The failure's class is for the others.
    #[must_use]
    pub fn with_refused(mut self, refused: Vec<Refusal>) -> Self {
        self.0.refused = refused;
        self
    }

    /// Sets the name of the inner transport that was called: see [`Failure::via`].
    #[must_use]
    pub fn with_via(mut self, transport: impl Into<String>) -> Self {
        self.0.via = Some(transport.into());
        self
    }

    /// Whether a retry can succeed.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What the failure affects.
    pub fn scope(&self) -> Scope {
        self.0.scope
    }

    /// Whether the next hop may have accepted the message.
    pub fn in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// Whether class and scope follow from a documented rule: see [`Classify::sure`].
    pub fn is_sure(&self) -> bool {
        self.0.sure
    }

    /// Whether another transport may support the message: see [`Classify::unsupported`].
    pub fn is_unsupported(&self) -> bool {
        self.0.unsupported
    }

    /// How long the next hop asks to wait. `None` if it does not ask.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The verbatim answer of the next hop. `None` if there is none.
    pub fn reply(&self) -> Option<&str> {
        self.0.reply.as_deref()
    }

    /// The [pattern](crate::pattern) of the reply, or of the error's text if there is no reply.
    ///
    /// Failures of different messages with the same cause have the same pattern.
    pub fn pattern(&self) -> String {
        self.reply().map_or_else(|| crate::pattern(&self.0.source.to_string()), crate::pattern)
    }

    /// The recipients that were refused individually.
    pub fn refused(&self) -> &[Refusal] {
        &self.0.refused
    }

    /// The name of the inner transport that was called, in the form of [`Receipt::via`](crate::Receipt::via).
    ///
    /// Several names are separated by commas. `None` if there is no inner transport, or none was called.
    pub fn via(&self) -> Option<&str> {
        self.0.via.as_deref()
    }

    /// The transport's error, if its type is `E`. `None` if it has another type.
    ///
    /// ```
    /// use postrider_transport::{Failure, Unsupported};
    ///
    /// let failure = Failure::from(Unsupported::new("inline images"));
    /// assert!(failure.downcast_ref::<Unsupported>().is_some());
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.source.downcast_ref()
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(Inner {
            class: error.class(),
            scope: error.scope(),
            in_doubt: error.in_doubt(),
            sure: error.sure(),
            unsupported: error.unsupported(),
            retry_after: error.retry_after(),
            reply: error.reply().map(Cow::into_owned),
            refused: Vec::new(),
            via: None,
            source: Box::new(error),
        }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_addresses(&self.0.source.to_string()))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("class", &self.0.class)
            .field("scope", &self.0.scope)
            .field("in_doubt", &self.0.in_doubt)
            .field("sure", &self.0.sure)
            .field("retry_after", &self.0.retry_after)
            .field("unsupported", &self.0.unsupported)
            .field("refused", &FirstRefusals(&self.0.refused))
            .field("via", &self.0.via)
            .field("error", &self.to_string())
            .finish()
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_display_nor_debug_shows_an_address() {
        let failure = Failure::permanent(Scope::Message, "550 <ada@example.com> unknown")
            .with_reply("550 <ada@example.com> unknown")
            .with_refused(vec![Refusal::new("ada@example.com", Class::Permanent, "550 <ada@example.com> unknown")]);
        let shown = format!("{failure} {failure:?}");
        assert!(!shown.contains("ada@"), "{shown}");
        assert_eq!(failure.reply(), Some("550 <ada@example.com> unknown"));
    }
}
