//! SparkPost: <https://developers.sparkpost.com/api/transmissions/>.

use std::collections::BTreeMap;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Class, Email, Failure, Outgoing, Receipt, Refusal, ReversePath, Scope, Unsupported};
use serde::{Deserialize, Serialize};

use super::json::{lenient_list, lenient_string, receipt_with_id};
use super::mime::{self, content_size};
use super::recipients::find_named_recipients;
use super::rules::{self, ApiError, Rule, on_code, on_status, on_text};
use crate::config::read_env;
use crate::{HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// SparkPost's Transmissions API.
///
/// The request has a whole MIME message and exactly the recipients of the attempt. The headers still name all recipients of the mail.
/// SparkPost's events return tags and metadata. The mail is sent as transactional, since SparkPost adds a `List-Unsubscribe` to any other,
/// and without the template language. The settings of the account decide whether SparkPost rewrites links and counts opens.
///
/// The envelope sender is sent as the return path. Its domain must be a verified bounce domain. Only Enterprise accounts keep its local
/// part.
///
/// Every retry has the same idempotency key, which SparkPost remembers for 24 hours. Within that time it does not send an accepted
/// message again.
///
/// | Response | Means |
/// |---|---|
/// | 200 | accepted, except for the rejected recipients that it names; the body has the id. If it rejected some without naming them: **in doubt** |
/// | codes 7000 and 7001: the domain of the sender or the return path | [`Sender`](HttpErrorKind::Sender) |
/// | codes 1100 to 1103, 1303, 1304, 1600, 1601, 1700, 1800, 1910; 401; other 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | code 5002; 400 with code 1902 for a suppressed address; 200 without an accepted recipient | [`Recipient`](HttpErrorKind::Recipient) |
/// | codes 1502, 1900 | [`Unavailable`](HttpErrorKind::Unavailable) |
/// | codes 1200, 1300, 1301, 1305, 1400, 1401, 1901, other 1902, 2002, 3000 to 3050, 10000 to 10002; 413 | [`Message`](HttpErrorKind::Message) |
/// | 409: an earlier request of this delivery is in progress, or had other content | [`NoResponse`](HttpErrorKind::NoResponse) |
/// | codes 2101, 2103; 420 | [`Quota`](HttpErrorKind::Quota) |
/// | 429 | [`RateLimit`](HttpErrorKind::RateLimit) |
/// | 500 in the provider's format | [`ServerError`](HttpErrorKind::ServerError) |
#[derive(Debug, Clone)]
pub struct SparkPost {
    key: Secret,
    eu: bool,
    sandbox: bool,
}

impl SparkPost {
    /// Creates the provider with an API key that may write transmissions.
    ///
    /// # Errors
    /// If the key is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::new(key.as_ref())?, eu: false, sandbox: false })
    }

    /// Reads the key from the environment variable `SPARKPOST_API_KEY`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("SPARKPOST_API_KEY")?)
    }

    /// Uses the servers in the European Union, for accounts of that region. In a URL: `region=eu`.
    #[must_use]
    pub fn eu(mut self) -> Self {
        self.eu = true;
        self
    }

    /// Sends from the sandbox domain `sparkpostbox.com`, which an account may use for five mails. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }
}

/// Maximum size of a message, in octets: 20 MB.
const MAX_OCTETS: usize = 20 * 1000 * 1000;

/// Maximum number of tags. SparkPost ignores more (<https://developers.sparkpost.com/api/recipient-lists/>).
const MAX_TAGS: usize = 10;

/// Maximum size of the metadata, in octets of JSON.
const MAX_METADATA: usize = 1000;

