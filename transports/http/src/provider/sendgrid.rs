//! SendGrid: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>.

use std::collections::{BTreeMap, HashSet};

use http::HeaderName;
use http::header::AUTHORIZATION;
use postrider_transport::{Attachment, Email, Failure, Mailbox, Outgoing, Receipt, Unsupported};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::json::{Person, base64, check_addresses, receipt, text};
use super::rules::{self, Rule, Said, status, words};
use crate::config::env;
use crate::encoded::quoted;
use crate::{Answer, Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Secret};

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
/// | Answer | Means |
/// |---|---|
/// | 202; 200 in the sandbox | accepted; the id is in `X-Message-Id` |
/// | 403 about the from address, 400 about the field `from` | [`Sender`](HttpErrorKind::Sender) |
/// | 400 about an address in the field `personalizations` | [`Recipient`](HttpErrorKind::Recipient) |
/// | other 400 that name a field, 413 | [`Message`](HttpErrorKind::Message) |
/// | 401 about credits | [`Quota`](HttpErrorKind::Quota) |
/// | other 401, 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | 429 | [`Rate`](HttpErrorKind::Rate), until `X-RateLimit-Reset` |
/// | 500 in its own form | [`Busy`](HttpErrorKind::Busy) |
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
        Self::new(env("SENDGRID_API_KEY")?)
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
        check_addresses(email)?;
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

    fn request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
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
            from: Person::from(email.from()),
            reply_to_list: fields.reply_to.into_iter().map(Person::from).collect(),
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
        Request::of_json("/v3/mail/send", &mail)
    }

    fn receipt(&self, _: &Outgoing<Email>, answer: &Answer) -> Result<Receipt, Failure> {
        let id = answer.header("x-message-id").unwrap_or_default();
        match answer.status() {
            // With an id it is SendGrid's own. Without, it says nothing more, and a page is somebody else's.
            200 | 202 if !id.is_empty() => Ok(receipt(id)),
            202 if answer.is_empty() => Ok(receipt(id)),
            200 if self.sandbox && (answer.is_empty() || answer.json::<IgnoredAny>().is_ok()) => Ok(receipt(id)),
            200 | 202 => Err(answer.strange().into()),
            _ => Err(refusal(answer).into()),
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
fn recipient(mailbox: &Mailbox) -> Person<'_> {
    Person::named(mailbox, |name| if name.contains([',', ';']) { quoted(name).into() } else { name.into() })
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
    words(&[403], "does not match a verified sender identity", HttpErrorKind::Sender, IDENTITY),
    words(&[401, 403], "maximum credits exceeded", HttpErrorKind::Quota, CREDITS),
    status(&[400], HttpErrorKind::Sender, FIELDS).about("from"),
    words(&[400], "valid address", HttpErrorKind::Recipient, FIELDS).about("personalizations"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("personalizations"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("reply_to"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("subject"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("content"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("attachments"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("headers"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("categories"),
    status(&[400], HttpErrorKind::Message, FIELDS).about("custom_args"),
    status(&[401, 403, 404, 405], HttpErrorKind::Account, SPEC),
    status(&[413], HttpErrorKind::Message, SPEC),
    status(&[429], HttpErrorKind::Rate, MANUAL),
    status(&[500], HttpErrorKind::Busy, SPEC),
];

fn refusal(answer: &Answer) -> HttpError {
    let Ok(Errors { errors }) = answer.object() else {
        return answer.refusal();
    };
    let said: Vec<_> =
        errors.iter().map(|error| Said { field: &error.field, text: &error.message, ..Said::default() }).collect();
    let error = rules::read(RULES, answer, &said);
    // The header comes with other answers too.
    match error.kind() {
        HttpErrorKind::Rate => error.with_retry_after(answer.reset_at("x-ratelimit-reset")),
        _ => error,
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Reason>,
}

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>, `ErrorResponse`: no field must be there.
#[derive(Deserialize)]
struct Reason {
    #[serde(default, deserialize_with = "text")]
    message: String,
    #[serde(default, deserialize_with = "text")]
    field: String,
}

#[derive(Serialize)]
struct Mail<'a> {
    personalizations: [Personalization<'a>; 1],
    from: Person<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reply_to_list: Vec<Person<'a>>,
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
    to: Vec<Person<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc: Vec<Person<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<Person<'a>>,
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
    fn each_line_of_the_table_counts() {
        super::super::rules::assert_sound(super::RULES);
    }
}
