//! Resend: <https://resend.com/docs/api-reference/emails/send-email>.

use std::collections::{BTreeMap, HashSet};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Unsupported};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::json::{array, base64, receipt, size, text, written};
use super::rules::{self, Rule, Said, codes, status, words};
use super::{BatchLimits, BatchOutcome};
use crate::config::env;
use crate::{Answer, Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Secret};

/// Resend, by its REST API.
///
/// Resend's tags are pairs. Metadata become such pairs, and a tag becomes one whose value is `true`. Resend writes the Message-ID
/// itself; what makes a retry known as such is the idempotency key, for 24 hours.
///
/// | Answer | Means |
/// |---|---|
/// | 2xx in its own form | accepted, under the `id` |
/// | 403: `validation_error` about a domain, or about testing emails; `invalid_from_address` | [`Sender`](HttpErrorKind::Sender) |
/// | 400, 422: `validation_error`, `missing_required_field`, `missing_required_parameter`, `invalid_attachment`, `invalid_parameter` | [`Message`](HttpErrorKind::Message) |
/// | 451: `security_error` | [`Message`](HttpErrorKind::Message) |
/// | `concurrent_idempotent_requests`, `invalid_idempotent_request`: an earlier request of this delivery is under way, or was handled with another content | [`NoAnswer`](HttpErrorKind::NoAnswer) |
/// | 401; `validation_error` about the API key; `missing_`, `restricted_`, `invalid_`, `suspended_api_key`, `invalid_permission`, `not_found`, `method_not_allowed` | [`Account`](HttpErrorKind::Account) |
/// | `daily_quota_exceeded`, `monthly_quota_exceeded` | [`Quota`](HttpErrorKind::Quota) |
/// | `rate_limit_exceeded` | [`Rate`](HttpErrorKind::Rate) |
/// | `application_error`, `internal_server_error`, `resource_locked` | [`Busy`](HttpErrorKind::Busy) |
/// | `service_unavailable` | [`Unavailable`](HttpErrorKind::Unavailable) |
///
/// The names are those of <https://resend.com/docs/api-reference/errors>.
///
/// # Batches
/// Up to 100 messages without attachments go out in one call. One that Resend finds fault with does not hold the others back: it is
/// asked for once more, alone, since the answer to a batch does not say what kind of fault it is.
///
/// A batch has one idempotency key for all of its messages, so that Resend knows a retry only if the very same messages meet again,
/// which they hardly ever do. When a batch is in doubt, so are all of its messages, and sending them again may send them twice.
/// [Without batches](Self::without_batches) each message has a key of its own, and a retry within 24 hours never sends it twice.
#[derive(Debug, Clone)]
pub struct Resend {
    key: Secret,
    batches: bool,
}

impl Resend {
    /// With an API key that may send mail.
    ///
    /// # Errors
    /// When the key is empty or has characters that no key has.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())?, batches: true })
    }

    /// With the key in the environment variable `RESEND_API_KEY`.
    ///
    /// # Errors
    /// When it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(env("RESEND_API_KEY")?)
    }

    /// Asks for each message alone, under a key of its own: slower, since Resend counts requests, and safe to try again. In a URL:
    /// `batches=false`.
    #[must_use]
    pub fn without_batches(mut self) -> Self {
        self.batches = false;
        self
    }
}

/// As many `to` recipients as a mail may have.
const MAX_TO: usize = 50;

/// How long a mail may be, its attachments in base64: <https://resend.com/docs/dashboard/emails/attachments>. A larger one is surely too
/// large, whichever megabyte is meant.
const MAX_SIZE: usize = 40 * 1024 * 1024;

/// How long a tag's name and its value may be, each.
const MAX_TAG: usize = 256;

/// What a tag has for its value.
const SET: &str = "true";

