//! Resend: <https://resend.com/docs/api-reference/emails/send-email>.

use std::collections::{BTreeMap, HashSet};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Unsupported};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::json::{base64, encoded_size, format_mailbox, join_bodies, lenient_string, receipt_with_id};
use super::rules::{self, ApiError, Rule, on_code, on_status, on_text};
use super::{BatchLimits, BatchOutcome};
use crate::config::read_env;
use crate::{Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// Resend's REST API.
///
/// Resend's tags are pairs. Metadata is sent as such pairs, and a tag as a pair with the value `true`. Resend sets the Message-ID. It
/// recognizes a retry by the idempotency key, for 24 hours.
///
/// | Response | Means |
/// |---|---|
/// | 2xx in the provider's format | accepted; the id is in `id` |
/// | 403: `validation_error` about a domain, or about testing emails; `invalid_from_address` | [`Sender`](HttpErrorKind::Sender) |
/// | 400, 422: `validation_error`, `missing_required_field`, `missing_required_parameter`, `invalid_attachment`, `invalid_parameter` | [`Message`](HttpErrorKind::Message) |
/// | `invalid_idempotency_key`; 451: `security_error` | [`Message`](HttpErrorKind::Message) |
/// | `concurrent_idempotent_requests`, `invalid_idempotent_request`: an earlier request of this delivery is in progress, or had other content | [`NoResponse`](HttpErrorKind::NoResponse) |
/// | 401; `validation_error` about the API key; `missing_api_key`, `restricted_api_key`, `invalid_api_key`, `suspended_api_key`, `invalid_permission`, `not_found`, `method_not_allowed` | [`Account`](HttpErrorKind::Account) |
/// | `daily_quota_exceeded`, `monthly_quota_exceeded` | [`Quota`](HttpErrorKind::Quota) |
/// | `rate_limit_exceeded` | [`RateLimit`](HttpErrorKind::RateLimit) |
/// | `application_error`, `internal_server_error`, `resource_locked` | [`ServerError`](HttpErrorKind::ServerError) |
/// | `service_unavailable` | [`Unavailable`](HttpErrorKind::Unavailable) |
///
/// The names are documented in <https://resend.com/docs/api-reference/errors>.
///
/// # Batches
/// A batch has up to 100 messages without attachments. If Resend refuses one of them, it accepts the others. The transport sends the
/// refused message again, alone, since the response to a batch does not give the kind of the error.
///
/// A batch has one idempotency key for all of its messages, so Resend recognizes a retry only if the retry has exactly the same messages.
/// If a batch is in doubt, all of its messages are, and a retry may send them twice. [Without batches](Self::without_batches) each message
/// has its own key, and a retry within 24 hours never sends it twice.
#[derive(Debug, Clone)]
pub struct Resend {
    key: Secret,
    batches: bool,
}

impl Resend {
    /// Creates the provider with an API key that may send mail.
    ///
    /// # Errors
    /// If the key is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())?, batches: true })
    }

    /// Reads the key from the environment variable `RESEND_API_KEY`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("RESEND_API_KEY")?)
    }

    /// Sends each message alone, with its own idempotency key. In a URL: `batches=false`.
    ///
    /// This is slower, since Resend limits the rate of requests, but a retry never sends a message twice.
    #[must_use]
    pub fn without_batches(mut self) -> Self {
        self.batches = false;
        self
    }
}

/// Maximum number of `to` recipients.
const MAX_TO: usize = 50;

/// Maximum size of a mail with attachments in base64, in octets: <https://resend.com/docs/dashboard/emails/attachments>. The page says 40
/// MB, which may mean MiB; this is the larger value.
const MAX_SIZE: usize = 40 * 1024 * 1024;

/// Maximum length of a tag's name, and of its value, in octets.
const MAX_TAG: usize = 256;

