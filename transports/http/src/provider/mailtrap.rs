//! Mailtrap: <https://github.com/mailtrap/mailtrap-openapi>, `specs/email-sending-transactional.openapi.yml` and its neighbours.

use std::collections::BTreeMap;

use http::HeaderName;
use http::header::AUTHORIZATION;
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Unsupported};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{JsonMailbox, base64, join_values, lenient_list, receipt_with_id};
use super::recipients::check_ascii_addresses;
use super::rules::{self, ApiError, Rule, on_status, on_text};
use crate::config::read_env;
use crate::encoded_word::encode_mailbox;
use crate::{
    BatchLimits, BatchOutcome, Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request,
    Response, Secret,
};

/// Mailtrap's Email Sending API.
///
/// The tag is sent as category, and metadata as custom variables. Several `Reply-To` addresses are sent as a header. Mailtrap sets the
/// Message-ID.
///
/// | Response | Means |
/// |---|---|
/// | 200 without `success: false` | accepted; the id is the first of `message_ids`, which has one for each recipient |
/// | 403 about a domain; 400 about the field `from` | [`Sender`](HttpErrorKind::Sender) |
/// | other 400 | [`Message`](HttpErrorKind::Message) |
/// | 401, other 403 | [`Account`](HttpErrorKind::Account) |
/// | 429 | [`RateLimit`](HttpErrorKind::RateLimit), or [`Quota`](HttpErrorKind::Quota) if the text mentions the plan |
/// | 500 in the provider's format | [`ServerError`](HttpErrorKind::ServerError); in a batch [`NoResponse`](HttpErrorKind::NoResponse), since some messages may have been accepted |
///
/// The response to a batch is 200 even if some messages failed, and gives the reasons only as text. The transport sends these messages
/// again, each alone, to get a status.
#[derive(Debug, Clone)]
pub struct Mailtrap {
    key: Secret,
    stream: Stream,
}

/// The stream that sends a mail.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Transactional,
    Bulk,
    /// Only into the test inbox with this number.
    Sandbox(u64),
}

impl Mailtrap {
    /// Creates the provider with an API token that may send mail.
    ///
    /// # Errors
    /// If the token is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())?, stream: Stream::Transactional })
    }

    /// Reads the token from the environment variable `MAILTRAP_API_KEY`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("MAILTRAP_API_KEY")?)
    }

    /// Uses the bulk stream, for promotional mail. In a URL: `stream=bulk`.
    #[must_use]
    pub fn bulk(mut self) -> Self {
        self.stream = Stream::Bulk;
        self
    }

    /// Delivers only into the test inbox with this number. In a URL: `sandbox=NUMBER`.
    #[must_use]
    pub fn sandbox(mut self, id: u64) -> Self {
        self.stream = Stream::Sandbox(id);
        self
    }

    fn path(&self, call: &str) -> String {
        match self.stream {
            Stream::Transactional | Stream::Bulk => format!("/api/{call}"),
            Stream::Sandbox(id) => format!("/api/{call}/{id}"),
        }
    }
}

/// Maximum number of recipients in each field.
const MAX_RECIPIENTS: usize = 1000;

/// Maximum size of the custom variables, in octets of JSON.
const MAX_VARIABLES: usize = 1000;

const BATCH_LIMITS: BatchLimits = BatchLimits::new(500, 50_000_000);

