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

/// Postmark, by its Email API.
///
/// A mail has one tag at the most. The Message-ID is the delivery's own. Some endings of file names Postmark does not take; it
/// refuses the message then.
///
/// | Response | Means |
/// |---|---|
/// | 200 with the code 0 or none | accepted, by all but the inactive recipients whom its message names |
/// | code 300 about From, 400, 401, 412 | [`Sender`](HttpErrorKind::Sender) |
/// | code 300, 402, 403, 410, 411; status 413 | [`Message`](HttpErrorKind::Message) |
/// | code 406 | [`Recipient`](HttpErrorKind::Recipient); **in doubt** where it names some recipients only |
/// | code 10, 409, 413, 422, 1235, 1236, 1480 | [`Account`](HttpErrorKind::Account) |
/// | code 405: no credits are left | [`Quota`](HttpErrorKind::Quota) |
/// | status or code 429 | [`RateLimit`](HttpErrorKind::RateLimit) |
/// | code 100, status 503 | [`Unavailable`](HttpErrorKind::Unavailable) |
/// | status 500 | [`NoResponse`](HttpErrorKind::NoResponse), since Postmark says that the message is lost "in most cases" |
///
/// The codes are those of <https://postmarkapp.com/developer/api/overview#error-codes>; a few of them are in its older editions only.
///
/// # Batches
/// Up to 500 messages, or 50 MB, go out in one call, and each has a result of its own. Postmark knows no idempotency keys: when a
/// batch is in doubt, so are all of its messages, and sending them again may send them twice.
#[derive(Debug, Clone)]
pub struct Postmark {
    token: Secret,
    stream: Option<String>,
}

impl Postmark {
    /// With a server's API token. `POSTMARK_API_TEST` checks requests without sending anything.
    ///
    /// # Errors
    /// When the token is empty or has characters that no token has.
    pub fn new(token: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { token: Secret::new(token.as_ref())?, stream: None })
    }

    /// With the token in the environment variable `POSTMARK_SERVER_TOKEN`.
    ///
    /// # Errors
    /// When it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("POSTMARK_SERVER_TOKEN")?)
    }

    /// By this message stream, in place of the server's transactional one (`outbound`). In a URL: `stream=broadcast`.
    #[must_use]
    pub fn message_stream(mut self, id: impl Into<String>) -> Self {
        self.stream = Some(id.into());
        self
    }
}

/// As many recipients as a message may have, in all its fields.
const MAX_RECIPIENTS: usize = 50;

/// How long a message may be, its attachments in base64:
/// <https://postmarkapp.com/support/article/1056-what-are-the-attachment-and-email-size-limits>. A larger one is surely too large, whichever
/// megabyte is meant.
const MAX_SIZE: usize = 10 * 1024 * 1024;

/// The same for each of its bodies.
const MAX_BODY: usize = 5 * 1024 * 1024;

/// How long the sender may be, name and address, in UTF-16 units.
const MAX_FROM: usize = 255;

/// The same for the subject.
const MAX_SUBJECT: usize = 2000;

