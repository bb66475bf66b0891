//! Mailjet: <https://dev.mailjet.com/email/guides/send-api-v31/>.

mod response;

use std::collections::BTreeMap;

use http::HeaderName;
use http::header::AUTHORIZATION;
use postrider_transport::{Attachment, Email, Failure, Mailbox, Outgoing, Receipt, Scope, Unsupported};
use serde::Serialize;

use super::json::{base64, join_values};
use super::recipients::check_ascii_addresses;
use crate::config::read_env;
use crate::{BatchLimits, BatchOutcome, Fields, HttpConfigError, Provider, ProviderUrl, Request, Response, Secret};

/// Mailjet, by its Send API v3.1.
///
/// The delivery's id becomes the `CustomID` and metadata the `EventPayload`, as a JSON object; both come back in events. A tag becomes the
/// `CustomCampaign` of Mailjet's statistics. Mailjet writes the Message-ID itself.
///
/// Each message has a status of its own in the answer, whatever the status of the answer as a whole.
///
/// | Response | Means |
/// |---|---|
/// | status `success` | accepted; the id is the `MessageID` of the first recipient |
/// | `send-0008`, `mj-0013` for `From` | [`Sender`](crate::HttpErrorKind::Sender) |
/// | `mj-0001`, `mj-0015`, `send-0006`, `send-0007`; 401 | [`Account`](crate::HttpErrorKind::Account) |
/// | `mj-0013` for recipients | [`Recipient`](crate::HttpErrorKind::Recipient) |
/// | `mj-0002` to `mj-0004`, `mj-0006`, `mj-0011`, other `mj-0013`, `send-0003`, `send-0011`, `send-0015`; 413 | [`Message`](crate::HttpErrorKind::Message) |
/// | 429 | [`RateLimit`](crate::HttpErrorKind::RateLimit) |
/// | 500 in its own form | [`ServerError`](crate::HttpErrorKind::ServerError); in a batch [`NoResponse`](crate::HttpErrorKind::NoResponse), since some may have been accepted |
#[derive(Debug, Clone)]
pub struct Mailjet {
    keys: Secret,
    us: bool,
    sandbox: bool,
}

impl Mailjet {
    /// With an API key and its secret key.
    ///
    /// # Errors
    /// When one of them is empty or has characters that no key has.
    pub fn new(key: impl AsRef<str>, secret: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { keys: Secret::basic(key.as_ref(), secret.as_ref())?, us: false, sandbox: false })
    }

    /// With the keys in the environment variables `MJ_APIKEY_PUBLIC` and `MJ_APIKEY_PRIVATE`.
    ///
    /// # Errors
    /// When one is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("MJ_APIKEY_PUBLIC")?, read_env("MJ_APIKEY_PRIVATE")?)
    }

    /// By the servers in the United States, for accounts that were moved there. In a URL: `region=us`.
    #[must_use]
    pub fn us(mut self) -> Self {
        self.us = true;
        self
    }

    /// Checks requests without sending anything. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }

    /// The messages, each already JSON, in one request.
    fn send<'a>(&self, messages: impl Iterator<Item = &'a [u8]> + Clone) -> Request {
        Request::json_bytes("/v3.1/send", join_values(OPEN, messages, self.close()))
    }

    fn close(&self) -> &'static str {
        if self.sandbox { r#"],"SandboxMode":true}"# } else { "]}" }
    }
}

/// What comes before the messages of a request.
const OPEN: &str = r#"{"Messages":["#;

/// As many recipients as one message may have, in all its fields.
const MAX_RECIPIENTS: usize = 50;

/// As many elements as any array may have: messages, attachments, inlined attachments, headers.
const MAX_ELEMENTS: usize = 50;

/// How long a subject may be, in characters.
const MAX_SUBJECT: usize = 255;

/// How large the attachments of one message may be, in octets; a batch as a whole is kept below it too.
const MAX_ATTACHMENTS: usize = 15 * 1024 * 1024;

/// Headers that the API refuses, beside those that no [`Email`] can have.
const RESERVED: [&str; 10] = [
    "authentication-results",
    "delivered-to",
    "domainkey-status",
    "list-id",
    "received",
    "received-spf",
    "user-agent",
    "x-csa-complaints",
    "x-feedback-id",
    "x-mailer",
];

/// Headers that begin so are Mailjet's own settings.
const RESERVED_PREFIXES: [&str; 2] = ["x-mailjet-", "x-mj-"];