impl Provider for Resend {
    const NAME: &'static str = "resend";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut resend = Self::new(url.key()?)?;
        resend.batches = !url.choice("batches", "true", "false")?;
        Ok(resend)
    }

    fn base_url(&self) -> &str {
        "https://api.resend.com"
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        Fields::check_to(email)?;
        Fields::check_unique_headers(email)?;
        if email.to().len() > MAX_TO {
            return Err(Unsupported::new("more than 50 To recipients"));
        }
        let mut names = HashSet::new();
        for Tag { name, value } in tags(email) {
            if !is_tag(name) || !is_tag(value) {
                let what = "a tag or metadata with anything but 1 to 256 ASCII letters, digits, - and _";
                return Err(Unsupported::new(what));
            }
            if !names.insert(name) {
                return Err(Unsupported::new("two tags, or a tag and a key of metadata, of the same name"));
            }
        }
        if size(email) > MAX_SIZE {
            return Err(Unsupported::new("a mail of more than 40 MB"));
        }
        Ok(())
    }

    fn request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::with_to(outgoing)?;
        let mail = Mail {
            from: written(email.from()),
            to: fields.to.into_iter().map(written).collect(),
            cc: fields.cc.into_iter().map(written).collect(),
            bcc: fields.bcc.into_iter().map(written).collect(),
            reply_to: fields.reply_to.into_iter().map(written).collect(),
            subject: email.subject(),
            html: email.html(),
            // Where it is missing, Resend makes one out of the HTML.
            text: email.text().unwrap_or_default(),
            headers: fields.headers.into_iter().collect(),
            attachments: email.attachments().iter().map(File::from).collect(),
            tags: tags(email).collect(),
        };
        Ok(keyed(Request::of_json("/emails", &mail)?, &outgoing.idempotency_key()))
    }

    fn receipt(&self, _: &Outgoing<Email>, answer: &Answer) -> Result<Receipt, Failure> {
        if (200..300).contains(&answer.status()) {
            let accepted: Accepted = answer.object()?;
            return if accepted.is_error() { Err(answer.strange().into()) } else { Ok(receipt(&accepted.id)) };
        }
        Err(refusal(answer).into())
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        // No limit of size is documented; this is what any gateway takes.
        self.batches.then_some(BatchLimits { messages: 100, octets: 4_000_000 })
    }

    fn is_batchable(&self, outgoing: &Outgoing<Email>) -> bool {
        outgoing.message().attachments().is_empty()
    }

    fn batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        let request = keyed(Request::json("/emails/batch", array(batch)), &batch_key(batch));
        request.with_header(HeaderName::from_static("x-batch-validation"), HeaderValue::from_static("permissive"))
    }

    fn batch_receipts(&self, batch: &[&Outgoing<Email>], answer: &Answer) -> BatchOutcome {
        use HttpErrorKind::{Busy, Message, NoAnswer, Recipient, Sender};
        if !(200..300).contains(&answer.status()) {
            let error = refusal(answer);
            return match (answer.status(), error.kind()) {
                // An earlier request of the same messages is under way, or was taken.
                (409, _) => BatchOutcome::all(batch.len(), &answer.error(NoAnswer, "the batch was asked for before")),
                (_, Message | Recipient | Sender) => BatchOutcome::OneByOne,
                // It may have come to some of them before.
                (_, Busy) => BatchOutcome::all(batch.len(), &answer.error(NoAnswer, "it failed amid a batch")),
                _ => BatchOutcome::all(batch.len(), &error),
            };
        }
        match answer.object::<Batch>().map(|answered| answered.by_place(batch.len())) {
            Ok(Some(receipts)) => BatchOutcome::Taken(receipts),
            Ok(None) => {
                let error = answer.error(NoAnswer, "it did not answer for each message of a batch");
                BatchOutcome::all(batch.len(), &error)
            }
            Err(error) => BatchOutcome::all(batch.len(), &error),
        }
    }
}

const ERRORS: &str = "https://resend.com/docs/api-reference/errors";
const DOMAIN: &str = "https://resend.com/docs/knowledge-base/403-error-domain-mismatch";