/// How many pairs of metadata there may be, and how long their keys and values:
/// <https://postmarkapp.com/support/article/1125-custom-metadata-faq>.
const MAX_METADATA: (usize, usize, usize) = (10, 20, 80);

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
        if !mailboxes.into_iter().flatten().chain([email.from()]).all(is_plain) {
            return Err(Unsupported::new("an address with a character that few addresses have"));
        }
        let (pairs, key, value) = MAX_METADATA;
        let keys: HashSet<_> = email.metadata().keys().map(|key| key.to_ascii_lowercase()).collect();
        let body = |body: Option<&str>| body.map_or(0, str::len);
        let what = if email.recipient_addresses().len() > MAX_RECIPIENTS {
            "more than 50 recipients"
        } else if units(&format_mailbox(email.from())) > MAX_FROM {
            "a sender of more than 255 characters"
        } else if units(email.subject()) > MAX_SUBJECT {
            "a subject of more than 2000 characters"
        } else if email.tags().len() > 1 {
            "more than one tag"
        } else if email.metadata().len() > pairs {
            "more than 10 pairs of metadata"
        } else if keys.len() < email.metadata().len() {
            "two keys of metadata that differ in the case of their letters only"
        } else if email.metadata().iter().any(|pair| units(pair.0) > key || units(pair.1) > value) {
            "metadata with a key of more than 20 or a value of more than 80 characters"
        } else if body(email.text()) > MAX_BODY || body(email.html()) > MAX_BODY || encoded_size(email) > MAX_SIZE {
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
        // Without it, Postmark writes a Message-ID of its own.
        headers.push(Header { name: "X-PM-KeepID", value: "true".to_owned() });
        let mail = Mail {
            from: format_mailbox(email.from()),
            to: list(fields.to),
            cc: list(fields.cc),
            bcc: list(fields.bcc),
            reply_to: list(fields.reply_to),
            subject: email.subject(),
            text_body: email.text(),
            html_body: email.html(),
            tag: email.tags().first().map(String::as_str),
            metadata: email.metadata(),
            headers,
            attachments: email.attachments().iter().map(File::from).collect(),
            message_stream: self.stream.as_deref(),
        };
        Ok(accepting_json(Request::json("/email", &mail)?))
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() == 200 {
            return read(outgoing, response, response.json()?);
        }
        match response.json_object::<ErrorBody>() {
            Ok(said) if !said.error_code.is_empty() => Err(parse_error(outgoing, response, &said, response.text())),
            _ => Err(unsaid(response).into()),
        }
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(BatchLimits::new(500, 50_000_000))
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        accepting_json(Request::json_bytes("/email/batch", join_bodies(batch)))
    }

    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        if response.status() != 200 {
            return refused_batch(batch.len(), response);
        }
        match response.json::<Vec<Value>>() {
            Ok(items) if items.len() == batch.len() => BatchOutcome::Results(
                batch.iter().zip(items).map(|(outgoing, item)| read(outgoing, response, item)).collect(),
            ),
            Ok(_) => {
                let error = response.error(HttpErrorKind::NoResponse, "it did not answer for each message of a batch");
                BatchOutcome::same_error(batch.len(), &error)
            }
            Err(error) => BatchOutcome::same_error(batch.len(), &error),
        }
    }
}

/// What Postmark says of one message.
fn read(outgoing: &Outgoing<Email>, response: &Response, item: Value) -> Result<Receipt, Failure> {
    let reply = item.to_string();
    let unreadable = || response.unexpected_body();
    if !item.is_object() {
        return Err(unreadable().into());
    }
    let said: ErrorBody = serde_json::from_value(item).map_err(|_| unreadable())?;
    if !matches!(said.error_code.as_str(), "" | "0") {
        return Err(parse_error(outgoing, response, &said, reply));
    }
    // A mail that is accepted with a delay has no code (<https://github.com/anymail/django-anymail/issues/392>). With neither code nor id
    // it is not Postmark's.
    if said.error_code.is_empty() && said.message_id.is_empty() {
        return Err(unreadable().into());
    }
    let refused = inactive(outgoing, &said.message);
    if refused.len() == outgoing.recipients().len() {
        let error = HttpError::new(HttpErrorKind::Recipient, Postmark::NAME, said.message);
        return Err(error.with_response(response.status(), reply).into());
    }
    Ok(receipt_with_id(&said.message_id).with_reply(reply).with_refused(refused))
}

const CODES: &str = "https://postmarkapp.com/developer/api/overview#error-codes";
const STATUSES: &str = "https://postmarkapp.com/developer/api/overview";
const UNVERIFIED: &str = "https://postmarkapp.com/support/article/troubleshooting-422-unprocessable-entity-errors";

