//! SparkPost: <https://developers.sparkpost.com/api/transmissions/>.

use std::collections::BTreeMap;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use postrider_transport::{Class, Email, Failure, Outgoing, Receipt, Refusal, ReversePath, Scope, Unsupported};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::is_named;
use super::message::{self, octets, render};
use crate::config::env;
use crate::{Answer, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Secret};

/// SparkPost, by its Transmissions API.
///
/// The mail is handed over as a whole message, for exactly the recipients of the attempt; the headers go on naming all whom the mail names.
/// Tags and metadata come back in its events. It is sent as transactional, since to any other SparkPost adds a `List-Unsubscribe` of its own,
/// and without its template language. Links are rewritten and opens counted as the account is set up.
///
/// An envelope sender of its own is the return path; its domain must be a verified bounce domain, and the part before the `@` is kept in
/// Enterprise accounts only.
///
/// A retry within 24 hours has the same idempotency key, so that a message that was accepted is not sent again.
///
/// | Answer | Means |
/// |---|---|
/// | 200 | accepted, save for whom it names as rejected; the id is in the body. Where it rejected some and does not say whom: **in doubt** |
/// | 400 of the codes 7000 to 7999 and 1910, 401, 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | 400 of the codes 5002 and 1902 with a suppressed address; 200 without an accepted recipient | [`Recipient`](HttpErrorKind::Recipient) |
/// | 400 of the code 1502 | [`Unavailable`](HttpErrorKind::Unavailable) |
/// | other 400, 413, 422 | [`Message`](HttpErrorKind::Message) |
/// | 409: an earlier request of this delivery is under way, or was handled with another content | [`NoAnswer`](HttpErrorKind::NoAnswer) |
/// | 420 | [`Quota`](HttpErrorKind::Quota) |
/// | 429 | [`Rate`](HttpErrorKind::Rate) |
/// | 500 in its own form | [`Busy`](HttpErrorKind::Busy) |
#[derive(Debug, Clone)]
pub struct SparkPost {
    key: Secret,
    eu: bool,
    sandbox: bool,
}

impl SparkPost {
    /// With an API key that may write transmissions.
    ///
    /// # Errors
    /// When the key is empty or has characters that no key has.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::new(key.as_ref())?, eu: false, sandbox: false })
    }

    /// With the key in the environment variable `SPARKPOST_API_KEY`.
    ///
    /// # Errors
    /// When it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(env("SPARKPOST_API_KEY")?)
    }

    /// By the servers in the European Union, for accounts of that region. In a URL: `region=eu`.
    #[must_use]
    pub fn eu(mut self) -> Self {
        self.eu = true;
        self
    }

    /// Sends from the sandbox domain `sparkpostbox.com`, which a new account may do five times. In a URL: `sandbox=true`.
    #[must_use]
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }
}

/// How large a message may be, in octets: 20 MB.
const MAX_OCTETS: usize = 20 * 1000 * 1000;

/// As many tags as a recipient may have; more are ignored (<https://developers.sparkpost.com/api/recipient-lists/>).
const MAX_TAGS: usize = 10;