const RULES: &[Rule] = &[
    // The same name stands for a wrong key, a wrong domain and a wrong field.
    words(&[400, 401, 403], "api key is invalid", HttpErrorKind::Account, ERRORS).of(&["validation_error"]),
    words(&[403], "domain", HttpErrorKind::Sender, DOMAIN).of(&["validation_error"]),
    words(&[403], "testing emails", HttpErrorKind::Sender, ERRORS).of(&["validation_error"]),
    status(&[400, 422], HttpErrorKind::Message, ERRORS).of(&["validation_error"]),
    codes(&["invalid_from_address"], HttpErrorKind::Sender, ERRORS),
    codes(&["invalid_attachment", "invalid_parameter"], HttpErrorKind::Message, ERRORS),
    codes(&["missing_required_field", "missing_required_parameter"], HttpErrorKind::Message, ERRORS),
    codes(&["invalid_idempotency_key"], HttpErrorKind::Message, ERRORS),
    codes(&["security_error"], HttpErrorKind::Message, ERRORS),
    // A request of this delivery was there before, and what became of it, this answer does not say.
    codes(&["concurrent_idempotent_requests", "invalid_idempotent_request"], HttpErrorKind::NoAnswer, ERRORS),
    codes(&["missing_api_key", "restricted_api_key", "invalid_api_key"], HttpErrorKind::Account, ERRORS),
    codes(&["suspended_api_key", "invalid_permission"], HttpErrorKind::Account, ERRORS),
    codes(&["not_found", "method_not_allowed"], HttpErrorKind::Account, ERRORS),
    codes(&["daily_quota_exceeded", "monthly_quota_exceeded"], HttpErrorKind::Quota, ERRORS),
    codes(&["rate_limit_exceeded"], HttpErrorKind::Rate, ERRORS),
    codes(&["application_error", "internal_server_error", "resource_locked"], HttpErrorKind::Busy, ERRORS),
    codes(&["service_unavailable"], HttpErrorKind::Unavailable, ERRORS),
    status(&[429], HttpErrorKind::Rate, ERRORS),
    status(&[500], HttpErrorKind::Busy, ERRORS),
];

fn refusal(answer: &Answer) -> HttpError {
    let Ok(Reason { name, message }) = answer.object() else {
        return answer.refusal();
    };
    rules::read(RULES, answer, &[Said { code: &name, text: &message, ..Said::default() }])
}

/// The same for the same messages in the same order: the first one's own, and what follows from the others'.
fn batch_key(batch: &[(&Outgoing<Email>, Request)]) -> String {
    let keys: Vec<_> = batch.iter().map(|(outgoing, _)| outgoing.idempotency_key()).collect();
    // FNV-1a, 64 bits, since the key must be the same in every process and version.
    let hash = keys
        .join("\n")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let first = keys.first().map_or("", String::as_str);
    format!("{first}-batch-{}-{hash:016x}", keys.len())
}

fn keyed(request: Request, key: &str) -> Request {
    match HeaderValue::from_str(key) {
        Ok(key) => request.with_header(HeaderName::from_static("idempotency-key"), key),
        // A key is ASCII.
        Err(_) => request,
    }
}

fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_TAG).contains(&text.len()) && text.bytes().all(plain)
}

fn tags(email: &Email) -> impl Iterator<Item = Tag<'_>> {
    let labels = email.tags().iter().map(|label| Tag { name: label, value: SET });
    labels.chain(email.metadata().iter().map(|(name, value)| Tag { name, value }))
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(default, deserialize_with = "text")]
    id: String,
    #[serde(rename = "statusCode")]
    status_code: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

impl Accepted {
    /// Nothing that is documented under a status of success.
    fn is_error(&self) -> bool {
        self.id.is_empty() && (self.status_code.is_some() || self.error.is_some())
    }
}

#[derive(Deserialize)]
struct Batch {
    data: Vec<Accepted>,
    #[serde(default)]
    errors: Option<Vec<Faulty>>,
}

#[derive(Deserialize)]
struct Faulty {
    index: usize,
}

impl Batch {
    /// A receipt for each message that was taken, at its place. Nothing where the answer does not speak of each message once.
    fn by_place(self, messages: usize) -> Option<Vec<Option<Receipt>>> {
        let errors = self.errors.unwrap_or_default();
        let faulty: HashSet<_> = errors.iter().map(|error| error.index).filter(|index| *index < messages).collect();
        if faulty.len() != errors.len() || faulty.len() + self.data.len() != messages {
            return None;
        }
        let mut taken = self.data.into_iter().map(|accepted| receipt(&accepted.id));
        Some((0..messages).map(|place| if faulty.contains(&place) { None } else { taken.next() }).collect())
    }
}

#[derive(Deserialize)]
struct Reason {
    name: String,
    #[serde(default, deserialize_with = "text")]
    message: String,
}

#[derive(Serialize)]
struct Mail<'a> {
    from: String,
    to: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reply_to: Vec<String>,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<&'a str>,
    text: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<File<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag<'a>>,
}

#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct File<'a> {
    filename: &'a str,
    content: String,
    content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
}

impl<'a> From<&'a Attachment> for File<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            filename: attachment.file_name(),
            content: base64(attachment.content()),
            content_type: attachment.content_type(),
            content_id: attachment.content_id(),
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
