//! Building a mail, with every rule checked before it exists.

use std::collections::HashSet;
use std::fmt;

use memchr::memchr;

use crate::{Address, AddressError, IntoMailbox, Mailbox};

use super::{Attachment, Email, Header, ListUnsubscribe, Parts, ReversePath};

/// Collects a mail. Nothing is checked away silently: the first thing that is wrong comes out of [`build`](Self::build).
#[derive(Clone)]
#[must_use = "a builder does nothing until build is called"]
pub struct EmailBuilder {
    from: Option<Mailbox>,
    parts: Box<Parts>,
    size_limit: usize,
    error: Option<EmailError>,
}

impl EmailBuilder {
    pub(super) fn new() -> Self {
        Self { from: None, parts: Box::default(), size_limit: Email::DEFAULT_SIZE_LIMIT, error: None }
    }

    /// Applies a fallible step; after the first error, steps change nothing.
    fn step(mut self, apply: impl FnOnce(&mut Self) -> Result<(), EmailError>) -> Self {
        if self.error.is_none() {
            self.error = apply(&mut self).err();
        }
        self
    }

    fn mailbox(self, field: &'static str, mailbox: impl IntoMailbox, put: impl FnOnce(&mut Self, Mailbox)) -> Self {
        self.step(|mail| {
            put(mail, mailbox.into_mailbox().map_err(|source| EmailError::Address { field, source })?);
            Ok(())
        })
    }

    /// Who the mail is from. Required. A second call replaces the first.
    pub fn from(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("from", mailbox, |mail, mailbox| mail.from = Some(mailbox))
    }

    /// Who sends in the name of `from`.
    pub fn sender(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("sender", mailbox, |mail, mailbox| mail.parts.sender = Some(mailbox))
    }

    /// Adds a mailbox for answers.
    pub fn reply_to(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("reply-to", mailbox, |mail, mailbox| mail.parts.reply_to.push(mailbox))
    }

    /// Adds a recipient. At least one of `to`, `cc` and `bcc` is required.
    pub fn to(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("to", mailbox, |mail, mailbox| mail.parts.to.push(mailbox))
    }

    /// Adds a recipient of a copy.
    pub fn cc(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("cc", mailbox, |mail, mailbox| mail.parts.cc.push(mailbox))
    }

    /// Adds a recipient of a copy whom the others do not see.
    pub fn bcc(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("bcc", mailbox, |mail, mailbox| mail.parts.bcc.push(mailbox))
    }

    /// The subject: one line.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        let subject = subject.into();
        self.step(|mail| {
            if subject.chars().any(|c| c.is_control() && c != '\t') {
                return Err(EmailError::Subject);
            }
            mail.parts.subject = subject;
            Ok(())
        })
    }

    /// The body as plain text. At least one body is required. Line ends of any kind become `\n` here, and CRLF on the wire.
    ///
    /// An empty body beside one that is not empty is left out: it has nothing to show, and many providers refuse it.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.parts.text = Some(normalize_line_ends(text.into()));
        self
    }

    /// The body as HTML. With both bodies, the reader's program chooses. An empty one is left out as [`text`](Self::text) says.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.parts.html = Some(normalize_line_ends(html.into()));
        self
    }

    /// Adds an attachment or an inline part.
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.parts.attachments.push(attachment);
        self
    }

    /// Adds a custom header, in the terms of [`Header::new`].
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let header = Header::new(name, value);
        self.step(|mail| {
            mail.parts.headers.push(header?);
            Ok(())
        })
    }

    /// Adds a label for the provider's statistics: printable ASCII, at most 128 characters. One that is there already is not added again.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        self.step(|mail| {
            check_label(&tag)?;
            mail.parts.tags.push(tag);
            Ok(())
        })
    }

    /// Adds a pair that the provider hands back in its events. The key: letters, digits, `-` and `_`, at most 64; the value:
    /// without control characters.
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.step(|mail| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if key.is_empty() || key.len() > 64 || !key.bytes().all(plain) || value.chars().any(char::is_control) {
                return Err(EmailError::Metadata);
            }
            mail.parts.metadata.insert(key, value);
            Ok(())
        })
    }

    /// The name of what the mail was made from, such as `welcome`. It is stored, listed and logged, and not sent: printable
    /// ASCII, at most 128 characters.
    pub fn template_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.step(|mail| {
            check_label(&id)?;
            mail.parts.template_id = Some(id);
            Ok(())
        })
    }

    /// How to leave the list.
    pub fn list_unsubscribe(mut self, unsubscribe: ListUnsubscribe) -> Self {
        self.parts.list_unsubscribe = Some(unsubscribe);
        self
    }

    /// Where failures are reported, if not to the sender.
    pub fn envelope_from(mut self, address: Address) -> Self {
        self.parts.envelope_from = Some(ReversePath::Address(address));
        self
    }

    /// Failures are reported to nobody (the null reverse-path).
    pub fn null_envelope_from(mut self) -> Self {
        self.parts.envelope_from = Some(ReversePath::Null);
        self
    }

    /// Sets the largest size accepted, in octets as they travel. Default: [`Email::DEFAULT_SIZE_LIMIT`].
    pub fn size_limit(mut self, octets: usize) -> Self {
        self.size_limit = octets;
        self
    }

    /// Checks the mail as a whole and makes it.
    ///
    /// # Errors
    /// The first thing that was wrong, in the order of the calls; then a missing sender, recipient or body; then the size.
    pub fn build(self) -> Result<Email, EmailError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let Self { from, mut parts, .. } = self;
        let from = from.ok_or(EmailError::NoSender)?;
        if parts.to.is_empty() && parts.cc.is_empty() && parts.bcc.is_empty() {
            return Err(EmailError::NoRecipient);
        }
        if parts.text.is_none() && parts.html.is_none() {
            return Err(EmailError::NoBody);
        }
        let has_content = |body: &Option<String>| body.as_ref().is_some_and(|body| !body.is_empty());
        if has_content(&parts.text) || has_content(&parts.html) {
            parts.text.take_if(|body| body.is_empty());
            parts.html.take_if(|body| body.is_empty());
        }
        let mut seen = HashSet::new();
        let first: Vec<bool> = parts.tags.iter().map(|tag| seen.insert(tag.as_str())).collect();
        let mut first = first.into_iter();
        parts.tags.retain(|_| first.next().unwrap_or_default());
        let email = Email { from, parts };
        let size = wire_size(&email);
        if size > self.size_limit {
            return Err(EmailError::TooLarge { size, limit: self.size_limit });
        }
        Ok(email)
    }
}