impl Provider for Mailtrap {
    const NAME: &'static str = "mailtrap";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mailtrap = Self::new(url.key()?)?;
        let stream = url.setting("stream");
        let invalid = |setting, expected: &str| HttpConfigError::Value { setting, expected: expected.to_owned() };
        match (stream.as_deref(), url.setting("sandbox")) {
            (None | Some("transactional"), None) => Ok(mailtrap),
            (Some("bulk"), None) => Ok(mailtrap.bulk()),
            (None, Some(id)) => {
                let id = id.parse().map_err(|_| invalid("sandbox", "the number of an inbox"))?;
                Ok(mailtrap.sandbox(id))
            }
            _ => Err(invalid("stream", "transactional or bulk, and absent if there is a sandbox")),
        }
    }

    fn base_url(&self) -> &str {
        match self.stream {
            Stream::Transactional => "https://send.api.mailtrap.io",
            Stream::Bulk => "https://bulk.api.mailtrap.io",
            Stream::Sandbox(_) => "https://sandbox.api.mailtrap.io",
        }
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        Fields::check_unique_headers(email)?;
        check_ascii_addresses(email)?;
        if [email.to(), email.cc(), email.bcc()].iter().any(|field| field.len() > MAX_RECIPIENTS) {
            return Err(Unsupported::new("more than 1000 recipients in a field"));
        }
        if email.tags().len() > 1 {
            return Err(Unsupported::new("more than one tag"));
        }
        if email.subject().is_empty() {
            return Err(Unsupported::new("a mail without a subject"));
        }
        if serde_json::to_vec(email.metadata()).is_ok_and(|variables| variables.len() > MAX_VARIABLES) {
            return Err(Unsupported::new("metadata of more than 1000 octets"));
        }
        Ok(())
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::new(outgoing)?;
        let to_json = |mailboxes: Vec<_>| mailboxes.into_iter().map(JsonMailbox::from).collect();
        let mut headers: BTreeMap<_, _> = fields.headers.into_iter().collect();
        let reply_to = match fields.reply_to.as_slice() {
            [] => None,
            [one] => Some(JsonMailbox::from(*one)),
            // The field accepts one address.
            several => {
                let list = several.iter().map(|one| encode_mailbox(one)).collect::<Vec<_>>().join(", ");
                headers.insert("Reply-To", list);
                None
            }
        };
        let mail = Mail {
            from: JsonMailbox::from(email.from()),
            to: to_json(fields.to),
            cc: to_json(fields.cc),
            bcc: to_json(fields.bcc),
            reply_to,
            subject: email.subject(),
            text: email.text(),
            html: email.html(),
            attachments: email.attachments().iter().map(File::from).collect(),
            headers,
            category: email.tags().first().map(String::as_str),
            custom_variables: email.metadata(),
        };
        Request::json(self.path("send"), &mail)
    }

    fn parse_response(&self, _: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() != 200 {
            return Err(parse_error(response).into());
        }
        let sent: SendResponse = response.json_object()?;
        if !sent.is_success() {
            return Err(response
                .error(HttpErrorKind::NoResponse, "the response has a success status but reports a failure")
                .into());
        }
        Ok(sent.receipt().with_reply(response.text()))
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(BATCH_LIMITS)
    }

    fn build_batch_request(&self, batch: &[(&Outgoing<Email>, Request)]) -> Request {
        let messages = batch.iter().map(|(_, request)| request.body().as_ref());
        Request::json_bytes(self.path("batch"), join_values(r#"{"requests":["#, messages, "]}"))
    }

    fn parse_batch_response(&self, batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
        let same_error = |error: &HttpError| BatchOutcome::same_error(batch.len(), error);
        if response.status() != 200 {
            let error = parse_error(response);
            return match error.kind() {
                HttpErrorKind::Message => BatchOutcome::SendEach,
                HttpErrorKind::ServerError => {
                    let text = "the response does not say which messages were accepted";
                    same_error(&response.error(HttpErrorKind::NoResponse, text))
                }
                _ => same_error(&error),
            };
        }
        match response.json_object::<BatchResponse>() {
            Ok(BatchResponse { responses }) if responses.len() == batch.len() => BatchOutcome::PartlyAccepted(
                responses.iter().map(|sent| sent.is_success().then(|| sent.receipt())).collect(),
            ),
            Ok(_) => {
                let text = "the batch response does not have one result for each message";
                same_error(&response.error(HttpErrorKind::NoResponse, text))
            }
            Err(unreadable) => same_error(&unreadable),
        }
    }
}

const SPEC: &str =
    "https://github.com/mailtrap/mailtrap-openapi/blob/main/specs/email-sending-transactional.openapi.yml";
const SANDBOX: &str = "https://github.com/mailtrap/mailtrap-openapi/blob/main/specs/sandbox-sending.openapi.yml";
const DOMAINS: &str = "https://help.mailtrap.io/article/40-mailtrap-sending-faqs";

/// Mailtrap's errors have no codes, only a status and a few documented texts.
const RULES: &[Rule] = &[
    on_text(&[403], "domain", HttpErrorKind::Sender, DOMAINS),
    on_text(&[400], "'from' address is", HttpErrorKind::Sender, SPEC),
    on_text(&[400], "is required", HttpErrorKind::Message, SPEC),
    on_text(&[400], "must specify either text or html body", HttpErrorKind::Message, SPEC),
    on_status(&[401, 403], HttpErrorKind::Account, SPEC),
    // "Billing plan limit exhausted or sandbox rate limit exceeded (see the response for details)."
    on_text(&[429], "per second", HttpErrorKind::RateLimit, SANDBOX),
    on_text(&[429], "plan", HttpErrorKind::Quota, SANDBOX),
    on_status(&[429], HttpErrorKind::RateLimit, SANDBOX),
    on_status(&[500], HttpErrorKind::ServerError, SPEC),
];

fn parse_error(response: &Response) -> HttpError {
    let Ok(Errors { errors }) = response.json_object() else {
        return response.status_error();
    };
    let errors: Vec<_> = errors.iter().map(|text| ApiError { text, ..ApiError::default() }).collect();
    rules::classify(RULES, response, &errors)
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct SendResponse {
    success: Option<bool>,
    #[serde(default, deserialize_with = "lenient_list")]
    message_ids: Vec<Value>,
    #[serde(default, deserialize_with = "lenient_list")]
    errors: Vec<Value>,
}

/// `SentResponse` of the specification. All fields are optional.
impl SendResponse {
    fn is_success(&self) -> bool {
        self.success.unwrap_or(self.errors.is_empty())
    }

    fn receipt(&self) -> Receipt {
        let id = self.message_ids.first().map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        receipt_with_id(&id.unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct BatchResponse {
    responses: Vec<SendResponse>,
}

#[derive(Serialize)]
struct Mail<'a> {
    from: JsonMailbox<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    to: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<JsonMailbox<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<JsonMailbox<'a>>,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<File<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    custom_variables: &'a BTreeMap<String, String>,
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
    fn from(file: &'a Attachment) -> Self {
        Self {
            content: base64(file.content()),
            filename: file.file_name(),
            kind: file.content_type(),
            disposition: if file.content_id().is_some() { "inline" } else { "attachment" },
            content_id: file.content_id(),
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
