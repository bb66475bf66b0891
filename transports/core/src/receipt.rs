//! The result of an accepted message.

use std::fmt;

use crate::{Class, Recipient, mask_addresses};

/// The next hop accepted the message for at least one recipient.
///
/// `Debug` masks mail addresses in the reply.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The next hop's id of the message, for requests to its support. `None` if it gave none.
    pub provider_id: Option<String>,
    /// The verbatim answer of the next hop. `None` if the transport keeps none.
    pub reply: Option<String>,
    /// The recipients that were refused. Every other recipient was accepted.
    pub refused: Vec<Refusal>,
    /// The name of the inner transport that carried the message. `None` if there is no inner transport.
    ///
    /// Nested names are separated by a slash: `round-robin/smtp`. The history stores them after the outer transport's name.
    pub via: Option<String>,
}

impl Receipt {
    /// Every recipient was accepted, and nothing else is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the next hop's id of the message.
    #[must_use]
    pub fn with_provider_id(mut self, id: impl Into<String>) -> Self {
        self.provider_id = Some(id.into());
        self
    }

    /// Sets the verbatim answer of the next hop.
    #[must_use]
    pub fn with_reply(mut self, reply: impl Into<String>) -> Self {
        self.reply = Some(reply.into());
        self
    }

    /// Sets the name of the inner transport that carried the message.
    #[must_use]
    pub fn with_via(mut self, transport: impl Into<String>) -> Self {
        self.via = Some(transport.into());
        self
    }

    /// Sets the recipients that were refused.
    #[must_use]
    pub fn with_refused(mut self, refused: Vec<Refusal>) -> Self {
        self.refused = refused;
        self
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("provider_id", &self.provider_id)
            .field("reply", &self.reply.as_deref().map(mask_addresses))
            .field("refused", &FirstRefusals(&self.refused))
            .field("via", &self.via)
            .finish()
    }
}

/// A recipient that the next hop refused.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The recipient.
    pub recipient: Recipient,
    /// Whether a retry can succeed. A transient refusal is retried for this recipient alone.
    pub class: Class,
    /// Whether the class follows from a documented rule: see [`Classify::sure`](crate::Classify::sure).
    pub sure: bool,
    /// The verbatim answer of the next hop for this recipient.
    pub reply: String,
}

impl Refusal {
    /// Creates a refusal whose class follows from a documented rule.
    pub fn new(recipient: impl Into<String>, class: Class, reply: impl Into<String>) -> Self {
        Self { recipient: Recipient::new(recipient), class, sure: true, reply: reply.into() }
    }

    /// Marks the class as a guess: see [`Classify::sure`](crate::Classify::sure).
    #[must_use]
    pub fn unsure(mut self) -> Self {
        self.sure = false;
        self
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("recipient", &self.recipient)
            .field("class", &self.class)
            .field("sure", &self.sure)
            .field("reply", &mask_addresses(&self.reply))
            .finish()
    }
}

/// Shows the first refusals and the number of the others: a message may have thousands of recipients.
pub(crate) struct FirstRefusals<'a>(pub(crate) &'a [Refusal]);

impl fmt::Debug for FirstRefusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        let (first, others) = self.0.split_at(self.0.len().min(SHOWN));
        let mut list = f.debug_list();
        list.entries(first);
        if !others.is_empty() {
            list.entry(&format_args!("{} more", others.len()));
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_a_few_of_many_refusals() {
        let refused = |count| vec![Refusal::new("ada@example.com", Class::Permanent, "550 no"); count];
        let shown = |count| {
            let failure = crate::Failure::permanent(crate::Scope::Message, "no").with_refused(refused(count));
            (format!("{:?}", Receipt::new().with_refused(refused(count))), format!("{failure:?}"))
        };
        for text in [shown(10).0, shown(10).1] {
            assert!(text.matches("550 no").count() == 10 && !text.contains(" more]"), "{text}");
        }
        for text in [shown(10_000).0, shown(10_000).1] {
            assert!(text.matches("550 no").count() == 10 && text.contains(", 9990 more]"), "{text}");
        }
    }
}
