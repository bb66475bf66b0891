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

/// SendGrid's Web API v3.
///
/// Tags are sent as categories, and metadata as custom arguments. The response does not mention single recipients. SendGrid drops
/// recipients on a suppression list later and reports them by its event webhook. SendGrid refuses a mail with two addresses that differ
/// only in case, so such a mail is unsupported. So are local parts outside ASCII.
///
/// SendGrid accepts no parameters in an attachment's type. If the content is ASCII, a `charset` of UTF-8 or US-ASCII is omitted, which does
/// not change how the content reads; SendGrid may add another one. Any other parameter is unsupported, and so is a `;` or a `,` in a file
/// name or a content id.
///
/// | Response | Means |
/// |---|---|
/// | 202; 200 in the sandbox | accepted; the id is in `X-Message-Id` |
/// | 403 about the from address; 400 about the field `from` | [`Sender`](HttpErrorKind::Sender) |
/// | 400 about an address in the field `personalizations` | [`Recipient`](HttpErrorKind::Recipient) |
/// | other 400 with a field; 413 | [`Message`](HttpErrorKind::Message) |
/// | 401, 403 about credits | [`Quota`](HttpErrorKind::Quota) |
/// | other 401, 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | 429 | [`RateLimit`](HttpErrorKind::RateLimit) until `X-RateLimit-Reset` |
/// | 500 in the provider's format | [`ServerError`](HttpErrorKind::ServerError) |
#[derive(Debug, Clone)]
pub struct SendGrid {
    key: Secret,
    eu: bool,
    sandbox: bool,
}

impl SendGrid {
    /// Creates the provider with an API key that may send mail.
    ///
    /// # Errors
    /// If the key is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())?, eu: false, sandbox: false })
    }

    /// Reads the key from the environment variable `SENDGRID_API_KEY`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("SENDGRID_API_KEY")?)
    }

    /// Uses the servers in the European Union, for subusers of that region. In a URL: `region=eu`.
    #[must_use]
    pub fn eu(mut self) -> Self {
        self.eu = true;
        self
    }

    /// Validates requests without sending mail. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }
}

/// Maximum number of recipients of a request, in all fields.
const MAX_RECIPIENTS: usize = 1000;

/// Maximum number of categories.
const MAX_CATEGORIES: usize = 10;

/// Maximum size of all custom arguments together, in octets.
const MAX_CUSTOM_ARGS: usize = 10_000;

/// Headers that the API refuses, in addition to those that [`Email`] refuses.
const RESERVED: [&str; 3] = ["x-sg-id", "x-sg-eid", "received"];

/// Characters that the type, name and content id of an attachment must not contain, in addition to line breaks:
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
        if !has_unique_recipients(email) {
            return Err(Unsupported::new("two recipients whose addresses differ only in case"));
        }
        if email.recipient_addresses().len() > MAX_RECIPIENTS {
            return Err(Unsupported::new("more than 1000 recipients"));
        }
        if email.tags().len() > MAX_CATEGORIES {
            return Err(Unsupported::new("more than 10 tags"));
        }
        if email.metadata().iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() >= MAX_CUSTOM_ARGS {
            return Err(Unsupported::new("metadata of 10000 octets or more"));
        }
        if email.subject().is_empty() {
            return Err(Unsupported::new("a mail without a subject"));
        }
        for file in email.attachments() {
            if media_type(file).is_none() {
                return Err(Unsupported::new("an attachment with parameters in its type"));
            }
            if [Some(file.file_name()), file.content_id()].into_iter().flatten().any(|text| text.contains(PROHIBITED)) {
                return Err(Unsupported::new("an attachment with a comma or semicolon in its name or content id"));
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
        let to_json = |mailboxes: Vec<_>| mailboxes.into_iter().map(json_recipient).collect();
        let mut headers: BTreeMap<&str, String> = fields.headers.into_iter().collect();
        headers.insert("Message-ID", outgoing.message_id());
        let mail = Mail {
            personalizations: [Personalization {
                to: to_json(fields.to),
                cc: to_json(fields.cc),
                bcc: to_json(fields.bcc),
                // The specification types the top-level field as one string.
                custom_args: email.metadata(),
            }],
            from: JsonMailbox::from(email.from()),
            reply_to_list: fields.reply_to.into_iter().map(JsonMailbox::from).collect(),
            subject: email.subject(),
            // The API requires plain text first.
            content: [("text/plain", email.text()), ("text/html", email.html())]
                .into_iter()
                .filter_map(|(media_type, value)| Some(Content { media_type, value: value? }))
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
            // An id shows that the response is SendGrid's. Without an id, a body may be a proxy's page.
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

/// Returns whether no address occurs twice, ignoring case. SendGrid refuses duplicates:
/// <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors>, `personalizations`.
fn has_unique_recipients(email: &Email) -> bool {
    let mut seen = HashSet::new();
    email.recipient_addresses().into_iter().all(|address| seen.insert(address.as_str().to_ascii_lowercase()))
}

/// Converts a recipient, and quotes a name with a comma or semicolon.
///
/// Without the quotes SendGrid accepts the mail and then drops it, since it reads a part of the name as the address: the API's manual,
/// limitations; <https://github.com/sendgrid/sendgrid-csharp/issues/268>. In `from` the quotes would be visible
/// (<https://github.com/sendgrid/sendgrid-nodejs/issues/1183>).
fn json_recipient(mailbox: &Mailbox) -> JsonMailbox<'_> {
    JsonMailbox::with_name(mailbox, |name| if name.contains([',', ';']) { quote(name).into() } else { name.into() })
}

/// The attachment's type without parameters. `None` if a parameter is needed to read it.
fn media_type(file: &Attachment) -> Option<&str> {
    let Some((bare, parameters)) = file.content_type().split_once(';') else {
        return Some(file.content_type()).filter(|bare| !bare.contains(PROHIBITED));
    };
    let (name, value) = parameters.split_once('=')?;
    let charset = value.trim().trim_matches('"');
    let is_ascii =
        ["utf-8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known)) && file.content().is_ascii();
    let is_redundant = is_ascii && name.trim().eq_ignore_ascii_case("charset") && !bare.contains(PROHIBITED);
    is_redundant.then(|| bare.trim())
}

const MANUAL: &str = "https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors";
const FIELDS: &str = "https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors";
const SPEC: &str = "https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json";
const IDENTITY: &str = "https://www.twilio.com/docs/api/errors/60222";
const CREDITS: &str = "https://github.com/sendgrid/sendgrid-nodejs/issues/1032";

/// SendGrid's errors have fields instead of codes.
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
    let errors: Vec<_> = errors
        .iter()
        .map(|error| ApiError { field: &error.field, text: &error.message, ..ApiError::default() })
        .collect();
    let error = rules::classify(RULES, response, &errors);
    // Other responses have this header too.
    match error.kind() {
        HttpErrorKind::RateLimit => error.with_retry_after(response.until_reset("x-ratelimit-reset")),
        _ => error,
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorBody>,
}

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>, `ErrorResponse`. All fields are optional.
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
    media_type: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct File<'a> {
    content: String,
    filename: &'a str,
    #[serde(rename = "type")]
    media_type: &'a str,
    disposition: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
}

impl<'a> From<&'a Attachment> for File<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            content: base64(attachment.content()),
            filename: attachment.file_name(),
            // The fallback does not occur: `check` refuses such types.
            media_type: media_type(attachment).unwrap_or_else(|| attachment.content_type()),
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