/// Value of the pair for a tag.
const TAG_VALUE: &str = "true";

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
                return Err(Unsupported::new("a tag with the name of another tag or of a metadata key"));
            }
        }
        if encoded_size(email) > MAX_SIZE {
            return Err(Unsupported::new("a mail of more than 40 MB"));
        }
        Ok(())
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::with_to(outgoing)?;
        let mail = Mail {
            from: format_mailbox(email.from()),
            to: fields.to.into_iter().map(format_mailbox).collect(),
            cc: fields.cc.into_iter().map(format_mailbox).collect(),
            bcc: fields.bcc.into_iter().map(format_mailbox).collect(),
            reply_to: fields.reply_to.into_iter().map(format_mailbox).collect(),
            subject: email.subject(),
            html: email.html(),
            // Without a text, Resend generates one from the HTML.
            text: email.text().unwrap_or_default(),
            headers: fields.headers.into_iter().collect(),
            attachments: email.attachments().iter().map(File::from).collect(),
            tags: tags(email).collect(),
        };
        Ok(with_idempotency_key(Request::json("/emails", &mail)?, &outgoing.idempotency_key()))
    }

    fn parse_response(&self, _: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if (200..300).contains(&response.status()) {
            let accepted: SendResponse = response.json_object()?;
            return if accepted.is_error() {
                Err(response.unexpected_body().into())
            } else {
                Ok(receipt_with_id(&accepted.id))
            };
        }
        Err(parse_error(response).into())
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        // Resend documents no size limit. Any gateway accepts this size.
        self.batches.then_some(BatchLimits::new(100, 4_000_000))
    }

    fn is_batchable(&self, outgoing: &Outgoing<Email>) -> bool {
        outgoing.message().attachments().is_empty()
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        let request = with_idempotency_key(Request::json_bytes("/emails/batch", join_bodies(batch)), &batch_key(batch));
        request.with_header(HeaderName::from_static("x-batch-validation"), HeaderValue::from_static("permissive"))
    }

    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        use HttpErrorKind::{Message, NoResponse, Recipient, Sender, ServerError};
        if !(200..300).contains(&response.status()) {
            let error = parse_error(response);
            return match (response.status(), error.kind()) {
                // An earlier request with the same messages is in progress or was accepted.
                (409, _) => {
                    BatchOutcome::same_error(batch.len(), &response.error(NoResponse, "the same batch was sent before"))
                }
                (_, Message | Recipient | Sender) => BatchOutcome::SendEach,
                // Some messages may have been accepted before the error.
                (_, ServerError) => BatchOutcome::same_error(
                    batch.len(),
                    &response.error(NoResponse, "the batch failed with an internal error"),
                ),
                _ => BatchOutcome::same_error(batch.len(), &error),
            };
        }
        match response.json_object::<BatchResponse>().map(|response| response.receipts(batch.len())) {
            Ok(Some(receipts)) => BatchOutcome::PartlyAccepted(receipts),
            Ok(None) => {
                let error = response.error(NoResponse, "the batch response does not have one result for each message");
                BatchOutcome::same_error(batch.len(), &error)
            }
            Err(error) => BatchOutcome::same_error(batch.len(), &error),
        }
    }
}

const ERRORS: &str = "https://resend.com/docs/api-reference/errors";
const DOMAIN: &str = "https://resend.com/docs/knowledge-base/403-error-domain-mismatch";

