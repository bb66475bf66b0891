//! Postmark: <https://postmarkapp.com/developer/api/email-api>.

use std::collections::{BTreeMap, HashSet};

use http::header::ACCEPT;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Attachment, Class, Email, Failure, Mailbox, Outgoing, Receipt, Refusal, Unsupported};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{base64, encoded_size, format_mailbox, join_bodies, lenient_string, receipt_with_id};
use super::recipients::find_named_recipients;
use super::rules::{self, ApiError, Rule, on_code, on_status, on_text};
use super::{BatchLimits, BatchOutcome};
use crate::config::read_env;
use crate::{Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// Postmark's Email API.
///
/// A mail may have one tag. The Message-ID is the delivery's. Postmark refuses messages with certain file extensions.
///
/// | Response | Means |
/// |---|---|
/// | 200 with code 0 or without a code | accepted, except for inactive recipients that its message names |
/// | code 300 about From, 400, 401, 412 | [`Sender`](HttpErrorKind::Sender) |
/// | code 300, 402, 403, 410, 411; status 413 | [`Message`](HttpErrorKind::Message) |
/// | code 406 | [`Recipient`](HttpErrorKind::Recipient); **in doubt** if it names only some recipients |
/// | code 10, 409, 413, 422, 1235, 1236, 1480 | [`Account`](HttpErrorKind::Account) |
/// | code 405: no credits are left | [`Quota`](HttpErrorKind::Quota) |
/// | status or code 429 | [`RateLimit`](HttpErrorKind::RateLimit) |
/// | code 100, status 503 | [`Unavailable`](HttpErrorKind::Unavailable) |
/// | status 500 | [`NoResponse`](HttpErrorKind::NoResponse), since by the manual the message is lost "in most cases" |
///
/// The codes are documented in <https://postmarkapp.com/developer/api/overview#error-codes>, a few of them only in older editions.
///
/// # Batches
/// A batch has up to 500 messages or 50 MB, and each message has its own result. Postmark has no idempotency keys: if a batch is in doubt,
/// all of its messages are, and a retry may send them twice.
#[derive(Debug, Clone)]
pub struct Postmark {
    token: Secret,
    stream: Option<String>,
}

impl Postmark {
    /// Creates the provider with a server's API token. The token `POSTMARK_API_TEST` validates requests without sending mail.
    ///
    /// # Errors
    /// If the token is empty or contains invalid characters.
    pub fn new(token: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { token: Secret::new(token.as_ref())?, stream: None })
    }

    /// Reads the token from the environment variable `POSTMARK_SERVER_TOKEN`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("POSTMARK_SERVER_TOKEN")?)
    }

    /// Sets the message stream. Default: the server's transactional stream (`outbound`). In a URL: `stream=broadcast`.
    #[must_use]
    pub fn message_stream(mut self, id: impl Into<String>) -> Self {
        self.stream = Some(id.into());
        self
    }
}

/// Maximum number of recipients of a message, in all fields.
const MAX_RECIPIENTS: usize = 50;

/// Maximum size of a message with attachments in base64, in octets:
/// <https://postmarkapp.com/support/article/1056-what-are-the-attachment-and-email-size-limits>. The page says 10 MB, which may
/// mean MiB; this is the larger value.
const MAX_SIZE: usize = 10 * 1024 * 1024;

/// Maximum size of each body, in octets.
const MAX_BODY: usize = 5 * 1024 * 1024;

/// Maximum length of the sender with name and address, in UTF-16 code units.
const MAX_FROM: usize = 255;

/// Maximum length of a subject, in UTF-16 code units.
const MAX_SUBJECT: usize = 2000;

/// Maximum number of metadata pairs: <https://postmarkapp.com/support/article/1125-custom-metadata-faq>.
const MAX_METADATA: usize = 10;

/// Maximum length of a metadata key, in UTF-16 code units.
const MAX_METADATA_KEY: usize = 20;

/// Maximum length of a metadata value, in UTF-16 code units.
const MAX_METADATA_VALUE: usize = 80;