impl fmt::Debug for EmailBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailBuilder").field("error", &self.error).finish_non_exhaustive()
    }
}

fn check_label(label: &str) -> Result<(), EmailError> {
    if label.is_empty() || label.len() > 128 || !label.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(EmailError::Label);
    }
    Ok(())
}

/// A lone CR is a line end of old; left as it is, it could hide a line from one parser and show it to another.
fn normalize_line_ends(text: String) -> String {
    if memchr(b'\r', text.as_bytes()).is_some() { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// About how large the mail will be on the wire: bodies grow little, attachments grow by base64 with its line ends.
fn wire_size(email: &Email) -> usize {
    let base64 = |n: usize| n.div_ceil(57) * 78;
    let mailboxes = [&email.parts.reply_to, &email.parts.to, &email.parts.cc].into_iter().flatten();
    let addresses: usize = mailboxes.map(|m| m.address().as_str().len() + m.name().map_or(0, str::len) + 6).sum();
    let headers: usize = email.parts.headers.iter().map(|h| h.name().len() + h.value().len() + 4).sum();
    let attachments: usize = email.parts.attachments.iter().map(|a| base64(a.content().len()) + 300).sum();
    let bodies = email.parts.text.as_ref().map_or(0, String::len) + email.parts.html.as_ref().map_or(0, String::len);
    1_000 + addresses + email.parts.subject.len() + headers + attachments + bodies
}

/// Why a mail cannot be built. The message says what to mend; it repeats no words of the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmailError {
    /// An address is malformed.
    Address {
        /// The field it was given for.
        field: &'static str,
        /// What is wrong with it.
        source: AddressError,
    },
    /// `from` is missing.
    NoSender,
    /// There is neither `to`, `cc` nor `bcc`.
    NoRecipient,
    /// There is neither a text nor an HTML body.
    NoBody,
    /// The subject has a line break or another control character.
    Subject,
    /// A header's name is empty, too long, or holds something other than printable ASCII without a colon.
    HeaderName,
    /// A header's value has a line break or another control character.
    HeaderValue {
        /// The header.
        name: String,
    },
    /// A custom header has a word that is longer than a line of a message may be.
    LongWord {
        /// The header.
        field: String,
    },
    /// The header is one that the mail writes itself, from its own fields or from the delivery.
    OwnHeader {
        /// The header.
        name: String,
    },
    /// A tag or template id is empty, longer than 128 characters, or not printable ASCII.
    Label,
    /// A metadata key or value is not allowed.
    Metadata,
    /// An attachment has no name, or a control character in it.
    FileName,
    /// An attachment's media type is malformed.
    ContentType {
        /// What was given.
        given: String,
    },
    /// A stored attachment's content is not base64.
    AttachmentContent,
    /// A content id is empty or not printable ASCII.
    ContentId,
    /// The unsubscribe URI is not of an allowed kind.
    ListUnsubscribe,
    /// The mail is larger than the limit.
    TooLarge {
        /// Its size, in octets as they travel, estimated.
        size: usize,
        /// The limit, in octets.
        limit: usize,
    },
}

impl fmt::Display for EmailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { field, source } => write!(f, "{field}: {source}"),
            Self::NoSender => f.write_str("the mail has no sender: set from"),
            Self::NoRecipient => f.write_str("the mail has no recipient: add to, cc or bcc"),
            Self::NoBody => f.write_str("the mail has no body: set text or html"),
            Self::Subject => f.write_str("the subject has a line break or another control character"),
            Self::HeaderName => f.write_str("a header name must be 1 to 76 printable ASCII characters without a colon"),
            Self::HeaderValue { name } => {
                write!(f, "header {name}: the value has a line break or another control character")
            }
            Self::LongWord { field } => {
                write!(f, "{field}: a word of it is longer than 900 octets, and no line may be")
            }
            Self::OwnHeader { name } => {
                write!(f, "header {name} is written by the mail itself and cannot be set by hand")
            }
            Self::Label => f.write_str("a tag or template id must be 1 to 128 printable ASCII characters"),
            Self::Metadata => f.write_str(
                "a metadata key must be 1 to 64 letters, digits, - or _, and its value must hold no control characters",
            ),
            Self::FileName => f.write_str("an attachment needs a file name without control characters"),
            Self::ContentType { given } => write!(f, "{given:?} is no media type"),
            Self::AttachmentContent => f.write_str("an attachment's content is not base64"),
            Self::ContentId => f.write_str("a content id must be printable ASCII without spaces, < and >"),
            Self::ListUnsubscribe => f.write_str(
                "the unsubscribe URI must be https:, http: or mailto: in printable ASCII; for one click, https:",
            ),
            Self::TooLarge { size, limit } => write!(f, "the mail has about {size} octets, and the limit is {limit}"),
        }
    }
}

impl std::error::Error for EmailError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { source, .. } => Some(source),
            _ => None,
        }
    }
}
