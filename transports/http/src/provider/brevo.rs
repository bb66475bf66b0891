//! Brevo: <https://developers.brevo.com/reference/send-transac-email>.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use postrider_transport::{Email, Failure, Mailbox, Outgoing, Receipt, Scope, Unsupported};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::json::{JsonMailbox, base64, lenient_list, lenient_string, receipt_with_id};
use super::recipients::check_ascii_addresses;
use super::rules::{self, ApiError, Rule, on_code, on_status, on_text};
use crate::config::read_env;
use crate::encoded_word::is_plain;
use crate::{Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// Brevo's API v3.
///
/// The API has no inline parts, at most one `Reply-To`, only headers that begin with `X-`, and no custom `List-Unsubscribe`. It accepts
/// attachments with certain file extensions, and derives their type from the extension. A mail without an HTML body is unsupported, since
/// Brevo would send its text as HTML. So is a mail with an expression of Brevo's template language. Metadata is sent as JSON in the header
/// `X-Mailin-custom`, which recipients can see and Brevo's events return. Brevo sets the Message-ID.
///
/// Every retry has the same idempotency key, which Brevo remembers for 30 minutes. Within that time it responds that it has processed
/// the mail, which counts as accepted.
///
/// | Response | Means |
/// |---|---|
/// | 201, 202 | accepted; the body has the id |
/// | 400 with code `duplicate_parameter` about the idempotency key | accepted earlier; no id |
/// | 400 about the sender | [`Sender`](HttpErrorKind::Sender) |
/// | 401, 403; `unauthorized`, `permission_denied`, `account_under_validation`, `document_not_found`, `method_not_allowed`, `not_acceptable` | [`Account`](HttpErrorKind::Account) |
/// | `invalid_parameter`, `missing_parameter`, `out_of_range`, `duplicate_parameter`, `duplicate_request`, `bad_request`, `unprocessable_entity`; 413 | [`Message`](HttpErrorKind::Message) |
/// | 402, or the code `not_enough_credits` | [`Quota`](HttpErrorKind::Quota) |
/// | 429 | [`RateLimit`](HttpErrorKind::RateLimit) for the seconds in `x-sib-ratelimit-reset` |
/// | 500 in the provider's format | [`ServerError`](HttpErrorKind::ServerError) |
#[derive(Debug, Clone)]
pub struct Brevo {
    key: Secret,
    sandbox: bool,
}

impl Brevo {
    /// Creates the provider with an API key (not an SMTP key).
    ///
    /// # Errors
    /// If the key is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::new(key.as_ref())?, sandbox: false })
    }

    /// Reads the key from the environment variable `BREVO_API_KEY`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("BREVO_API_KEY")?)
    }

    /// Validates requests without sending mail. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }
}

/// Maximum number of recipients of a message, in all fields.
const MAX_RECIPIENTS: usize = 99;

/// Maximum length of a display name, in characters.
const MAX_NAME: usize = 70;

/// Characters that a display name may contain only within quotes (RFC 5322 section 3.2.3).
const PUNCTUATION: [char; 13] = ['(', ')', '<', '>', '[', ']', ':', ';', '@', '\\', ',', '.', '"'];

/// File extensions of the attachments that Brevo accepts.
const EXTENSIONS: [&str; 53] = [
    "xlsx", "xls", "ods", "docx", "docm", "doc", "csv", "pdf", "txt", "gif", "jpg", "jpeg", "png", "tif", "tiff",
    "rtf", "bmp", "cgm", "css", "shtml", "html", "htm", "zip", "xml", "ppt", "pptx", "tar", "ez", "ics", "mobi", "msg",
    "pub", "eps", "odt", "mp3", "m4a", "m4v", "wma", "ogg", "flac", "wav", "aif", "aifc", "aiff", "mp4", "mov", "avi",
    "mkv", "mpeg", "mpg", "wmv", "pkpass", "xlsm",
];