impl Provider for SparkPost {
    const NAME: &'static str = "sparkpost";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let mut sparkpost = Self::new(url.key()?)?;
        sparkpost.eu = url.choice("region", "us", "eu")?;
        sparkpost.sandbox = url.flag("sandbox")?;
        Ok(sparkpost)
    }

    fn base_url(&self) -> &str {
        if self.eu { "https://api.eu.sparkpost.com" } else { "https://api.sparkpost.com" }
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        mime::check(email)?;
        if email.envelope_from() == Some(&ReversePath::Null) {
            return Err(Unsupported::new("an empty envelope sender"));
        }
        if email.tags().len() > MAX_TAGS {
            return Err(Unsupported::new("more than 10 tags"));
        }
        if serde_json::to_vec(email.metadata()).map_or(usize::MAX, |json| json.len()) > MAX_METADATA {
            return Err(Unsupported::new("metadata of more than 1000 octets"));
        }
        if content_size(email) > MAX_OCTETS {
            return Err(Unsupported::new("a message of more than 20 MB"));
        }
        // `perform_substitutions` turns the template language off only for bodies.
        if header_texts(email).iter().any(|text| text.contains("{{")) {
            return Err(Unsupported::new("{{ in a header, which begins a template expression"));
        }
        Ok(())
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let message =
            String::from_utf8(mime::render(outgoing)?).map_err(|_| Unsupported::new("a message that is not text"))?;
        let recipients = outgoing.recipients().iter();
        let transmission = Transmission {
            options: Options { transactional: true, perform_substitutions: false, sandbox: self.sandbox },
            recipients: recipients
                .map(|recipient| JsonRecipient { address: Address { email: recipient.as_str() }, tags: email.tags() })
                .collect(),
            metadata: email.metadata(),
            return_path: match email.envelope_from() {
                Some(ReversePath::Address(address)) => Some(address.as_str()),
                _ => None,
            },
            content: Content { email_rfc822: message },
        };
        let key = HeaderValue::try_from(outgoing.idempotency_key())
            .map_err(|_| Failure::permanent(Scope::Message, "the idempotency key is not a valid header value"))?;
        let request = Request::json("/api/v1/transmissions", &transmission)?;
        Ok(request.with_header(HeaderName::from_static("idempotency-key"), key))
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() != 200 {
            return Err(parse_error(response).into());
        }
        let TransmissionResponse { results } = response.json_object()?;
        if results.accepted() == Some(0) {
            let text = results.rcpt_to_errors.iter().map(ErrorBody::text).collect::<Vec<_>>().join("; ");
            return Err(response.error(HttpErrorKind::Recipient, format!("no recipient was accepted: {text}")).into());
        }
        let refused = find_refused(outgoing, &results.rcpt_to_errors);
        if refused.len() != results.rejected().unwrap_or(refused.len()) {
            // As a success, the rejected recipients would be lost. The idempotency key protects the others from a second copy.
            return Err(response
                .error(HttpErrorKind::NoResponse, "some recipients were rejected, but not all of them are named")
                .into());
        }
        Ok(receipt_with_id(&results.id).with_refused(refused))
    }
}

/// All texts that the headers contain.
fn header_texts(email: &Email) -> Vec<String> {
    let mailboxes = [email.to(), email.cc(), email.reply_to()].into_iter().flatten();
    let mut texts: Vec<String> = vec![email.subject().to_owned()];
    for mailbox in mailboxes.chain([email.from()]).chain(email.sender()) {
        texts.push(mailbox.address().as_str().to_owned());
        texts.extend(mailbox.name().map(str::to_owned));
    }
    for header in email.headers() {
        texts.push(header.name().to_owned());
        texts.push(header.value().to_owned());
    }
    texts.extend(email.list_unsubscribe().map(|list| list.header_value()));
    texts
}

/// Finds the recipients that the errors name. The API has no field for them, only the text.
fn find_refused(outgoing: &Outgoing<Email>, errors: &[ErrorBody]) -> Vec<Refusal> {
    let texts: Vec<_> = errors.iter().map(ErrorBody::text).collect();
    let named = find_named_recipients(outgoing, texts.iter().map(String::as_str)).into_iter();
    named.map(|(recipient, index)| Refusal::new(recipient, Class::Permanent, texts[index].as_str())).collect()
}

const CODES: &str = "https://support.sparkpost.com/docs/tech-resources/extended-error-codes";
const MANUAL: &str = "https://developers.sparkpost.com/api/transmissions/";