impl Provider for Mailjet {
    const NAME: &'static str = "mailjet";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut mailjet = Self::new(url.key()?, url.second("a secret key between the : and the @")?)?;
        mailjet.us = url.choice("region", "global", "us")?;
        mailjet.sandbox = url.flag("sandbox")?;
        Ok(mailjet)
    }

    fn base_url(&self) -> &str {
        if self.us { "https://api.us.mailjet.com" } else { "https://api.mailjet.com" }
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.keys)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        Fields::check_to(email)?;
        Fields::check_unique_headers(email)?;
        Fields::check_one_reply_to(email)?;
        check_ascii_addresses(email)?;
        if email.recipient_addresses().len() > MAX_RECIPIENTS {
            return Err(Unsupported::new("more than 50 recipients"));
        }
        if email.tags().len() > 1 {
            return Err(Unsupported::new("more than one tag"));
        }
        if email.subject().chars().count() > MAX_SUBJECT {
            return Err(Unsupported::new("a subject of more than 255 characters"));
        }
        let list = email.list_unsubscribe().map_or(0, |list| 1 + usize::from(list.is_one_click()));
        if email.headers().len() + list > MAX_ELEMENTS {
            return Err(Unsupported::new("more than 50 headers"));
        }
        let (inline, attached): (Vec<_>, Vec<_>) = email.attachments().iter().partition(|file| is_inline(file));
        if inline.len().max(attached.len()) > MAX_ELEMENTS {
            return Err(Unsupported::new("more than 50 attachments of a kind"));
        }
        if email.attachments().iter().map(|file| file.content().len()).sum::<usize>() > MAX_ATTACHMENTS {
            return Err(Unsupported::new("attachments of more than 15 MB"));
        }
        for header in email.headers() {
            let name = header.name().to_ascii_lowercase();
            if RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                return Err(Unsupported::new(format!("the header {}", header.name())));
            }
        }
        Ok(())
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::with_to(outgoing)?;
        let people = |mailboxes: Vec<_>| mailboxes.into_iter().map(JsonMailbox::from).collect();
        let files = |inline| {
            email.attachments().iter().filter(|file| is_inline(file) == inline).map(File::from).collect::<Vec<_>>()
        };
        let unwritable = |_| Failure::permanent(Scope::Message, "the message has no form in JSON");
        let payload = Some(email.metadata()).filter(|metadata| !metadata.is_empty()).map(serde_json::to_string);
        let message = Message {
            from: JsonMailbox::from(email.from()),
            to: people(fields.to),
            cc: people(fields.cc),
            bcc: people(fields.bcc),
            reply_to: fields.reply_to.first().copied().map(JsonMailbox::from),
            subject: email.subject(),
            text_part: email.text(),
            html_part: email.html(),
            attachments: files(false),
            inlined_attachments: files(true),
            headers: fields.headers.into_iter().collect(),
            custom_id: outgoing.id().to_string(),
            event_payload: payload.transpose().map_err(unwritable)?,
            custom_campaign: email.tags().first().map(String::as_str),
        };
        let message = serde_json::to_vec(&message).map_err(unwritable)?;
        Ok(self.send([message.as_slice()].into_iter()))
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        response::parse_response(outgoing, response)
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(BatchLimits::new(MAX_ELEMENTS, MAX_ATTACHMENTS))
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        self.send(batch.iter().map(|(_, request)| {
            let body = request.body();
            &body[OPEN.len()..body.len() - self.close().len()]
        }))
    }

    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        response::parse_batch_response(batch, response)
    }
}

fn is_inline(file: &Attachment) -> bool {
    file.content_id().is_some()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    from: JsonMailbox<'a>,
    to: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<JsonMailbox<'a>>,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_part: Option<&'a str>,
    #[serde(rename = "HTMLPart", skip_serializing_if = "Option::is_none")]
    html_part: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<File<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inlined_attachments: Vec<File<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, String>,
    #[serde(rename = "CustomID")]
    custom_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_campaign: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JsonMailbox<'a> {
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> From<&'a Mailbox> for JsonMailbox<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        Self { email: mailbox.address().as_str(), name: mailbox.name() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct File<'a> {
    content_type: &'a str,
    filename: &'a str,
    #[serde(rename = "ContentID", skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
    base64_content: String,
}

impl<'a> From<&'a Attachment> for File<'a> {
    fn from(file: &'a Attachment) -> Self {
        Self {
            content_type: file.content_type(),
            filename: file.file_name(),
            content_id: file.content_id(),
            base64_content: base64(file.content()),
        }
    }
}