impl Provider for Postmark {
    const NAME: &'static str = "postmark";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut postmark = Self::new(url.key()?)?;
        postmark.stream = url.setting("stream");
        Ok(postmark)
    }

    fn base_url(&self) -> &str {
        "https://api.postmarkapp.com"
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (HeaderName::from_static("x-postmark-server-token"), &self.token)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        let mailboxes = [email.reply_to(), email.to(), email.cc(), email.bcc()];
        if !mailboxes.into_iter().flatten().chain([email.from()]).all(is_accepted_address) {
            return Err(Unsupported::new("an address with a character that Postmark does not accept"));
        }
        let keys: HashSet<_> = email.metadata().keys().map(|key| key.to_ascii_lowercase()).collect();
        let body_size = |body: Option<&str>| body.map_or(0, str::len);
        let what = if email.recipient_addresses().len() > MAX_RECIPIENTS {
            "more than 50 recipients"
        } else if utf16_len(&format_mailbox(email.from())) > MAX_FROM {
            "a sender of more than 255 characters"
        } else if utf16_len(email.subject()) > MAX_SUBJECT {
            "a subject of more than 2000 characters"
        } else if email.tags().len() > 1 {
            "more than one tag"
        } else if email.metadata().len() > MAX_METADATA {
            "more than 10 pairs of metadata"
        } else if keys.len() < email.metadata().len() {
            "two metadata keys that differ only in case"
        } else if email
            .metadata()
            .iter()
            .any(|(key, value)| utf16_len(key) > MAX_METADATA_KEY || utf16_len(value) > MAX_METADATA_VALUE)
        {
            "metadata with a key of more than 20 or a value of more than 80 characters"
        } else if body_size(email.text()) > MAX_BODY
            || body_size(email.html()) > MAX_BODY
            || encoded_size(email) > MAX_SIZE
        {
            "a mail of more than 10 MB, or a body of more than 5 MB"
        } else {
            return Ok(());
        };
        Err(Unsupported::new(what))
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::new(outgoing)?;
        let mut headers: Vec<_> = fields.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
        headers.push(Header { name: "Message-ID", value: outgoing.message_id() });
        // Without this header, Postmark replaces the Message-ID.
        headers.push(Header { name: "X-PM-KeepID", value: "true".to_owned() });
        let mail = Mail {
            from: format_mailbox(email.from()),
            to: format_list(fields.to),
            cc: format_list(fields.cc),
            bcc: format_list(fields.bcc),
            reply_to: format_list(fields.reply_to),
            subject: email.subject(),
            text_body: email.text(),
            html_body: email.html(),
            tag: email.tags().first().map(String::as_str),
            metadata: email.metadata(),
            headers,
            attachments: email.attachments().iter().map(File::from).collect(),
            message_stream: self.stream.as_deref(),
        };
        Ok(accept_json(Request::json("/email", &mail)?))
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() == 200 {
            return parse_result(outgoing, response, response.json()?);
        }
        match response.json_object::<SendResult>() {
            Ok(result) if !result.error_code.is_empty() => {
                Err(classify_refusal(outgoing, response, &result, response.text()))
            }
            _ => Err(status_error(response).into()),
        }
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(BatchLimits::new(500, 50_000_000))
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        accept_json(Request::json_bytes("/email/batch", join_bodies(batch)))
    }

    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        if response.status() != 200 {
            return parse_refused_batch(batch.len(), response);
        }
        match response.json::<Vec<Value>>() {
            Ok(items) if items.len() == batch.len() => BatchOutcome::Results(
                batch.iter().zip(items).map(|(outgoing, item)| parse_result(outgoing, response, item)).collect(),
            ),
            Ok(_) => {
                let error = response
                    .error(HttpErrorKind::NoResponse, "the batch response does not have one result for each message");
                BatchOutcome::same_error(batch.len(), &error)
            }
            Err(error) => BatchOutcome::same_error(batch.len(), &error),
        }
    }
}

/// Parses the result of one message.
fn parse_result(outgoing: &Outgoing<Email>, response: &Response, item: Value) -> Result<Receipt, Failure> {
    let reply = item.to_string();
    if !item.is_object() {
        return Err(response.unexpected_body().into());
    }
    let result: SendResult = serde_json::from_value(item).map_err(|_| response.unexpected_body())?;
    if !matches!(result.error_code.as_str(), "" | "0") {
        return Err(classify_refusal(outgoing, response, &result, reply));
    }
    // A mail that is accepted with a delay has no code (<https://github.com/anymail/django-anymail/issues/392>). Without both code and id,
    // the response is not Postmark's.
    if result.error_code.is_empty() && result.message_id.is_empty() {
        return Err(response.unexpected_body().into());
    }
    let refused = find_inactive(outgoing, &result.message);
    if refused.len() == outgoing.recipients().len() {
        let error = HttpError::new(HttpErrorKind::Recipient, Postmark::NAME, result.message);
        return Err(error.with_response(response.status(), reply).into());
    }
    Ok(receipt_with_id(&result.message_id).with_reply(reply).with_refused(refused))
}

const CODES: &str = "https://postmarkapp.com/developer/api/overview#error-codes";
const STATUSES: &str = "https://postmarkapp.com/developer/api/overview";
const UNVERIFIED: &str = "https://postmarkapp.com/support/article/troubleshooting-422-unprocessable-entity-errors";

/// Rules by error code. In a batch each message has its own code, under a success status.
const RULES: &[Rule] = &[
    on_text(&[], "'from'", HttpErrorKind::Sender, UNVERIFIED).with_codes(&["300"]),
    on_code(&["300", "402", "403", "410", "411"], HttpErrorKind::Message, CODES),
    on_code(&["400", "401"], HttpErrorKind::Sender, CODES),
    // While the account is pending, Postmark accepts only recipients in the From domain.
    on_code(&["412"], HttpErrorKind::Sender, CODES),
    on_code(&["406"], HttpErrorKind::Recipient, CODES),
    on_code(&["10", "409", "413", "422", "1235", "1236", "1480"], HttpErrorKind::Account, CODES),
    on_code(&["405"], HttpErrorKind::Quota, CODES),
    on_code(&["429"], HttpErrorKind::RateLimit, CODES),
    on_code(&["100"], HttpErrorKind::Unavailable, CODES),
    on_status(&[429], HttpErrorKind::RateLimit, STATUSES),
];