const RULES: &[Rule] = &[
    // With any code: there was an earlier request of this delivery. Its outcome is unknown.
    on_status(&[409], HttpErrorKind::NoResponse, MANUAL),
    on_status(&[401], HttpErrorKind::Account, CODES),
    on_status(&[420], HttpErrorKind::Quota, CODES),
    on_status(&[429], HttpErrorKind::RateLimit, CODES),
    on_code(&["7000", "7001"], HttpErrorKind::Sender, CODES),
    on_code(&["1100", "1101", "1102", "1103", "1303", "1304", "1600", "1601", "1910"], HttpErrorKind::Account, CODES),
    on_code(&["1700", "1800"], HttpErrorKind::Account, CODES),
    on_code(&["1502", "1900"], HttpErrorKind::Unavailable, CODES),
    on_code(&["2101", "2103"], HttpErrorKind::Quota, CODES),
    on_code(&["5002"], HttpErrorKind::Recipient, CODES),
    on_text(&[400], "suppressed", HttpErrorKind::Recipient, MANUAL).with_codes(&["1902"]),
    on_code(&["1901", "1902"], HttpErrorKind::Message, CODES),
    on_code(&["1200", "1300", "1301", "1305", "1400", "1401"], HttpErrorKind::Message, CODES),
    on_code(&["2002", "3000", "3001", "3002", "3010", "3020", "3040", "3050"], HttpErrorKind::Message, CODES),
    on_code(&["10000", "10001", "10002"], HttpErrorKind::Message, CODES),
    on_status(&[413], HttpErrorKind::Message, CODES),
    on_status(&[403, 404, 405], HttpErrorKind::Account, MANUAL),
    on_status(&[500], HttpErrorKind::ServerError, CODES),
];

fn parse_error(response: &Response) -> HttpError {
    let Ok(Errors { errors }) = response.json_object() else {
        return response.status_error();
    };
    let texts: Vec<_> = errors.iter().map(ErrorBody::text).collect();
    let api_errors =
        errors.iter().zip(&texts).map(|(error, text)| ApiError { code: &error.code, text, ..ApiError::default() });
    rules::classify(RULES, response, &api_errors.collect::<Vec<_>>())
}

#[derive(Deserialize)]
struct TransmissionResponse {
    results: Results,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default, deserialize_with = "lenient_string")]
    id: String,
    #[serde(default, deserialize_with = "lenient_string")]
    total_accepted_recipients: String,
    #[serde(default, deserialize_with = "lenient_string")]
    total_rejected_recipients: String,
    #[serde(default, deserialize_with = "lenient_list")]
    rcpt_to_errors: Vec<ErrorBody>,
}

impl Results {
    /// Number of accepted recipients. `None` if the response has no number.
    fn accepted(&self) -> Option<usize> {
        self.total_accepted_recipients.parse().ok()
    }

    /// Number of rejected recipients. `None` if the response has no number.
    fn rejected(&self) -> Option<usize> {
        self.total_rejected_recipients.parse().ok()
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorBody>,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default, deserialize_with = "lenient_string")]
    message: String,
    #[serde(default, deserialize_with = "lenient_string")]
    description: String,
    /// A string by the manual, but sometimes a number.
    #[serde(default, deserialize_with = "lenient_string")]
    code: String,
}

impl ErrorBody {
    fn text(&self) -> String {
        let parts = [self.message.as_str(), &self.description].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(": ")
    }
}

#[derive(Serialize)]
struct Transmission<'a> {
    options: Options,
    recipients: Vec<JsonRecipient<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_path: Option<&'a str>,
    content: Content,
}

#[derive(Serialize)]
struct Options {
    transactional: bool,
    perform_substitutions: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sandbox: bool,
}

#[derive(Serialize)]
struct JsonRecipient<'a> {
    address: Address<'a>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
}

#[derive(Serialize)]
struct Address<'a> {
    email: &'a str,
}

#[derive(Serialize)]
struct Content {
    email_rfc822: String,
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
