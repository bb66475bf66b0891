//! Mailgun: <https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages/post-v3--domain-name--messages-mime>.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use postrider_transport::{Email, Failure, Outgoing, Receipt, Unsupported};
use serde::Deserialize;

use super::json::{lenient_string, receipt_with_id};
use super::mime::{self, content_size};
use super::rules::{self, ApiError, Rule, on_status, on_text};
use crate::config::read_env;
use crate::{Form, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// Mailgun's API v3.
///
/// The request has a whole MIME message and exactly the recipients of the attempt. The headers still name all recipients of the mail. Tags
/// are sent as tags and metadata as variables, which Mailgun's events return. Mailgun sets the envelope sender.
///
/// The settings of the domain apply to each message: Mailgun rewrites tracked links and replaces `%unsubscribe_url%` and similar variables.
///
/// | Response | Means |
/// |---|---|
/// | 200 | accepted; the body has the id |
/// | 400 about a `to` | [`Recipient`](HttpErrorKind::Recipient) |
/// | 400 about the `from`; 400, 403, 404 about a domain | [`Sender`](HttpErrorKind::Sender) |
/// | 400 about an account that may not send; 401, 402, other 403 and 404 | [`Account`](HttpErrorKind::Account) |
/// | 400 about a missing or invalid parameter; 413 | [`Message`](HttpErrorKind::Message) |
/// | 420; 400, 402, 403 with a time to try again | [`Quota`](HttpErrorKind::Quota) until that time |
/// | 429 | [`RateLimit`](HttpErrorKind::RateLimit) until the time in the text |
/// | 500 in the provider's format | [`ServerError`](HttpErrorKind::ServerError) |
#[derive(Debug, Clone)]
pub struct Mailgun {
    key: Secret,
    path: String,
    eu: bool,
    test_mode: bool,
}

impl Mailgun {
    /// Creates the provider with an API key of the domain or the account, and the domain as named in the account.
    ///
    /// # Errors
    /// If the key is empty or contains invalid characters, or if the domain is invalid.
    pub fn new(key: impl AsRef<str>, domain: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        let domain = domain.as_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
        if !domain.bytes().all(plain) || domain.split('.').any(str::is_empty) {
            return Err(HttpConfigError::Value { setting: "domain", expected: "a domain name".to_owned() });
        }
        let path = format!("/v3/{domain}/messages.mime");
        Ok(Self { key: Secret::basic("api", key.as_ref())?, path, eu: false, test_mode: false })
    }

    /// Reads the environment variables `MAILGUN_API_KEY` and `MAILGUN_DOMAIN`.
    ///
    /// # Errors
    /// If one is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("MAILGUN_API_KEY")?, read_env("MAILGUN_DOMAIN")?)
    }

    /// Uses the servers in the European Union, for domains of that region. In a URL: `region=eu`.
    #[must_use]
    pub fn eu(mut self) -> Self {
        self.eu = true;
        self
    }

    /// Makes Mailgun accept and bill messages without delivering them. In a URL: `testmode=true`.
    #[must_use]
    pub fn test_mode(mut self) -> Self {
        self.test_mode = true;
        self
    }
}

/// Maximum number of recipients of a request.
const MAX_RECIPIENTS: usize = 1000;

/// Maximum number of tags
/// (<https://documentation.mailgun.com/docs/mailgun/user-manual/tracking-messages/track-tagging>).
const MAX_TAGS: usize = 3;

/// Maximum size of all options and variables together, in octets.
const MAX_OPTIONS: usize = 16 * 1024;

/// Maximum size of a message, in octets.
const MAX_OCTETS: usize = 25 * 1024 * 1024;

/// Prefix of headers that are options for Mailgun, which removes them
/// (<https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/pass-sending-options>).
const OPTION_HEADER_PREFIX: &str = "x-mailgun-";

impl Provider for Mailgun {
    const NAME: &'static str = "mailgun";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        let domain = url.setting("domain").ok_or(HttpConfigError::Missing { what: "the setting domain" })?;
        let mut mailgun = Self::new(url.key()?, domain)?;
        mailgun.eu = url.choice("region", "us", "eu")?;
        mailgun.test_mode = url.flag("testmode")?;
        Ok(mailgun)
    }

    fn base_url(&self) -> &str {
        if self.eu { "https://api.eu.mailgun.net" } else { "https://api.mailgun.net" }
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        mime::check(email)?;
        if email.envelope_from().is_some() {
            return Err(Unsupported::new("an envelope sender"));
        }
        if email.recipient_addresses().len() > MAX_RECIPIENTS {
            return Err(Unsupported::new("more than 1000 recipients"));
        }
        if email.tags().len() > MAX_TAGS {
            return Err(Unsupported::new("more than 3 tags"));
        }
        if self.options(email).iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_OPTIONS {
            return Err(Unsupported::new("tags and metadata of more than 16 KiB"));
        }
        if content_size(email) > MAX_OCTETS {
            return Err(Unsupported::new("a message of more than 25 MiB"));
        }
        match email.headers().iter().find(|header| header.name().to_ascii_lowercase().starts_with(OPTION_HEADER_PREFIX))
        {
            Some(header) => Err(Unsupported::new(format!("the header {}", header.name()))),
            None => Ok(()),
        }
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let mut form = Form::new(outgoing.id());
        for recipient in outgoing.recipients() {
            form.add_field("to", recipient.as_str());
        }
        for (name, value) in self.options(outgoing.message()) {
            form.add_field(&name, value);
        }
        form.add_file("message", "message.mime", &mime::render(outgoing)?);
        form.into_request(&self.path)
    }

    fn parse_response(&self, _: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() == 200 {
            let SendResponse { id } = response.json_object()?;
            return Ok(receipt_with_id(&id));
        }
        Err(parse_error(response).into())
    }
}