/// By its codes. In a batch each message has one of its own, under a status of success.
const RULES: &[Rule] = &[
    on_text(&[], "'from'", HttpErrorKind::Sender, UNVERIFIED).with_codes(&["300"]),
    on_code(&["300", "402", "403", "410", "411"], HttpErrorKind::Message, CODES),
    on_code(&["400", "401"], HttpErrorKind::Sender, CODES),
    // While the account is pending, only addresses at the From's own domain are taken.
    on_code(&["412"], HttpErrorKind::Sender, CODES),
    on_code(&["406"], HttpErrorKind::Recipient, CODES),
    on_code(&["10", "409", "413", "422", "1235", "1236", "1480"], HttpErrorKind::Account, CODES),
    on_code(&["405"], HttpErrorKind::Quota, CODES),
    on_code(&["429"], HttpErrorKind::RateLimit, CODES),
    on_code(&["100"], HttpErrorKind::Unavailable, CODES),
    on_status(&[429], HttpErrorKind::RateLimit, STATUSES),
];

/// A refusal in Postmark's own form.
fn parse_error(outgoing: &Outgoing<Email>, response: &Response, reason: &ErrorBody, reply: String) -> Failure {
    use HttpErrorKind::{NoResponse, Recipient};
    let inactive = inactive(outgoing, &reason.message);
    let some = !inactive.is_empty() && inactive.len() < outgoing.recipients().len();
    let said = reason.said(response.status());
    let known = rules::find_rule(RULES, response.status(), &said).map(Rule::kind);
    let error = match known {
        _ if response.status() >= 500 => response.error(unsaid(response).kind(), reason.message.clone()),
        // It is documented for mails that nobody would get. That it may come with mails that somebody got, nothing rules out.
        Some(Recipient) if some => response.error(NoResponse, reason.message.clone()),
        _ => rules::classify(RULES, response, &[said]),
    };
    let error = error.with_response(response.status(), reply).with_code(&reason.error_code);
    Failure::from(error).with_refused(inactive)
}

/// What a status means by itself.
fn unsaid(response: &Response) -> HttpError {
    match response.status() {
        500 => response.error(HttpErrorKind::NoResponse, "it failed inside"),
        _ => response.status_error(),
    }
}

/// A batch of which nothing was taken, or nobody knows.
fn refused_batch(messages: usize, response: &Response) -> BatchOutcome {
    use HttpErrorKind::{Message, Recipient, Sender};
    let error = match response.json_object::<ErrorBody>() {
        Ok(reason) if response.status() < 500 && !reason.error_code.is_empty() => {
            rules::classify(RULES, response, &[reason.said(response.status())])
        }
        _ => unsaid(response),
    };
    match error.kind() {
        Message | Recipient | Sender => BatchOutcome::SendEach,
        _ => BatchOutcome::same_error(messages, &error),
    }
}

/// Those recipients of an attempt whom an answer calls inactive. It names them by address, in lower case, amid prose.
fn inactive(outgoing: &Outgoing<Email>, message: &str) -> Vec<Refusal> {
    let Some((_, list)) = message.split_once("inactive addresses:") else { return Vec::new() };
    let inactive = find_named_recipients(outgoing, [list]).into_iter();
    inactive.map(|(recipient, _)| Refusal::new(recipient, Class::Permanent, message)).collect()
}

/// Postmark answers in JSON to those only who say that they read it.
fn accepting_json(request: Request) -> Request {
    request.with_header(ACCEPT, HeaderValue::from_static("application/json"))
}

/// Mailboxes in one text.
fn list<'a>(mailboxes: impl IntoIterator<Item = &'a Mailbox>) -> String {
    mailboxes.into_iter().map(format_mailbox).collect::<Vec<_>>().join(", ")
}

/// What Postmark takes for an address: <https://postmarkapp.com/support/article/1180-what-does-errorcode-300-mean>.
fn is_plain(mailbox: &Mailbox) -> bool {
    let address = mailbox.address();
    let local = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'`*+-/=^_{}|~".contains(&byte);
    let domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    address.local_part().bytes().all(local) && address.domain().bytes().all(domain)
}

/// A length as Postmark counts it.
fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody {
    #[serde(default, deserialize_with = "lenient_string")]
    error_code: String,
    #[serde(default, deserialize_with = "lenient_string")]
    message: String,
    #[serde(rename = "MessageID", default, deserialize_with = "lenient_string")]
    message_id: String,
}

impl ErrorBody {
    /// What Postmark says of one message comes with the status of a request for it, or with that of a batch.
    fn said(&self, status: u16) -> ApiError<'_> {
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
