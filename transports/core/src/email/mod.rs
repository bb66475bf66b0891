//! Mail.

mod builder;
mod error;
pub(crate) mod media_type;
mod parts;
mod stored;

use std::collections::BTreeMap;
use std::fmt;

pub use builder::EmailBuilder;
pub use error::EmailError;
pub use parts::{Attachment, Header, ListUnsubscribe, ReversePath};

use crate::{Address, CodecError, Encoded, Mailbox, Message, MessageSummary, Recipient};

/// A valid mail: it has a sender, a recipient and a body, and no field can inject a header or an SMTP command.
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
/// `Debug` shows sizes and counts, and no text of the mail.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    from: Mailbox,
    /// Boxed, so that a move is cheap.
    parts: Box<Parts>,
}

/// All fields except From.
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
    /// The default of [`EmailBuilder::size_limit`]: 25 MiB as sent, which the large mailbox providers accept.
    pub const DEFAULT_SIZE_LIMIT: usize = 25 * 1024 * 1024;

    /// Starts a mail.
    pub fn builder() -> EmailBuilder {
        EmailBuilder::new()
    }

    /// The author.
    pub fn from(&self) -> &Mailbox {
        &self.from
    }

    /// The sender on behalf of [`from`](Self::from) (RFC 5322 section 3.6.2). `None` if the author sends.
    pub fn sender(&self) -> Option<&Mailbox> {
        self.parts.sender.as_ref()
    }

    /// The mailboxes for replies. If empty, replies go to [`from`](Self::from).
    pub fn reply_to(&self) -> &[Mailbox] {
        &self.parts.reply_to
    }

    /// The primary recipients.
    pub fn to(&self) -> &[Mailbox] {
        &self.parts.to
    }

    /// The recipients of a copy.
    pub fn cc(&self) -> &[Mailbox] {
        &self.parts.cc
    }

    /// The hidden recipients of a copy. They are in no header of the mail.
    pub fn bcc(&self) -> &[Mailbox] {
        &self.parts.bcc
    }

    /// The subject. Empty if there is none.
    pub fn subject(&self) -> &str {
        &self.parts.subject
    }

    /// The body as plain text, with `\n` at the line ends. `None` if there is none.
    pub fn text(&self) -> Option<&str> {
        self.parts.text.as_deref()
    }

    /// The body as HTML, with `\n` at the line ends. `None` if there is none.
    pub fn html(&self) -> Option<&str> {
        self.parts.html.as_deref()
    }

    /// Attached files and inline parts, in insertion order.
    pub fn attachments(&self) -> &[Attachment] {
        &self.parts.attachments
    }

    /// Custom headers, in insertion order. A name may occur more than once.
    pub fn headers(&self) -> &[Header] {
        &self.parts.headers
    }

    /// Labels for the provider's statistics.
    pub fn tags(&self) -> &[String] {
        &self.parts.tags
    }

    /// Pairs of key and value that a provider returns in its events.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.parts.metadata
    }

    /// How to unsubscribe from the mailing list. `None` if the mail has no such header.
    pub fn list_unsubscribe(&self) -> Option<&ListUnsubscribe> {
        self.parts.list_unsubscribe.as_ref()
    }

    /// The envelope sender, which receives bounces. `None` is the null reverse-path.
    ///
    /// It is [`envelope_from`](Self::envelope_from) if set, then the address of [`sender`](Self::sender), then that of
    /// [`from`](Self::from).
    pub fn reverse_path(&self) -> Option<&Address> {
        match &self.parts.envelope_from {
            Some(ReversePath::Null) => None,
            Some(ReversePath::Address(address)) => Some(address),
            None => Some(self.parts.sender.as_ref().unwrap_or(&self.from).address()),
        }
    }

    /// The envelope sender that was set on the builder. `None` if none was set.
    pub fn envelope_from(&self) -> Option<&ReversePath> {
        self.parts.envelope_from.as_ref()
    }

    /// Replaces all recipients by one mailbox, and lists them in a header of this name. A header that exists already is kept.
    pub(crate) fn redirected_to(mut self, to: &Mailbox, header: &str) -> Self {
        if !self.parts.headers.iter().any(|present| present.name().eq_ignore_ascii_case(header)) {
            let all: Vec<_> = self.recipient_addresses().into_iter().map(Address::as_str).collect();
            // Never an error: every address is a valid header value.
            self.parts.headers.extend(Header::new(header, all.join(", ")));
        }
        self.parts.to = vec![to.clone()];
        (self.parts.cc, self.parts.bcc) = (Vec::new(), Vec::new());
        self
    }

    /// Rewrites each attachment.
    #[cfg(feature = "mime")]
    pub(crate) fn map_attachments(mut self, rewrite: impl Fn(Attachment) -> Attachment) -> Self {
        self.parts.attachments = self.parts.attachments.into_iter().map(rewrite).collect();
        self
    }

    /// All recipients, each once: `to`, then `cc`, then `bcc`. The case of a domain makes no difference.
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

    /// Checks that it is an [`Address`]. The domain need not be in ASCII.
    fn check_recipient(recipient: &Recipient) -> Result<(), CodecError> {
        Address::check(recipient.as_str()).map_err(|error| CodecError::new(error.to_string()))
    }

    /// The From address.
    fn sender(&self) -> Option<&str> {
        Some(self.from.address().as_str())
    }

    fn summary(&self) -> MessageSummary {
        MessageSummary::new().with_subject(&*self.parts.subject).with_tags(self.parts.tags.clone())
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