impl Mailgun {
    /// The options and variables of a request, as form fields.
    fn options<'a>(&self, email: &'a Email) -> Vec<(String, &'a str)> {
        let tags = email.tags().iter().map(|tag| ("o:tag".to_owned(), tag.as_str()));
        let variables = email.metadata().iter().map(|(key, value)| (format!("v:{key}"), value.as_str()));
        let test_mode = self.test_mode.then(|| ("o:testmode".to_owned(), "yes"));
        tags.chain(variables).chain(test_mode).collect()
    }
}

const RESPONSES: &str = "https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses";
const DOMAIN: &str = "https://github.com/theoomoregbee/US-visa-appointment-notifier/issues/5";
const ACTIVATE: &str = "https://github.com/Monstarrrr/rebutify/issues/162";
const DISABLED: &str = "https://github.com/mailgun/mailgun-java/issues/50";
const TRIAL: &str = "https://github.com/mailgun/wordpress-plugin/issues/68";
const FROM: &str = "https://github.com/fastlane/fastlane/issues/8568";
const TO: &str = "https://github.com/mailgun/mailgun-js-boland/issues/199";

/// Mailgun's errors have no codes, and it also uses 400 for failures of the account. Only the text tells them apart.
const RULES: &[Rule] = &[
    on_text(&[400, 403], "activate your mailgun account", HttpErrorKind::Account, ACTIVATE),
    on_text(&[400, 403], "account disabled", HttpErrorKind::Account, DISABLED),
    on_text(&[400, 403], "is not allowed to send", HttpErrorKind::Sender, DOMAIN),
    on_text(&[404], "domain", HttpErrorKind::Sender, RESPONSES),
    on_text(&[400, 403], "for test purposes only", HttpErrorKind::Account, TRIAL),
    on_text(&[400], "'to' parameter is not a valid address", HttpErrorKind::Recipient, TO),
    on_text(&[400], "'from' parameter is not a valid address", HttpErrorKind::Sender, FROM),
    on_text(&[400], "parameter is not a valid", HttpErrorKind::Message, TO),
    on_text(&[400], "parameter is missing", HttpErrorKind::Message, TO),
    on_status(&[413], HttpErrorKind::Message, RESPONSES),
    on_status(&[401, 402, 403, 404], HttpErrorKind::Account, RESPONSES),
    on_status(&[420], HttpErrorKind::Quota, RESPONSES),
    on_status(&[429], HttpErrorKind::RateLimit, RESPONSES),
    on_status(&[500], HttpErrorKind::ServerError, RESPONSES),
];

fn parse_error(response: &Response) -> HttpError {
    let Ok(ErrorBody { message }) = response.json_object() else {
        return response.status_error();
    };
    let retry_after = find_retry_after(response, &message);
    // A refusal with a time to try again is a quota, despite its status.
    if retry_after.is_some() && matches!(response.status(), 400 | 402 | 403) {
        return response.error(HttpErrorKind::Quota, message).with_retry_after(retry_after);
    }
    let error = rules::classify(RULES, response, &[ApiError { text: &message, ..ApiError::default() }]);
    match error.kind() {
        HttpErrorKind::RateLimit | HttpErrorKind::Quota => error.with_retry_after(retry_after),
        _ => error,
    }
}

/// Finds the wait in `… try again after 120 seconds` or `… try again after Mon, 25 Aug 2025 07:00:31 UTC`.
fn find_retry_after(response: &Response, message: &str) -> Option<Duration> {
    const MARKER: &str = "try again after ";
    let start = message.to_ascii_lowercase().find(MARKER)? + MARKER.len();
    let when = message.get(start..)?.trim_end_matches(['.', ' ', '\n']);
    let digits = when.find(|c: char| !c.is_ascii_digit()).unwrap_or(when.len());
    match when.strip_suffix("UTC") {
        Some(date) => response.parse_retry_after(&format!("{date}GMT")),
        None => response.parse_retry_after(&when[..digits]),
    }
}

#[derive(Deserialize)]
struct SendResponse {
    #[serde(default, deserialize_with = "lenient_string")]
    id: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