/// How long metadata may be, in octets of JSON.
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
        message::check(email)?;
        if email.envelope_from() == Some(&ReversePath::Null) {
            return Err(Unsupported::new("an empty envelope sender"));
        }
        if email.tags().len() > MAX_TAGS {
            return Err(Unsupported::new("more than 10 tags"));
        }
        if serde_json::to_vec(email.metadata()).map_or(usize::MAX, |json| json.len()) > MAX_METADATA {
            return Err(Unsupported::new("metadata of more than 1000 octets"));
        }
        if octets(email) > MAX_OCTETS {
            return Err(Unsupported::new("a message of more than 20 MB"));
        }
        // The template language can be turned off for bodies only.
        if head(email).iter().any(|text| text.contains("{{")) {
            return Err(Unsupported::new("two opening braces in a header, which begin an expression"));
        }
        Ok(())
    }

    fn request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let message =
            String::from_utf8(render(outgoing)?).map_err(|_| Unsupported::new("a message that is not text"))?;
        let recipients = outgoing.recipients().iter();
        let transmission = Transmission {
            options: Options { transactional: true, perform_substitutions: false, sandbox: self.sandbox },
            recipients: recipients
                .map(|recipient| To { address: Address { email: recipient.as_str() }, tags: email.tags() })
                .collect(),
            metadata: email.metadata(),
            return_path: match email.envelope_from() {
                Some(ReversePath::Address(address)) => Some(address.as_str()),
                _ => None,
            },
            content: Content { email_rfc822: message },
        };
        let key = HeaderValue::try_from(outgoing.idempotency_key())
            .map_err(|_| Failure::permanent(Scope::Message, "the idempotency key has no place in a header"))?;
        let request = Request::of_json("/api/v1/transmissions", &transmission)?;
        Ok(request.with_header(HeaderName::from_static("idempotency-key"), key))
    }

    fn receipt(&self, outgoing: &Outgoing<Email>, answer: &Answer) -> Result<Receipt, Failure> {
        if answer.status() != 200 {
            return Err(refusal(answer).into());
        }
        let Done { results } = answer.json()?;
        if results.total_accepted_recipients == 0 {
            let said = results.rcpt_to_errors.iter().map(Said::text).collect::<Vec<_>>().join("; ");
            return Err(answer.error(HttpErrorKind::Recipient, format!("it took no recipient: {said}")).into());
        }
        let refused = refused(outgoing, &results.rcpt_to_errors);
        if refused.len() != results.total_rejected_recipients {
            // To count everybody as served would lose somebody. The key keeps a retry from reaching the others again.
            return Err(answer
                .error(HttpErrorKind::NoAnswer, "it rejected some recipients and does not say whom")
                .into());
        }
        Ok(Receipt::new().with_provider_id(results.id).with_refused(refused))
    }
}

/// All that goes into the headers.
fn head(email: &Email) -> Vec<String> {
    let people = [email.to(), email.cc(), email.reply_to()].into_iter().flatten();
    let mut texts: Vec<String> = vec![email.subject().to_owned()];
    for mailbox in people.chain([email.from()]).chain(email.sender()) {
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

/// Who is named by an error. No field is for it, so that only the words can tell.
fn refused(outgoing: &Outgoing<Email>, errors: &[Said]) -> Vec<Refusal> {
    let named = |recipient: &str| errors.iter().find(|error| is_named(&error.text(), recipient));
    let recipients = outgoing.recipients().iter().map(|recipient| recipient.as_str());
    recipients
        .filter_map(|recipient| Some(Refusal::new(recipient, Class::Permanent, named(recipient)?.text())))
        .collect()
}

/// The codes: <https://support.sparkpost.com/docs/tech-resources/extended-error-codes>; those of 409: the API's manual.
fn refusal(answer: &Answer) -> HttpError {
    use HttpErrorKind::{Account, Busy, Message, NoAnswer, Quota, Rate, Recipient, Unavailable};
    let Ok(Errors { errors }) = answer.json() else {
        return answer.refusal();
    };
    let code = errors.first().map(Said::code).unwrap_or_default();
    let said = errors.iter().map(Said::text).collect::<Vec<_>>().join("; ");
    let kind = match (answer.status(), code.as_str()) {
        (400, "1502") => Unavailable,
        (400, "1910") => Account,
        (400, code) if code.len() == 4 && code.starts_with('7') => Account,
        (400, "5002") => Recipient,
        (400, "1902") if said.contains("suppressed") => Recipient,
        // Whatever the code: a request of this delivery was there before, and what became of it, this answer does not say.
        (409, _) => NoAnswer,
        (400 | 413 | 422, _) => Message,
        (401 | 403..=405, _) => Account,
        (420, _) => Quota,
        (429, _) => Rate,
        (500, _) => Busy,
        _ => return answer.refusal(),
    };
    let error = answer.error(kind, said);
    if code.is_empty() { error } else { error.with_code(code) }
}

#[derive(Deserialize)]
struct Done {
    results: Results,
}

#[derive(Deserialize)]
struct Results {
    id: String,
    total_accepted_recipients: usize,
    total_rejected_recipients: usize,
    #[serde(default)]
    rcpt_to_errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    message: String,
    description: Option<String>,
    #[serde(default)]
    code: Value,
}

impl Said {
    fn text(&self) -> String {
        match &self.description {
            Some(description) => format!("{}: {description}", self.message),
            None => self.message.clone(),
        }
    }

    /// A string in the manual, and a number here and there.
    fn code(&self) -> String {
        match &self.code {
            Value::String(code) => code.clone(),
            Value::Number(code) => code.to_string(),
            _ => String::new(),
        }
    }
}

#[derive(Serialize)]
struct Transmission<'a> {
    options: Options,
    recipients: Vec<To<'a>>,
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
struct To<'a> {
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
