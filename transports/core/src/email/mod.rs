//! The mail itself.

mod builder;
mod long_text;
pub(crate) mod media_type;
mod parts;
mod stored;

use std::collections::BTreeMap;
use std::fmt;

pub use builder::{EmailBuilder, EmailError};
pub use parts::{Attachment, Header, ListUnsubscribe, ReversePath};

use crate::{Address, CodecError, Encoded, Mailbox, Message, Recipient};

/// A mail, valid from the moment it exists: it has a sender, a recipient and a body, and nothing in it can break out of its
/// place in a header or in the SMTP dialogue.
///
/// ```
/// use postrider_transport::Email;
///
/// let email = Email::builder()
///     .from("Postrider <hello@example.com>")
///     .to("Ada <ada@example.com>")
///     .subject("Welcome")
///     .text("Good to have you.")
///     .build()?;
/// assert_eq!(email.subject(), "Welcome");
/// # Ok::<(), postrider_transport::EmailError>(())
/// ```
///
/// `Debug` shows sizes and counts, and no words of the mail.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    from: Mailbox,
    /// Boxed, because a mail passes through many hands.
    parts: Box<Parts>,
}

/// What a mail is made of besides its author.
#[derive(Clone, Default, PartialEq, Eq)]
struct Parts {
    sender: Option<Mailbox>,
    reply_to: Vec<Mailbox>,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    bcc: Vec<Mailbox>,
    subject: String,
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<Attachment>,
    headers: Vec<Header>,
    tags: Vec<String>,
    metadata: BTreeMap<String, String>,
    template_id: Option<String>,
    list_unsubscribe: Option<ListUnsubscribe>,
    envelope_from: Option<ReversePath>,
}

impl Email {
    /// The largest mail that [`EmailBuilder::build`] accepts unless told otherwise, in octets as they travel: 25 MiB, which
    /// the large mailbox providers take.
    pub const DEFAULT_SIZE_LIMIT: usize = 25 * 1024 * 1024;

    /// Begins a mail.
    pub fn builder() -> EmailBuilder {
        EmailBuilder::new()
    }

    /// Who it is from.
    pub fn from(&self) -> &Mailbox {
        &self.from
    }

    /// Who sends it in the name of [`from`](Self::from), where that is somebody else (RFC 5322 section 3.6.2).
    pub fn sender(&self) -> Option<&Mailbox> {
        self.parts.sender.as_ref()
    }

    /// Where answers go, if not to [`from`](Self::from).
    pub fn reply_to(&self) -> &[Mailbox] {
        &self.parts.reply_to
    }

    /// The primary recipients.
    pub fn to(&self) -> &[Mailbox] {
        &self.parts.to
    }

    /// Who gets a copy, seen by all.
    pub fn cc(&self) -> &[Mailbox] {
        &self.parts.cc
    }

    /// Who gets a copy, seen by nobody else. These stand in no header of the mail.
    pub fn bcc(&self) -> &[Mailbox] {
        &self.parts.bcc
    }

    /// The subject; empty when none was given.
    pub fn subject(&self) -> &str {
        &self.parts.subject
    }

    /// The body as plain text. Its lines end with `\n`.
    pub fn text(&self) -> Option<&str> {
        self.parts.text.as_deref()
    }

    /// The body as HTML. Its lines end with `\n`.
    pub fn html(&self) -> Option<&str> {
        self.parts.html.as_deref()
    }

    /// Attached files and inline parts, in the order in which they were added.
    pub fn attachments(&self) -> &[Attachment] {
        &self.parts.attachments
    }

    /// Custom headers, in the order in which they were added. A name may occur more than once.
    pub fn headers(&self) -> &[Header] {
        &self.parts.headers
    }

    /// Labels for the provider's statistics.
    pub fn tags(&self) -> &[String] {
        &self.parts.tags
    }

    /// Pairs that a provider hands back in its events.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.parts.metadata
    }

    /// How to leave the list that this mail came through.
    pub fn list_unsubscribe(&self) -> Option<&ListUnsubscribe> {
        self.parts.list_unsubscribe.as_ref()
    }

    /// Where the next hop reports that it could not deliver (the SMTP envelope's sender): as given to the builder, or else the
    /// address of the sender, or else that of [`from`](Self::from). `None` is the null reverse-path.
    pub fn reverse_path(&self) -> Option<&Address> {
        match &self.parts.envelope_from {
            Some(ReversePath::Null) => None,
            Some(ReversePath::Address(address)) => Some(address),
            None => Some(self.parts.sender.as_ref().unwrap_or(&self.from).address()),
        }
    }

    /// The envelope's sender where the builder was given one.
    pub fn envelope_from(&self) -> Option<&ReversePath> {
        self.parts.envelope_from.as_ref()
    }

    /// The same mail to one mailbox alone, with a header of the given name that lists whom it was for. A mail that has one keeps it.
    pub(crate) fn redirected_to(mut self, to: &Mailbox, header: &str) -> Self {
        if !self.parts.headers.iter().any(|present| present.name().eq_ignore_ascii_case(header)) {
            let all: Vec<_> = self.recipient_addresses().into_iter().map(Address::as_str).collect();
            // Addresses hold nothing that a header cannot, so that none is left out.
            self.parts.headers.extend(Header::new(header, all.join(", ")));
        }
        self.parts.to = vec![to.clone()];
        (self.parts.cc, self.parts.bcc) = (Vec::new(), Vec::new());
        self
    }

    /// The same mail with other attachments.
    #[cfg(feature = "mime")]
    pub(crate) fn map_attachments(mut self, rewrite: impl Fn(Attachment) -> Attachment) -> Self {
        self.parts.attachments = self.parts.attachments.into_iter().map(rewrite).collect();
        self
    }

    /// All recipients, each mailbox once: `to`, then `cc`, then `bcc`. Addresses that differ only in the case of their domain
    /// are the same.
    pub fn recipient_addresses(&self) -> Vec<&Address> {
        let all = self.parts.to.iter().chain(&self.parts.cc).chain(&self.parts.bcc).map(Mailbox::address);
        if self.parts.to.len() + self.parts.cc.len() + self.parts.bcc.len() == 1 {
            return all.collect();
        }
        let mut seen = std::collections::HashSet::new();
        all.filter(|address| seen.insert(*address)).collect()
    }
}

impl Message for Email {
    fn encode(&self) -> Result<Encoded, CodecError> {
        stored::encode(self)
    }

    fn decode(encoded: &Encoded) -> Result<Self, CodecError> {
        stored::decode(encoded)
    }

    fn recipients(&self) -> Vec<Recipient> {
        self.recipient_addresses().into_iter().map(Recipient::from).collect()
    }

    /// It has to be an [`Address`]; the domain need not be in ASCII yet.
    fn check_recipient(recipient: &Recipient) -> Result<(), CodecError> {
        Address::check(recipient.as_str()).map_err(|error| CodecError::new(error.to_string()))
    }

    /// The From address.
    fn sender(&self) -> Option<&str> {
        Some(self.from.address().as_str())
    }

    fn template_id(&self) -> Option<&str> {
        self.parts.template_id.as_deref()
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email")
            .field("template_id", &self.parts.template_id)
            .field("from", &self.from)
            .field("recipients", &self.recipient_addresses().len())
            .field("text_bytes", &self.parts.text.as_ref().map(String::len))
            .field("html_bytes", &self.parts.html.as_ref().map(String::len))
            .field("attachments", &self.parts.attachments.len())
            .finish_non_exhaustive()
    }
}