const RULES: &[Rule] = &[
    // Resend uses this name for an invalid key, an invalid domain and an invalid field.
    on_text(&[400, 401, 403], "api key is invalid", HttpErrorKind::Account, ERRORS).with_codes(&["validation_error"]),
    on_text(&[403], "domain", HttpErrorKind::Sender, DOMAIN).with_codes(&["validation_error"]),
    on_text(&[403], "testing emails", HttpErrorKind::Sender, ERRORS).with_codes(&["validation_error"]),
    on_status(&[400, 422], HttpErrorKind::Message, ERRORS).with_codes(&["validation_error"]),
    on_code(&["invalid_from_address"], HttpErrorKind::Sender, ERRORS),
    on_code(&["invalid_attachment", "invalid_parameter"], HttpErrorKind::Message, ERRORS),
    on_code(&["missing_required_field", "missing_required_parameter"], HttpErrorKind::Message, ERRORS),
    on_code(&["invalid_idempotency_key"], HttpErrorKind::Message, ERRORS),
    on_code(&["security_error"], HttpErrorKind::Message, ERRORS),
    // There was an earlier request of this delivery. Its outcome is unknown.
    on_code(&["concurrent_idempotent_requests", "invalid_idempotent_request"], HttpErrorKind::NoResponse, ERRORS),
    on_code(&["missing_api_key", "restricted_api_key", "invalid_api_key"], HttpErrorKind::Account, ERRORS),
    on_code(&["suspended_api_key", "invalid_permission"], HttpErrorKind::Account, ERRORS),
    on_code(&["not_found", "method_not_allowed"], HttpErrorKind::Account, ERRORS),
    on_code(&["daily_quota_exceeded", "monthly_quota_exceeded"], HttpErrorKind::Quota, ERRORS),
    on_code(&["rate_limit_exceeded"], HttpErrorKind::RateLimit, ERRORS),
    on_code(&["application_error", "internal_server_error", "resource_locked"], HttpErrorKind::ServerError, ERRORS),
    on_code(&["service_unavailable"], HttpErrorKind::Unavailable, ERRORS),
    on_status(&[429], HttpErrorKind::RateLimit, ERRORS),
    on_status(&[500], HttpErrorKind::ServerError, ERRORS),
];

fn parse_error(response: &Response) -> HttpError {
    let Ok(ErrorBody { name, message }) = response.json_object() else {
        return response.status_error();
    };
    rules::classify(RULES, response, &[ApiError { code: &name, text: &message, ..ApiError::default() }])
}

/// Creates the idempotency key of a batch from the keys of its messages in their order.
fn batch_key(batch: &[(&Outgoing<Email>, Request)]) -> String {
    let keys: Vec<_> = batch.iter().map(|(outgoing, _)| outgoing.idempotency_key()).collect();
    // FNV-1a with 64 bits: the key must be the same in every process and version.
    let hash = keys
        .join("\n")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let first = keys.first().map_or("", String::as_str);
    format!("{first}-batch-{}-{hash:016x}", keys.len())
}

fn with_idempotency_key(request: Request, key: &str) -> Request {
    match HeaderValue::from_str(key) {
        Ok(key) => request.with_header(HeaderName::from_static("idempotency-key"), key),
        // Does not occur: a key is ASCII.
        Err(_) => request,
    }
}

fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_TAG).contains(&text.len()) && text.bytes().all(plain)
}

fn tags(email: &Email) -> impl Iterator<Item = Tag<'_>> {
    let labels = email.tags().iter().map(|label| Tag { name: label, value: TAG_VALUE });
    labels.chain(email.metadata().iter().map(|(name, value)| Tag { name, value }))
}

#[derive(Deserialize)]
struct SendResponse {
    #[serde(default, deserialize_with = "lenient_string")]
    id: String,
    #[serde(rename = "statusCode")]
    status_code: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

impl SendResponse {
    /// Returns whether this is an error under a success status.
    fn is_error(&self) -> bool {
        self.id.is_empty() && (self.status_code.is_some() || self.error.is_some())
    }
}

#[derive(Deserialize)]
struct BatchResponse {
    data: Vec<SendResponse>,
    #[serde(default)]
    errors: Option<Vec<BatchError>>,
}

#[derive(Deserialize)]
struct BatchError {
    index: usize,
}

impl BatchResponse {
    /// Returns a receipt for each accepted message, by position. `None` if the response does not cover each message once.
    fn receipts(self, messages: usize) -> Option<Vec<Option<Receipt>>> {
        let errors = self.errors.unwrap_or_default();
        let refused: HashSet<_> = errors.iter().map(|error| error.index).filter(|index| *index < messages).collect();
        if refused.len() != errors.len() || refused.len() + self.data.len() != messages {
            return None;
        }
        let mut accepted = self.data.into_iter().map(|response| receipt_with_id(&response.id));
        Some((0..messages).map(|index| if refused.contains(&index) { None } else { accepted.next() }).collect())
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    name: String,
    #[serde(default, deserialize_with = "lenient_string")]
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
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
