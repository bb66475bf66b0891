//! SendGrid: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>.

use std::collections::{BTreeMap, HashSet};

use http::HeaderName;
use http::header::AUTHORIZATION;
use postrider_transport::{Attachment, Email, Failure, Mailbox, Outgoing, Receipt, Unsupported};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::json::{JsonMailbox, base64, lenient_string, receipt_with_id};
use super::recipients::check_ascii_addresses;
use super::rules::{self, ApiError, Rule, on_status, on_text};
use crate::config::read_env;
use crate::encoded_word::quote;
use crate::{Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// SendGrid, by its Web API v3.
///
/// Tags become categories and metadata custom arguments. The answer has no word on single recipients; those on a suppression list are
/// dropped later, which its event webhook tells. SendGrid takes two addresses that differ in case only for the same, and refuses a mail with
/// both; so it is refused here. Local parts outside ASCII it does not carry.
///
/// An attachment's type has no parameters. A `charset` of UTF-8 or US-ASCII is left out where the content is ASCII, which reads the same
/// without it; SendGrid may name another one in its place. Any other parameter is refused, and so is a `;` or a `,` in a file name or a
/// content id.
///
/// | Response | Means |
/// |---|---|
/// | 202; 200 in the sandbox | accepted; the id is in `X-Message-Id` |
/// | 403 about the from address, 400 about the field `from` | [`Sender`](HttpErrorKind::Sender) |
/// | 400 about an address in the field `personalizations` | [`Recipient`](HttpErrorKind::Recipient) |
/// | other 400 that name a field, 413 | [`Message`](HttpErrorKind::Message) |
/// | 401 about credits | [`Quota`](HttpErrorKind::Quota) |
/// | other 401, 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | 429 | [`RateLimit`](HttpErrorKind::RateLimit), until `X-RateLimit-Reset` |
/// | 500 in its own form | [`ServerError`](HttpErrorKind::ServerError) |
#[derive(Debug, Clone)]
pub struct SendGrid {
    key: Secret,
    eu: bool,
    sandbox: bool,
}

impl SendGrid {
    /// With an API key that may send mail.
    ///
    /// # Errors
    /// When the key is empty or has characters that no key has.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())?, eu: false, sandbox: false })
    }

    /// With the key in the environment variable `SENDGRID_API_KEY`.
    ///
    /// # Errors
    /// When it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("SENDGRID_API_KEY")?)
    }

    /// By the servers in the European Union, for subusers of that region. In a URL: `region=eu`.
    #[must_use]
    pub fn eu(mut self) -> Self {
        self.eu = true;
        self
    }

    /// Checks requests without sending anything. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }
}

/// As many recipients as one request may have, in all its fields.
const MAX_RECIPIENTS: usize = 1000;

/// As many categories as one request may have.
const MAX_CATEGORIES: usize = 10;

/// How long all custom arguments together may be, in octets.
const MAX_CUSTOM_ARGS: usize = 10_000;

/// Headers that the API refuses, beside those that no [`Email`] can have.
const RESERVED: [&str; 3] = ["x-sg-id", "x-sg-eid", "received"];

/// What no type, name and content id of an attachment may have, beside line breaks:
/// <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors>.
const PROHIBITED: [char; 2] = [';', ','];

impl Provider for SendGrid {
    const NAME: &'static str = "sendgrid";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut sendgrid = Self::new(url.key()?)?;
        sendgrid.eu = url.choice("region", "global", "eu")?;
        sendgrid.sandbox = url.flag("sandbox")?;
        Ok(sendgrid)
    }

    fn base_url(&self) -> &str {
        if self.eu { "https://api.eu.sendgrid.com" } else { "https://api.sendgrid.com" }
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        Fields::check_to(email)?;
        Fields::check_unique_headers(email)?;
        check_ascii_addresses(email)?;
        if !are_unique(email) {
            return Err(Unsupported::new("two recipients whose addresses differ in case only"));
        }
        if email.recipient_addresses().len() > MAX_RECIPIENTS {
            return Err(Unsupported::new("more than 1000 recipients"));
        }
        if email.tags().len() > MAX_CATEGORIES {
            return Err(Unsupported::new("more than 10 tags"));
        }
        if email.metadata().iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() >= MAX_CUSTOM_ARGS {
            return Err(Unsupported::new("metadata of 10000 octets"));
        }
        if email.subject().is_empty() {
            return Err(Unsupported::new("a mail without a subject"));
        }
        for file in email.attachments() {
            if media_type(file).is_none() {
                return Err(Unsupported::new("an attachment's type with parameters"));
            }
            if [Some(file.file_name()), file.content_id()].into_iter().flatten().any(|text| text.contains(PROHIBITED)) {
                return Err(Unsupported::new("an attachment's name or content id with a comma or semicolon"));
            }
        }
        for header in email.headers() {
            if RESERVED.contains(&header.name().to_ascii_lowercase().as_str()) {
                return Err(Unsupported::new(format!("the header {}", header.name())));
            }
        }
        Ok(())
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::with_to(outgoing)?;
        let people = |mailboxes: Vec<_>| mailboxes.into_iter().map(recipient).collect();
        let mut headers: BTreeMap<&str, String> = fields.headers.into_iter().collect();
        headers.insert("Message-ID", outgoing.message_id());
        let mail = Mail {
            personalizations: [Personalization {
                to: people(fields.to),
                cc: people(fields.cc),
                bcc: people(fields.bcc),
                // Not at the top, where the specification types them as one string.
                custom_args: email.metadata(),
            }],
            from: JsonMailbox::from(email.from()),
            reply_to_list: fields.reply_to.into_iter().map(JsonMailbox::from).collect(),
            subject: email.subject(),
            // Plain text must come first.
            content: [("text/plain", email.text()), ("text/html", email.html())]
                .into_iter()
                .filter_map(|(kind, value)| Some(Content { kind, value: value? }))
                .collect(),
            attachments: email.attachments().iter().map(File::from).collect(),
            headers,
            categories: email.tags(),
            mail_settings: self.sandbox.then_some(MailSettings { sandbox_mode: Enable { enable: true } }),
        };
        Request::json("/v3/mail/send", &mail)
    }

    fn parse_response(&self, _: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        let id = response.header("x-message-id").unwrap_or_default();
        match response.status() {
            // With an id it is SendGrid's own. Without, it says nothing more, and a page is somebody else's.
            200 | 202 if !id.is_empty() => Ok(receipt_with_id(id)),
            202 if response.is_empty() => Ok(receipt_with_id(id)),
            200 if self.sandbox && (response.is_empty() || response.json::<IgnoredAny>().is_ok()) => {
                Ok(receipt_with_id(id))
            }
            200 | 202 => Err(response.unexpected_body().into()),
            _ => Err(parse_error(response).into()),
        }
    }
}

