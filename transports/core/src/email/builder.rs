//! The builder of mails.

use std::collections::HashSet;
use std::fmt;

use memchr::memchr;

use crate::{Address, IntoMailbox, Mailbox};

use super::{Attachment, Email, EmailError, Header, ListUnsubscribe, Parts, ReversePath};

/// Builds an [`Email`]. The first error of any method is returned by [`build`](Self::build).
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

    /// Applies a fallible step. Does nothing after the first error.
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

    /// Sets the author. Required.
    pub fn from(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("from", mailbox, |mail, mailbox| mail.from = Some(mailbox))
    }

    /// Sets the sender on behalf of `from`.
    pub fn sender(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("sender", mailbox, |mail, mailbox| mail.parts.sender = Some(mailbox))
    }

    /// Adds a mailbox for replies.
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

    /// Adds a hidden recipient of a copy.
    pub fn bcc(self, mailbox: impl IntoMailbox) -> Self {
        self.mailbox("bcc", mailbox, |mail, mailbox| mail.parts.bcc.push(mailbox))
    }

    /// Sets the subject: one line.
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

    /// Sets the body as plain text. At least one body is required. Line ends become `\n` here, and CRLF when the mail is sent.
    ///
    /// An empty body is removed if the other one is not empty, because many providers refuse it.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.parts.text = Some(normalize_line_ends(text.into()));
        self
    }

    /// Sets the body as HTML, in the same way as [`text`](Self::text). With both bodies, the reader's mail program chooses one.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.parts.html = Some(normalize_line_ends(html.into()));
        self
    }

    /// Adds an attachment or an inline part.
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.parts.attachments.push(attachment);
        self
    }

    /// Adds a custom header: see [`Header::new`].
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let header = Header::new(name, value);
        self.step(|mail| {
            mail.parts.headers.push(header?);
            Ok(())
        })
    }

    /// Adds a label for the provider's statistics: 1 to 128 characters of printable ASCII. Duplicates are removed.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        self.step(|mail| {
            check_label(&tag)?;
            mail.parts.tags.push(tag);
            Ok(())
        })
    }

    /// Adds a pair that the provider returns in its events.
    ///
    /// The key has 1 to 64 letters, digits, `-` and `_`. The value has no control characters. A repeated key replaces the value.
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

    /// Sets the id of the template that the mail was made from, such as `welcome`: 1 to 128 characters of printable ASCII.
    ///
    /// It is stored, listed and logged, and not sent.
    pub fn template_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.step(|mail| {
            check_label(&id)?;
            mail.parts.template_id = Some(id);
            Ok(())
        })
    }

    /// Sets how to unsubscribe from the mailing list.
    pub fn list_unsubscribe(mut self, unsubscribe: ListUnsubscribe) -> Self {
        self.parts.list_unsubscribe = Some(unsubscribe);
        self
    }

    /// Sets the envelope sender, which receives bounces. Default: the sender, or else the author.
    pub fn envelope_from(mut self, address: Address) -> Self {
        self.parts.envelope_from = Some(ReversePath::Address(address));
        self
    }

    /// Sets the null reverse-path: nobody receives bounces.
    pub fn null_envelope_from(mut self) -> Self {
        self.parts.envelope_from = Some(ReversePath::Null);
        self
    }

    /// Sets the largest estimated size as sent, in octets. Default: [`Email::DEFAULT_SIZE_LIMIT`].
    pub fn size_limit(mut self, octets: usize) -> Self {
        self.size_limit = octets;
        self
    }

    /// Builds the mail.
    ///
    /// # Errors
    /// The first error in the order of the calls. Then a missing author, recipient or body. Then the size.
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
        parts.tags.retain(|tag| seen.insert(tag.clone()));
        let email = Email { from, parts };
        let size = estimate_size(&email);
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

/// Converts CRLF and lone CR to `\n`. Parsers disagree about a lone CR, so it could hide a line from one of them.
fn normalize_line_ends(text: String) -> String {
    if memchr(b'\r', text.as_bytes()).is_some() { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// Estimates the size as sent, in octets: bodies as they are, attachments as base64 with line ends.
fn estimate_size(email: &Email) -> usize {
    let base64 = |n: usize| n.div_ceil(57) * 78;
    let mailboxes = [&email.parts.reply_to, &email.parts.to, &email.parts.cc].into_iter().flatten();
    let addresses: usize = mailboxes.map(|m| m.address().as_str().len() + m.name().map_or(0, str::len) + 6).sum();
    let headers: usize = email.parts.headers.iter().map(|h| h.name().len() + h.value().len() + 4).sum();
    let attachments: usize = email.parts.attachments.iter().map(|a| base64(a.content().len()) + 300).sum();
    let bodies = email.parts.text.as_ref().map_or(0, String::len) + email.parts.html.as_ref().map_or(0, String::len);
    1_000 + addresses + email.parts.subject.len() + headers + attachments + bodies
}