impl Provider for Brevo {
    const NAME: &'static str = "brevo";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut brevo = Self::new(url.key()?)?;
        brevo.sandbox = url.flag("sandbox")?;
        Ok(brevo)
    }

    fn base_url(&self) -> &str {
        "https://api.brevo.com"
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (HeaderName::from_static("api-key"), &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        Fields::check_to(email)?;
        Fields::check_unique_headers(email)?;
        Fields::check_one_reply_to(email)?;
        check_ascii_addresses(email)?;
        if email.recipient_addresses().len() > MAX_RECIPIENTS {
            return Err(Unsupported::new("more than 99 recipients"));
        }
        // Brevo writes such a name in a header that mail servers refuse
        // (<https://anymail.dev/en/stable/esps/brevo/#limitations-and-quirks>).
        let is_garbled = |name: &str| !name.is_ascii() && name.contains(PUNCTUATION);
        if email.reply_to().iter().filter_map(Mailbox::name).any(is_garbled) {
            return Err(Unsupported::new("punctuation and letters outside ASCII in the name of a Reply-To"));
        }
        if email.list_unsubscribe().is_some() {
            return Err(Unsupported::new("a custom List-Unsubscribe"));
        }
        let mailboxes = [email.to(), email.cc(), email.bcc(), email.reply_to()].into_iter().flatten();
        mailboxes.chain([email.from()]).try_for_each(check_name)?;
        check_content(email)?;
        check_headers(email)
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::with_to(outgoing)?;
        let to_json = |mailboxes: Vec<_>| mailboxes.into_iter().map(JsonMailbox::from).collect();
        let mut headers: BTreeMap<&str, String> = fields.headers.into_iter().collect();
        headers.insert("idempotencyKey", idempotency_key(outgoing).to_string());
        if !email.metadata().is_empty() {
            let json = serde_json::to_string(email.metadata());
            headers.insert(
                "X-Mailin-custom",
                json.map_err(|_| Failure::permanent(Scope::Message, "the metadata cannot be serialized as JSON"))?,
            );
        }
        if self.sandbox {
            headers.insert("X-Sib-Sandbox", "drop".to_owned());
        }
        let mail = Mail {
            sender: JsonMailbox::from(email.from()),
            to: to_json(fields.to),
            cc: to_json(fields.cc),
            bcc: to_json(fields.bcc),
            reply_to: fields.reply_to.first().copied().map(JsonMailbox::from),
            subject: email.subject(),
            html_content: email.html(),
            text_content: email.text(),
            attachment: email
                .attachments()
                .iter()
                .map(|attachment| File { name: attachment.file_name(), content: base64(attachment.content()) })
                .collect(),
            headers,
            tags: email.tags(),
        };
        Request::json("/v3/smtp/email", &mail)
    }

    fn parse_response(&self, _: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        match response.status() {
            201 | 202 => {
                let SendResponse { message_id, message_ids } = response.json_object()?;
                // The list has one id for each version of the mail, of which there is one.
                let id = if message_id.is_empty() { message_ids.into_iter().next() } else { Some(message_id) };
                Ok(receipt_with_id(&id.unwrap_or_default()))
            }
            400 if response.json_object().is_ok_and(|reason: ErrorBody| reason.is_duplicate()) => {
                Ok(Receipt::new().with_reply(response.text()))
            }
            _ => Err(parse_error(response).into()),
        }
    }
}

fn check_name(mailbox: &Mailbox) -> Result<(), Unsupported> {
    if mailbox.name().is_some_and(|name| name.chars().count() > MAX_NAME) {
        return Err(Unsupported::new("a name of more than 70 characters"));
    }
    Ok(())
}

fn check_content(email: &Email) -> Result<(), Unsupported> {
    let Some(html) = email.html() else {
        return Err(Unsupported::new("a mail without an HTML body"));
    };
    if email.subject().is_empty() {
        return Err(Unsupported::new("a mail without a subject"));
    }
    let texts = [email.subject(), html, email.text().unwrap_or_default()];
    if texts.iter().any(|text| text.contains("{{") || text.contains("{%")) {
        return Err(Unsupported::new("{{ or {% in a subject or body, which begins a template expression"));
    }
    for attachment in email.attachments() {
        if attachment.content_id().is_some() {
            return Err(Unsupported::new("an inline part"));
        }
        if !attachment.file_name().is_ascii() {
            return Err(Unsupported::new("an attachment whose name is outside ASCII"));
        }
        let extension = attachment.file_name().rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            return Err(Unsupported::new("an attachment with a file extension that Brevo does not accept"));
        }
    }
    Ok(())
}

