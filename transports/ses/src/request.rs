//! One message, made ready to be handed to SES; and what SES cannot carry.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_sdk_sesv2::types::MessageTag;
use postrider_transport::{Address, DeliveryId, Email, Failure, Mailbox, Mime, Outgoing, ReversePath, Unsupported};

use crate::SesError;

/// Developer guide, service quotas: recipients per message.
const RECIPIENTS: usize = 50;

/// Developer guide, service quotas: 40 MB by the version 2 API, attachments encoded. Nothing below it is refused here.
const SIZE: usize = 40 * 1024 * 1024;

/// Above this, in octets, attachments are too large to be written out only to see whether it can be done, unless they may be too
/// large for SES.
const CHECKED: usize = 256 * 1024;

/// Developer guide, header fields: what may occur only once, as far as a mail lets anybody set it.
const SINGLE: [&str; 36] = [
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

/// What one call hands to SES.
pub(crate) struct Request {
    pub(crate) raw: Vec<u8>,
    pub(crate) recipients: Vec<String>,
    pub(crate) tags: Vec<MessageTag>,
    /// Where failures are to be reported, if not to the address of From.
    pub(crate) feedback: Option<String>,
}

impl Request {
    pub(crate) fn new(mime: &Mime, feedback: Option<&Address>, outgoing: &Outgoing<Email>) -> Result<Self, Failure> {
        let email = outgoing.message();
        fits(email)?;
        if outgoing.recipients().is_empty() {
            return Err(SesError::no_recipient().into());
        }
        let raw = mime.render(outgoing)?;
        if !raw.is_ascii() {
            return Err(beyond_ascii().into());
        }
        if raw.len() > SIZE {
            return Err(Unsupported::new("messages of more than 40 MB, attachments encoded").into());
        }
        let recipients = outgoing.recipients().iter().map(|recipient| recipient.as_str().to_owned()).collect();
        let feedback = match email.envelope_from() {
            Some(ReversePath::Address(address)) => Some(address),
            _ => feedback.or(email.sender().map(Mailbox::address)),
        };
        let feedback = feedback.map(|address| address.as_str().to_owned());
        Ok(Self { raw, recipients, tags: tags(email)?, feedback })
    }
}

/// What can be said of a message without sending it.
pub(crate) fn check(email: &Email) -> Result<(), Failure> {
    fits(email)?;
    let attached: usize = email.attachments().iter().map(|attachment| attachment.content().len()).sum();
    // Base64 makes four octets of three.
    if attached <= CHECKED || attached > SIZE / 4 * 3 {
        Request::new(&Mime::new(), None, &Outgoing::new(DeliveryId::new(), SystemTime::UNIX_EPOCH, email.clone()))?;
        return Ok(());
    }
    if !Mime::new().check(email)?.is_ascii() {
        return Err(beyond_ascii().into());
    }
    Ok(())
}

fn fits(email: &Email) -> Result<(), Unsupported> {
    if email.recipient_addresses().len() > RECIPIENTS {
        return Err(Unsupported::new("more than 50 recipients of one message"));
    }
    if email.envelope_from() == Some(&ReversePath::Null) {
        return Err(Unsupported::new("a null reverse-path: SES always puts its own"));
    }
    let named = email.reply_to().iter().chain(email.sender()).chain([email.from()]).map(Mailbox::address);
    if !email.recipient_addresses().into_iter().chain(named).chain(email.reverse_path()).all(is_ascii) {
        // API reference v2, Destination: SMTPUTF8 (RFC 6531) is not supported.
        return Err(Unsupported::new("addresses whose local part is outside ASCII"));
    }
    let mut seen = HashSet::new();
    for header in email.headers() {
        let name = header.name().to_ascii_lowercase();
        if let Some(name) = SINGLE.into_iter().find(|single| *single == name).filter(|name| !seen.insert(*name)) {
            return Err(Unsupported::new(format!("the header {name} more than once")));
        }
    }
    tags(email).map(drop)
}

/// Developer guide, raw messages: 7-bit ASCII, lines of at most 1,000 characters. All that we encode is; an attached message need not be.
fn beyond_ascii() -> Unsupported {
    Unsupported::new("a message outside ASCII")
}

fn is_ascii(address: &Address) -> bool {
    address.as_str().is_ascii()
}

/// The mail's metadata as it is; its tags, which have no name, under the names `tag`, `tag-2`, `tag-3` and so on.
fn tags(email: &Email) -> Result<Vec<MessageTag>, Unsupported> {
    let labels = email.tags().iter().enumerate().map(|(index, tag)| match index {
        0 => ("tag".to_owned(), tag),
        _ => (format!("tag-{}", index + 1), tag),
    });
    let metadata = email.metadata().iter().map(|(key, value)| (key.clone(), value));
    let mut names = HashSet::new();
    labels
        .chain(metadata)
        .map(|(name, value)| {
            // API reference v2, MessageTag.
            let fits = |text: &str| {
                (1..=256).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            };
            if !fits(&name) || !fits(value) {
                return Err(Unsupported::new(
                    "tags and metadata other than 1 to 256 ASCII letters, digits, _ and - for each",
                ));
            }
            if !names.insert(name.clone()) {
                return Err(Unsupported::new("metadata named tag beside a tag"));
            }
            let tag = MessageTag::builder().name(name).value(value).build();
            tag.map_err(|_| Unsupported::new("tags without a name or a value"))
        })
        .collect()
}
