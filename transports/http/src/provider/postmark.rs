//! Postmark: <https://postmarkapp.com/developer/api/email-api>.

use std::collections::{BTreeMap, HashSet};

use http::header::ACCEPT;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Attachment, Class, Email, Failure, Mailbox, Outgoing, Receipt, Refusal, Unsupported};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{array, base64, named, receipt, size, text, written};
use super::rules::{self, Rule, Said, codes, status, words};
use super::{BatchLimits, BatchOutcome};
use crate::config::env;
use crate::{Answer, Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Secret};

/// Postmark, by its Email API.
///
/// A mail has one tag at the most. The Message-ID is the delivery's own. Some endings of file names Postmark does not take; it
/// refuses the message then.
///
/// | Answer | Means |
/// |---|---|
/// | 200 with the code 0 or none | accepted, by all but the inactive recipients whom its message names |
/// | code 300 about From, 400, 401, 412 | [`Sender`](HttpErrorKind::Sender) |
/// | code 300, 402, 403, 410, 411; status 413 | [`Message`](HttpErrorKind::Message) |
/// | code 406 | [`Recipient`](HttpErrorKind::Recipient); **in doubt** where it names some recipients only |
/// | code 10, 409, 413, 422, 1235, 1236, 1480 | [`Account`](HttpErrorKind::Account) |
/// | code 405: no credits are left | [`Quota`](HttpErrorKind::Quota) |
/// | status or code 429 | [`Rate`](HttpErrorKind::Rate) |
/// | code 100, status 503 | [`Unavailable`](HttpErrorKind::Unavailable) |
/// | status 500 | [`NoAnswer`](HttpErrorKind::NoAnswer), since Postmark says that the message is lost "in most cases" |
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
        Self::new(env("POSTMARK_SERVER_TOKEN")?)
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
        } else if units(&written(email.from())) > MAX_FROM {
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
        } else if body(email.text()) > MAX_BODY || body(email.html()) > MAX_BODY || size(email) > MAX_SIZE {
            "a mail of more than 10 MB, or a body of more than 5 MB"
        } else {
            return Ok(());
        };
        Err(Unsupported::new(what))
    }

    fn request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::of(outgoing)?;
        let mut headers: Vec<_> = fields.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
        headers.push(Header { name: "Message-ID", value: outgoing.message_id() });
        // Without it, Postmark writes a Message-ID of its own.
        headers.push(Header { name: "X-PM-KeepID", value: "true".to_owned() });
        let mail = Mail {
            from: written(email.from()),
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
        Ok(accepting_json(Request::of_json("/email", &mail)?))
    }

    fn receipt(&self, outgoing: &Outgoing<Email>, answer: &Answer) -> Result<Receipt, Failure> {
        if answer.status() == 200 {
            return read(outgoing, answer, answer.json()?);
        }
        match answer.object::<Reason>() {
            Ok(said) if !said.error_code.is_empty() => Err(refusal(outgoing, answer, &said, answer.text())),
            _ => Err(unsaid(answer).into()),
        }
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(BatchLimits { messages: 500, octets: 50_000_000 })
    }

    fn batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        accepting_json(Request::json("/email/batch", array(batch)))
    }

    fn batch_receipts(&self, batch: &[&Outgoing<Email>], answer: &Answer) -> BatchOutcome {
        if answer.status() != 200 {
            return refused_batch(batch.len(), answer);
        }
        match answer.json::<Vec<Value>>() {
            Ok(items) if items.len() == batch.len() => BatchOutcome::Each(
                batch.iter().zip(items).map(|(outgoing, item)| read(outgoing, answer, item)).collect(),
            ),
            Ok(_) => {
                let error = answer.error(HttpErrorKind::NoAnswer, "it did not answer for each message of a batch");
                BatchOutcome::all(batch.len(), &error)
            }
            Err(error) => BatchOutcome::all(batch.len(), &error),
        }
    }
}

/// What Postmark says of one message.
fn read(outgoing: &Outgoing<Email>, answer: &Answer, item: Value) -> Result<Receipt, Failure> {
    let reply = item.to_string();
    let unreadable = || answer.strange();
    if !item.is_object() {
        return Err(unreadable().into());
    }
    let said: Reason = serde_json::from_value(item).map_err(|_| unreadable())?;
    if !matches!(said.error_code.as_str(), "" | "0") {
        return Err(refusal(outgoing, answer, &said, reply));
    }
    // A mail that is accepted with a delay has no code (<https://github.com/anymail/django-anymail/issues/392>). With neither code nor id
    // it is not Postmark's.
    if said.error_code.is_empty() && said.message_id.is_empty() {
        return Err(unreadable().into());
    }
    let refused = inactive(outgoing, &said.message);
    if refused.len() == outgoing.recipients().len() {
        let error = HttpError::new(HttpErrorKind::Recipient, Postmark::NAME, said.message);
        return Err(error.with_answer(answer.status(), reply).into());
    }
    Ok(receipt(&said.message_id).with_reply(reply).with_refused(refused))
}