fn check_headers(email: &Email) -> Result<(), Unsupported> {
    for header in email.headers() {
        let name = header.name().to_ascii_lowercase();
        // Headers with Brevo's own prefixes are options.
        if !name.starts_with("x-") || name.starts_with("x-sib-") || name.starts_with("x-mailin-") {
            return Err(Unsupported::new(format!("the header {}", header.name())));
        }
        // Brevo decodes encoded words and then sends the octets outside ASCII unencoded
        // (<https://anymail.dev/en/stable/esps/brevo/#limitations-and-quirks>).
        if !is_plain(header.value()) {
            return Err(Unsupported::new(format!(
                "a value outside ASCII, or with =?, in the header {}",
                header.name()
            )));
        }
    }
    if email.metadata().values().any(|value| !is_plain(value)) {
        return Err(Unsupported::new("metadata outside ASCII, or with =?"));
    }
    Ok(())
}

/// Brevo requires a UUID (<https://developers.brevo.com/docs/heterogenous-versions-batch-emails>).
fn idempotency_key(outgoing: &Outgoing<Email>) -> Uuid {
    Uuid::new_v5(&outgoing.id().as_uuid(), outgoing.idempotency_key().as_bytes())
}

/// The codes in Brevo's own client.
const ERRORS: &str =
    "https://github.com/getbrevo/brevo-python/blob/main/src/brevo/types/bad_request_error_body_code.py";
const SEND: &str = "https://developers.brevo.com/reference/send-transac-email";

const RULES: &[Rule] = &[
    on_code(&["not_enough_credits"], HttpErrorKind::Quota, ERRORS),
    on_code(&["unauthorized", "permission_denied"], HttpErrorKind::Account, ERRORS),
    on_code(&["account_under_validation"], HttpErrorKind::Account, ERRORS),
    on_code(&["document_not_found", "method_not_allowed", "not_acceptable"], HttpErrorKind::Account, ERRORS),
    on_status(&[402], HttpErrorKind::Quota, SEND),
    on_status(&[401, 403], HttpErrorKind::Account, ERRORS),
    // The code is the same for any invalid value. Users report this text:
    // "… the sender you used … is not valid. Validate your sender or authenticate your domain".
    on_text(&[400], "sender", HttpErrorKind::Sender, SEND),
    on_code(&["invalid_parameter", "missing_parameter", "out_of_range"], HttpErrorKind::Message, ERRORS),
    on_code(&["duplicate_parameter", "duplicate_request"], HttpErrorKind::Message, ERRORS),
    on_code(&["bad_request", "unprocessable_entity"], HttpErrorKind::Message, ERRORS),
    on_status(&[413], HttpErrorKind::Message, ERRORS),
    on_status(&[429], HttpErrorKind::RateLimit, ERRORS),
    on_status(&[500], HttpErrorKind::ServerError, ERRORS),
];

fn parse_error(response: &Response) -> HttpError {
    let Ok(ErrorBody { code, message }) = response.json_object() else {
        return response.status_error();
    };
    let error = rules::classify(RULES, response, &[ApiError { code: &code, text: &message, ..ApiError::default() }]);
    // Other responses have this header too.
    match error.kind() {
        HttpErrorKind::RateLimit => error.with_retry_after(until_reset(response)),
        _ => error,
    }
}

/// The header holds seconds from now (<https://developers.brevo.com/docs/limit-headers>).
fn until_reset(response: &Response) -> Option<Duration> {
    response.parse_retry_after(response.header("x-sib-ratelimit-reset")?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendResponse {
    #[serde(default, deserialize_with = "lenient_string")]
    message_id: String,
    #[serde(default, deserialize_with = "lenient_list")]
    message_ids: Vec<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    /// Optional (<https://github.com/getbrevo/brevo-node>, `ErrorModel`).
    #[serde(default, deserialize_with = "lenient_string")]
    code: String,
    message: String,
}

impl ErrorBody {
    /// Matches `Email for the idempotency key has already been processed`.
    fn is_duplicate(&self) -> bool {
        self.code == "duplicate_parameter" && self.message.to_ascii_lowercase().contains("idempotency")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mail<'a> {
    sender: JsonMailbox<'a>,
    to: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<JsonMailbox<'a>>,
    subject: &'a str,
    html_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachment: Vec<File<'a>>,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    content: String,
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
