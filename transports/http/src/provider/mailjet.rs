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

/// Mailjet's Send API v3.1.
///
/// The delivery id is sent as `CustomID`, and metadata as a JSON object in `EventPayload`. Events return both. The tag is sent as
/// `CustomCampaign`, which groups Mailjet's statistics. Mailjet sets the Message-ID.
///
/// The response has a status for each message, independent of the HTTP status.
///
/// | Response | Means |
/// |---|---|
/// | status `success` | accepted; the id is the `MessageID` of the first recipient |
/// | `send-0008`, `mj-0013` for `From` | [`Sender`](crate::HttpErrorKind::Sender) |
/// | `mj-0001`, `mj-0015`, `send-0006`, `send-0007`; 401 | [`Account`](crate::HttpErrorKind::Account) |
/// | `mj-0013` for recipients | [`Recipient`](crate::HttpErrorKind::Recipient) |
/// | `mj-0002` to `mj-0004`, `mj-0006`, `mj-0011`, other `mj-0013`, `send-0003`, `send-0011`, `send-0015`; 413 | [`Message`](crate::HttpErrorKind::Message) |
/// | 429 | [`RateLimit`](crate::HttpErrorKind::RateLimit) |
/// | 500 in the provider's format | [`ServerError`](crate::HttpErrorKind::ServerError); in a batch [`NoResponse`](crate::HttpErrorKind::NoResponse), since some messages may have been accepted |
#[derive(Debug, Clone)]
pub struct Mailjet {
    keys: Secret,
    us: bool,
    sandbox: bool,
}

impl Mailjet {
    /// Creates the provider with an API key and its secret key.
    ///
    /// # Errors
    /// If one of them is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>, secret: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { keys: Secret::basic(key.as_ref(), secret.as_ref())?, us: false, sandbox: false })
    }

    /// Reads the keys from the environment variables `MJ_APIKEY_PUBLIC` and `MJ_APIKEY_PRIVATE`.
    ///
    /// # Errors
    /// If one is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("MJ_APIKEY_PUBLIC")?, read_env("MJ_APIKEY_PRIVATE")?)
    }

    /// Uses the servers in the United States, for accounts that were moved there. In a URL: `region=us`.
    #[must_use]
    pub fn us(mut self) -> Self {
        self.us = true;
        self
    }

    /// Validates requests without sending mail. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }

    /// Builds a request with messages that are already JSON.
    fn build_request_with<'a>(&self, messages: impl Iterator<Item = &'a [u8]> + Clone) -> Request {
        Request::json_bytes("/v3.1/send", join_values(PREFIX, messages, self.suffix()))
    }

    /// JSON after the messages of a request.
    fn suffix(&self) -> &'static str {
        if self.sandbox { r#"],"SandboxMode":true}"# } else { "]}" }
    }
}

/// JSON before the messages of a request.
const PREFIX: &str = r#"{"Messages":["#;

/// Maximum number of recipients of a message, in all fields.
const MAX_RECIPIENTS: usize = 50;

/// Maximum length of each array: messages, attachments, inlined attachments, headers.
const MAX_ELEMENTS: usize = 50;

/// Maximum length of a subject, in characters.
const MAX_SUBJECT: usize = 255;

/// Maximum size of the attachments of a message, in octets. The transport applies it to the whole request of a batch too.
const MAX_ATTACHMENTS: usize = 15 * 1024 * 1024;

/// Headers that the API refuses, in addition to those that [`Email`] refuses.
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

/// Prefixes of headers that are settings for Mailjet.
const RESERVED_PREFIXES: [&str; 2] = ["x-mailjet-", "x-mj-"];

impl Provider for Mailjet {
    const NAME: &'static str = "mailjet";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut mailjet = Self::new(url.key()?, url.secret("a secret key between the : and the @")?)?;
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
            return Err(Unsupported::new("more than 50 inline or 50 other attachments"));
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
        let to_json = |mailboxes: Vec<_>| mailboxes.into_iter().map(JsonMailbox::from).collect();
        let files = |inline| {
            email.attachments().iter().filter(|file| is_inline(file) == inline).map(File::from).collect::<Vec<_>>()
        };
        let json_error = |_| Failure::permanent(Scope::Message, "the message cannot be serialized as JSON");
        let payload = Some(email.metadata()).filter(|metadata| !metadata.is_empty()).map(serde_json::to_string);
        let message = Message {
            from: JsonMailbox::from(email.from()),
            to: to_json(fields.to),
            cc: to_json(fields.cc),
            bcc: to_json(fields.bcc),
            reply_to: fields.reply_to.first().copied().map(JsonMailbox::from),
            subject: email.subject(),
            text_part: email.text(),
            html_part: email.html(),
            attachments: files(false),
            inlined_attachments: files(true),
            headers: fields.headers.into_iter().collect(),
            custom_id: outgoing.id().to_string(),
            event_payload: payload.transpose().map_err(json_error)?,
            custom_campaign: email.tags().first().map(String::as_str),
        };
        let message = serde_json::to_vec(&message).map_err(json_error)?;
        Ok(self.build_request_with([message.as_slice()].into_iter()))
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        response::parse_response(outgoing, response)
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(BatchLimits::new(MAX_ELEMENTS, MAX_ATTACHMENTS))
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        self.build_request_with(batch.iter().map(|(_, request)| {
            let body = request.body();
            &body[PREFIX.len()..body.len() - self.suffix().len()]
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