const CODES: &str = "https://postmarkapp.com/developer/api/overview#error-codes";
const STATUSES: &str = "https://postmarkapp.com/developer/api/overview";
const UNVERIFIED: &str = "https://postmarkapp.com/support/article/troubleshooting-422-unprocessable-entity-errors";

/// By its codes. In a batch each message has one of its own, under a status of success.
const RULES: &[Rule] = &[
    words(&[], "'from'", HttpErrorKind::Sender, UNVERIFIED).of(&["300"]),
    codes(&["300", "402", "403", "410", "411"], HttpErrorKind::Message, CODES),
    codes(&["400", "401"], HttpErrorKind::Sender, CODES),
    // While the account is pending, only addresses at the From's own domain are taken.
    codes(&["412"], HttpErrorKind::Sender, CODES),
    codes(&["406"], HttpErrorKind::Recipient, CODES),
    codes(&["10", "409", "413", "422", "1235", "1236", "1480"], HttpErrorKind::Account, CODES),
    codes(&["405"], HttpErrorKind::Quota, CODES),
    codes(&["429"], HttpErrorKind::Rate, CODES),
    codes(&["100"], HttpErrorKind::Unavailable, CODES),
    status(&[429], HttpErrorKind::Rate, STATUSES),
];

/// A refusal in Postmark's own form.
fn refusal(outgoing: &Outgoing<Email>, answer: &Answer, reason: &Reason, reply: String) -> Failure {
    use HttpErrorKind::{NoAnswer, Recipient};
    let inactive = inactive(outgoing, &reason.message);
    let some = !inactive.is_empty() && inactive.len() < outgoing.recipients().len();
    let said = reason.said(answer.status());
    let known = rules::meaning(RULES, answer.status(), &said).map(Rule::kind);
    let error = match known {
        _ if answer.status() >= 500 => answer.error(unsaid(answer).kind(), reason.message.clone()),
        // It is documented for mails that nobody would get. That it may come with mails that somebody got, nothing rules out.
        Some(Recipient) if some => answer.error(NoAnswer, reason.message.clone()),
        _ => rules::read(RULES, answer, &[said]),
    };
    let error = error.with_answer(answer.status(), reply).with_code(&reason.error_code);
    Failure::from(error).with_refused(inactive)
}

/// What a status means by itself.
fn unsaid(answer: &Answer) -> HttpError {
    match answer.status() {
        500 => answer.error(HttpErrorKind::NoAnswer, "it failed inside"),
        _ => answer.refusal(),
    }
}

/// A batch of which nothing was taken, or nobody knows.
fn refused_batch(messages: usize, answer: &Answer) -> BatchOutcome {
    use HttpErrorKind::{Message, Recipient, Sender};
    let error = match answer.object::<Reason>() {
        Ok(reason) if answer.status() < 500 && !reason.error_code.is_empty() => {
            rules::read(RULES, answer, &[reason.said(answer.status())])
        }
        _ => unsaid(answer),
    };
    match error.kind() {
        Message | Recipient | Sender => BatchOutcome::OneByOne,
        _ => BatchOutcome::all(messages, &error),
    }
}

/// Those recipients of an attempt whom an answer calls inactive. It names them by address, in lower case, amid prose.
fn inactive(outgoing: &Outgoing<Email>, message: &str) -> Vec<Refusal> {
    let Some((_, list)) = message.split_once("inactive addresses:") else { return Vec::new() };
    let inactive = named(outgoing, [list]).into_iter();
    inactive.map(|(recipient, _)| Refusal::new(recipient, Class::Permanent, message)).collect()
}

/// Postmark answers in JSON to those only who say that they read it.
fn accepting_json(request: Request) -> Request {
    request.with_header(ACCEPT, HeaderValue::from_static("application/json"))
}

/// Mailboxes in one text.
fn list<'a>(mailboxes: impl IntoIterator<Item = &'a Mailbox>) -> String {
    mailboxes.into_iter().map(written).collect::<Vec<_>>().join(", ")
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
struct Reason {
    #[serde(default, deserialize_with = "text")]
    error_code: String,
    #[serde(default, deserialize_with = "text")]
    message: String,
    #[serde(rename = "MessageID", default, deserialize_with = "text")]
    message_id: String,
}

impl Reason {
    /// What Postmark says of one message comes with the status of a request for it, or with that of a batch.
    fn said(&self, status: u16) -> Said<'_> {
        let status = if status == 200 { 422 } else { status };
        Said { status: Some(status), code: &self.error_code, text: &self.message, ..Said::default() }
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
    fn each_line_of_the_table_counts() {
        super::super::rules::assert_sound(super::RULES);
    }
}
