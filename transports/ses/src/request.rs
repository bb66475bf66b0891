//! Prepares a message for SES, and checks what SES supports.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_sdk_sesv2::types::MessageTag;
use postrider_transport::{Address, DeliveryId, Email, Failure, Mailbox, Mime, Outgoing, ReversePath, Unsupported};

use crate::SesError;

/// Maximum number of recipients of a message (developer guide, service quotas).
const MAX_RECIPIENTS: usize = 50;

/// Maximum size of a message with attachments encoded, in octets (developer guide, service quotas: 40 MB with the API v2).
const MAX_MESSAGE: usize = 40 * 1024 * 1024;

/// Maximum size of attachments for which `check` renders the message, in octets.
///
/// Larger ones cost too much to render only for a check, unless they may exceed the limit of SES.
const MAX_RENDERED_BY_CHECK: usize = 256 * 1024;

/// Headers that may occur only once (developer guide, header fields), without those that a mail cannot set.
const SINGLE_HEADERS: [&str; 36] = [
    "accept-language",
    "acceptlanguage",
    "archived-at",
    "auto-submitted",
    "bounces-to",
    "comments",
    "delivered-to",
    "disposition-notification-options",
    "disposition-notification-to",
    "domainkey-signature",
    "errors-to",
    "importance",
    "in-reply-to",
    "keywords",
    "list-archive",
    "list-help",
    "list-id",
    "list-owner",
    "list-post",
    "list-subscribe",
    "message-context",
    "organization",
    "original-from",
    "original-message-id",
    "original-recipient",
    "original-subject",
    "precedence",
    "priority",
    "references",
    "return-receipt-to",
    "sensitivity",
    "solicitation",
    "thread-index",
    "thread-topic",
    "user-agent",
    "vbr-info",
];

/// A message that is ready for one call of SES.
pub(crate) struct PreparedMessage {
    /// The rendered MIME message.
    pub(crate) raw: Vec<u8>,
    pub(crate) recipients: Vec<String>,
    pub(crate) tags: Vec<MessageTag>,
    /// Address for bounces and complaints. `None` for the address of From.
    pub(crate) feedback_address: Option<String>,
}

impl PreparedMessage {
    pub(crate) fn new(
        mime: &Mime,
        feedback_address: Option<&Address>,
        outgoing: &Outgoing<Email>,
    ) -> Result<Self, Failure> {
        let email = outgoing.message();
        check_limits(email)?;
        if outgoing.recipients().is_empty() {
            return Err(SesError::no_recipient().into());
        }
        let raw = mime.render(outgoing)?;
        if !raw.is_ascii() {
            return Err(non_ascii_error().into());
        }
        if raw.len() > MAX_MESSAGE {
            return Err(Unsupported::new("a message of more than 40 MB with attachments encoded").into());
        }
        let recipients = outgoing.recipients().iter().map(|recipient| recipient.as_str().to_owned()).collect();
        let feedback_address = match email.envelope_from() {
            Some(ReversePath::Address(address)) => Some(address),
            _ => feedback_address.or(email.sender().map(Mailbox::address)),
        };
        let feedback_address = feedback_address.map(|address| address.as_str().to_owned());
        Ok(Self { raw, recipients, tags: message_tags(email)?, feedback_address })
    }
}

/// Checks a mail without sending it.
pub(crate) fn check(email: &Email) -> Result<(), Failure> {
    check_limits(email)?;
    let attached: usize = email.attachments().iter().map(|attachment| attachment.content().len()).sum();
    // Base64 encodes three octets as four.
    if attached <= MAX_RENDERED_BY_CHECK || attached > MAX_MESSAGE / 4 * 3 {
        PreparedMessage::new(
            &Mime::new(),
            None,
            &Outgoing::new(DeliveryId::new(), SystemTime::UNIX_EPOCH, email.clone()),
        )?;
        return Ok(());
    }
    if !Mime::new().check(email)?.is_ascii() {
        return Err(non_ascii_error().into());
    }
    Ok(())
}

fn check_limits(email: &Email) -> Result<(), Unsupported> {
    if email.recipient_addresses().len() > MAX_RECIPIENTS {
        return Err(Unsupported::new("more than 50 recipients"));
    }
    if email.envelope_from() == Some(&ReversePath::Null) {
        return Err(Unsupported::new("a null reverse-path, since SES sets the envelope sender"));
    }
    let others = email.reply_to().iter().chain(email.sender()).chain([email.from()]).map(Mailbox::address);
    if !email.recipient_addresses().into_iter().chain(others).chain(email.reverse_path()).all(is_ascii) {
        // API reference v2, Destination: SMTPUTF8 (RFC 6531) is not supported.
        return Err(Unsupported::new("addresses whose local part is outside ASCII"));
    }
    let mut seen = HashSet::new();
    for header in email.headers() {
        let name = header.name().to_ascii_lowercase();
        if let Some(name) = SINGLE_HEADERS.into_iter().find(|single| *single == name).filter(|name| !seen.insert(*name))
        {
            return Err(Unsupported::new(format!("the header {name} more than once")));
        }
    }
    message_tags(email).map(drop)
}

/// Error for an attached message outside ASCII, the only part that is not encoded.
///
/// SES requires 7-bit ASCII with lines of at most 1,000 characters (developer guide, raw messages).
fn non_ascii_error() -> Unsupported {
    Unsupported::new("a message outside ASCII")
}

fn is_ascii(address: &Address) -> bool {
    address.as_str().is_ascii()
}

/// The tags of the request: the mail's tags under the names `tag`, `tag-2`, `tag-3` and so on, and the metadata under its keys.
fn message_tags(email: &Email) -> Result<Vec<MessageTag>, Unsupported> {
    let tags = email.tags().iter().enumerate().map(|(index, tag)| match index {
        0 => ("tag".to_owned(), tag),
        _ => (format!("tag-{}", index + 1), tag),
    });
    let metadata = email.metadata().iter().map(|(key, value)| (key.clone(), value));
    let mut names = HashSet::new();
    tags.chain(metadata)
        .map(|(name, value)| {
            // By the API reference v2, MessageTag.
            let is_valid = |text: &str| {
                (1..=256).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            };
            if !is_valid(&name) || !is_valid(value) {
                return Err(Unsupported::new("a tag or metadata that is not 1 to 256 ASCII letters, digits, _ and -"));
            }
            if !names.insert(name.clone()) {
                return Err(Unsupported::new("metadata with a key named tag, beside a tag"));
            }
            let tag = MessageTag::builder().name(name).value(value).build();
            tag.map_err(|_| Unsupported::new("a tag without a name or a value"))
        })
        .collect()
}