/// Classifies a refusal in Postmark's format.
fn classify_refusal(outgoing: &Outgoing<Email>, response: &Response, result: &SendResult, reply: String) -> Failure {
    use HttpErrorKind::{NoResponse, Recipient};
    let inactive = find_inactive(outgoing, &result.message);
    let is_partial = !inactive.is_empty() && inactive.len() < outgoing.recipients().len();
    let error = result.to_api_error(response.status());
    let known = rules::find_rule(RULES, response.status(), &error).map(Rule::kind);
    let error = match known {
        _ if response.status() >= 500 => response.error(status_error(response).kind(), result.message.clone()),
        // By the manual no recipient gets the mail. Nothing rules out that the other recipients get it.
        Some(Recipient) if is_partial => response.error(NoResponse, result.message.clone()),
        _ => rules::classify(RULES, response, &[error]),
    };
    let error = error.with_response(response.status(), reply).with_code(&result.error_code);
    Failure::from(error).with_refused(inactive)
}

/// Creates the error that follows from the status alone.
fn status_error(response: &Response) -> HttpError {
    match response.status() {
        500 => response.error(HttpErrorKind::NoResponse, "internal server error"),
        _ => response.status_error(),
    }
}

/// Parses a response to a batch that has no result for each message.
fn parse_refused_batch(messages: usize, response: &Response) -> BatchOutcome {
    use HttpErrorKind::{Message, Recipient, Sender};
    let error = match response.json_object::<SendResult>() {
        Ok(result) if response.status() < 500 && !result.error_code.is_empty() => {
            rules::classify(RULES, response, &[result.to_api_error(response.status())])
        }
        _ => status_error(response),
    };
    match error.kind() {
        Message | Recipient | Sender => BatchOutcome::SendEach,
        _ => BatchOutcome::same_error(messages, &error),
    }
}

/// Finds the recipients that a response calls inactive. Its text lists their addresses in lower case.
fn find_inactive(outgoing: &Outgoing<Email>, message: &str) -> Vec<Refusal> {
    let Some((_, list)) = message.split_once("inactive addresses:") else { return Vec::new() };
    let inactive = find_named_recipients(outgoing, [list]).into_iter();
    inactive.map(|(recipient, _)| Refusal::new(recipient, Class::Permanent, message)).collect()
}

/// Adds `Accept`, without which Postmark does not respond in JSON.
fn accept_json(request: Request) -> Request {
    request.with_header(ACCEPT, HeaderValue::from_static("application/json"))
}

/// Formats mailboxes as a list.
fn format_list<'a>(mailboxes: impl IntoIterator<Item = &'a Mailbox>) -> String {
    mailboxes.into_iter().map(format_mailbox).collect::<Vec<_>>().join(", ")
}

/// Returns whether Postmark accepts an address: <https://postmarkapp.com/support/article/1180-what-does-errorcode-300-mean>.
fn is_accepted_address(mailbox: &Mailbox) -> bool {
    let address = mailbox.address();
    let local = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'`*+-/=^_{}|~".contains(&byte);
    let domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    address.local_part().bytes().all(local) && address.domain().bytes().all(domain)
}

/// Length in UTF-16 code units, as Postmark counts.
fn utf16_len(text: &str) -> usize {
    text.encode_utf16().count()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendResult {
    #[serde(default, deserialize_with = "lenient_string")]
    error_code: String,
    #[serde(default, deserialize_with = "lenient_string")]
    message: String,
    #[serde(rename = "MessageID", default, deserialize_with = "lenient_string")]
    message_id: String,
}

impl SendResult {
    /// Converts the error. In a batch the HTTP status is 200, so the status of a single request is used instead.
    fn to_api_error(&self, status: u16) -> ApiError<'_> {
        let status = if status == 200 { 422 } else { status };
        ApiError { status: Some(status), code: &self.error_code, text: &self.message, ..ApiError::default() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mail<'a> {
    from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    cc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    bcc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reply_to: String,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html_body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    headers: Vec<Header<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<File<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_stream: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Header<'a> {
    name: &'a str,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct File<'a> {
    name: &'a str,
    content: String,
    content_type: &'a str,
    #[serde(rename = "ContentID", skip_serializing_if = "Option::is_none")]
    content_id: Option<String>,
}

impl<'a> From<&'a Attachment> for File<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            name: attachment.file_name(),
            content: base64(attachment.content()),
            content_type: attachment.content_type(),
            content_id: attachment.content_id().map(|id| format!("cid:{id}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