/// A mail in which one comes twice is refused, whatever their case:
/// <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors>, `personalizations`.
fn are_unique(email: &Email) -> bool {
    let mut seen = HashSet::new();
    email.recipient_addresses().into_iter().all(|address| seen.insert(address.as_str().to_ascii_lowercase()))
}

/// A name with a comma or semicolon must be in quotes, or the mail is accepted, and dropped since a part of the name is taken for the
/// address: the API's manual, limitations; <https://github.com/sendgrid/sendgrid-csharp/issues/268>. So only for recipients: those of `from`
/// would show (<https://github.com/sendgrid/sendgrid-nodejs/issues/1183>).
fn recipient(mailbox: &Mailbox) -> JsonMailbox<'_> {
    JsonMailbox::with_name(mailbox, |name| if name.contains([',', ';']) { quote(name).into() } else { name.into() })
}

/// An attachment's type without its parameters, where they say nothing that its reader needs.
fn media_type(file: &Attachment) -> Option<&str> {
    let Some((bare, parameters)) = file.content_type().split_once(';') else {
        return Some(file.content_type()).filter(|bare| !bare.contains(PROHIBITED));
    };
    let (name, value) = parameters.split_once('=')?;
    let charset = value.trim().trim_matches('"');
    let is_ascii =
        ["utf-8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known)) && file.content().is_ascii();
    let needless = is_ascii && name.trim().eq_ignore_ascii_case("charset") && !bare.contains(PROHIBITED);
    needless.then(|| bare.trim())
}

const MANUAL: &str = "https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors";
const FIELDS: &str = "https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors";
const SPEC: &str = "https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json";
const IDENTITY: &str = "https://www.twilio.com/docs/api/errors/60222";
const CREDITS: &str = "https://github.com/sendgrid/sendgrid-nodejs/issues/1032";

/// Its errors have no codes, and fields instead.
const RULES: &[Rule] = &[
    on_text(&[403], "does not match a verified sender identity", HttpErrorKind::Sender, IDENTITY),
    on_text(&[401, 403], "maximum credits exceeded", HttpErrorKind::Quota, CREDITS),
    on_status(&[400], HttpErrorKind::Sender, FIELDS).with_field("from"),
    on_text(&[400], "valid address", HttpErrorKind::Recipient, FIELDS).with_field("personalizations"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("personalizations"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("reply_to"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("subject"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("content"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("attachments"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("headers"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("categories"),
    on_status(&[400], HttpErrorKind::Message, FIELDS).with_field("custom_args"),
    on_status(&[401, 403, 404, 405], HttpErrorKind::Account, SPEC),
    on_status(&[413], HttpErrorKind::Message, SPEC),
    on_status(&[429], HttpErrorKind::RateLimit, MANUAL),
    on_status(&[500], HttpErrorKind::ServerError, SPEC),
];

fn parse_error(response: &Response) -> HttpError {
    let Ok(Errors { errors }) = response.json_object() else {
        return response.status_error();
    };
    let said: Vec<_> = errors
        .iter()
        .map(|error| ApiError { field: &error.field, text: &error.message, ..ApiError::default() })
        .collect();
    let error = rules::classify(RULES, response, &said);
    // The header comes with other answers too.
    match error.kind() {
        HttpErrorKind::RateLimit => error.with_retry_after(response.until_reset("x-ratelimit-reset")),
        _ => error,
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorBody>,
}

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>, `ErrorResponse`: no field must be there.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default, deserialize_with = "lenient_string")]
    message: String,
    #[serde(default, deserialize_with = "lenient_string")]
    field: String,
}

#[derive(Serialize)]
struct Mail<'a> {
    personalizations: [Personalization<'a>; 1],
    from: JsonMailbox<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reply_to_list: Vec<JsonMailbox<'a>>,
    subject: &'a str,
    content: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<File<'a>>,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    categories: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_settings: Option<MailSettings>,
}

#[derive(Serialize)]
struct Personalization<'a> {
    to: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    custom_args: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct File<'a> {
    content: String,
    filename: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    disposition: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
}

impl<'a> From<&'a Attachment> for File<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            content: base64(attachment.content()),
            filename: attachment.file_name(),
            // None is left that check has not refused.
            kind: media_type(attachment).unwrap_or_else(|| attachment.content_type()),
            disposition: if attachment.content_id().is_some() { "inline" } else { "attachment" },
            content_id: attachment.content_id(),
        }
    }
}

#[derive(Serialize)]
struct MailSettings {
    sandbox_mode: Enable,
}

#[derive(Serialize)]
struct Enable {
    enable: bool,
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
