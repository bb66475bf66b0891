//! MailerSend: <https://developers.mailersend.com/api/v1/email.html>.

use http::HeaderName;
use http::header::AUTHORIZATION;
use postrider_transport::{
    Attachment, Class, Email, Failure, Mailbox, Outgoing, Receipt, Recipient, Refusal, Unsupported,
};
use serde::{Deserialize, Serialize};

use super::json::{JsonMailbox, base64, lenient_list, lenient_string, receipt_with_id};
use super::recipients::check_ascii_addresses;
use super::rules::{self, ApiError, Rule, on_code, on_status};
use crate::config::read_env;
use crate::fields::custom_headers;
use crate::{Fields, HttpConfigError, HttpError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret};

/// MailerSend's API v1.
///
/// The API does not support metadata. MailerSend sets the Message-ID, and derives an attachment's type from its file extension instead of
/// [`content_type`](Attachment::content_type). `{{` begins a template variable, so a mail with `{{` in its subject or bodies is
/// unsupported. Custom headers and List-Unsubscribe require one of the larger plans. The bulk call responds before it checks the messages,
/// so it is not used.
///
/// | Response | Means |
/// |---|---|
/// | 202 in the provider's format | accepted; the id is in `X-Message-Id`. Recipients in a warning `SOME_SUPPRESSED` are permanently refused |
/// | 202 with `X-Message-Id` and an unreadable warning | accepted; the reply says that suppressed recipients are unknown |
/// | 202 with a warning `ALL_SUPPRESSED` | [`Recipient`](HttpErrorKind::Recipient) |
/// | 422 with `#MS42204`, `#MS42222` | [`Quota`](HttpErrorKind::Quota) |
/// | 422 with `#MS42207`, or `#MS42208` for `from` | [`Sender`](HttpErrorKind::Sender): the domain is not verified |
/// | 422 with `#MS42216`, `#MS42225`, `#MS42226` | [`Account`](HttpErrorKind::Account): the plan, the trial |
/// | 422 with `#MS42208` for recipients | [`Recipient`](HttpErrorKind::Recipient) |
/// | 422 with `#MS42205`, `#MS42208` to `#MS42211` | [`Message`](HttpErrorKind::Message) |
/// | 401, 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | 429 with `#MS42901`, or with no requests left for the day | [`Quota`](HttpErrorKind::Quota), until midnight in UTC |
/// | any other 429 | [`RateLimit`](HttpErrorKind::RateLimit), until `Retry-After` |
/// | 500 in the provider's format | [`ServerError`](HttpErrorKind::ServerError) |
/// | 421 | [`Unavailable`](HttpErrorKind::Unavailable): maintenance |
#[derive(Debug, Clone)]
pub struct MailerSend {
    key: Secret,
}

impl MailerSend {
    /// Creates the provider with an API token that may send mail.
    ///
    /// # Errors
    /// If the token is empty or contains invalid characters.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())? })
    }

    /// Reads the token from the environment variable `MAILERSEND_API_KEY`.
    ///
    /// # Errors
    /// If it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("MAILERSEND_API_KEY")?)
    }
}

/// Maximum number of `to` recipients.
const MAX_TO: usize = 50;

/// Maximum number of `cc` recipients, and of `bcc` recipients.
const MAX_COPIES: usize = 10;

/// Maximum number of tags.
const MAX_TAGS: usize = 5;

/// Maximum length of a subject, in characters.
const MAX_SUBJECT: usize = 998;

/// Maximum size of each body, in octets.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// Maximum size of an attachment, in octets.
const MAX_ATTACHMENT: usize = 25 * 1024 * 1024;

impl Provider for MailerSend {
    const NAME: &'static str = "mailersend";

    fn from_url(url: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        Self::new(url.key()?)
    }

    fn base_url(&self) -> &str {
        "https://api.mailersend.com"
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (AUTHORIZATION, &self.key)
    }

    fn check(&self, email: &Email) -> Result<(), Unsupported> {
        Fields::check(email)?;
        Fields::check_to(email)?;
        Fields::check_one_reply_to(email)?;
        check_ascii_addresses(email)?;
        check_recipients(email)?;
        if !email.metadata().is_empty() {
            return Err(Unsupported::new("metadata"));
        }
        if email.tags().len() > MAX_TAGS {
            return Err(Unsupported::new("more than 5 tags"));
        }
        if email.subject().is_empty() {
            return Err(Unsupported::new("a mail without a subject"));
        }
        if email.subject().chars().count() > MAX_SUBJECT {
            return Err(Unsupported::new("a subject of more than 998 characters"));
        }
        let bodies = [email.text(), email.html()];
        if bodies.iter().flatten().any(|body| body.len() > MAX_BODY) {
            return Err(Unsupported::new("a body of more than 2 MB"));
        }
        if bodies.iter().flatten().chain([&email.subject()]).any(|text| text.contains("{{")) {
            return Err(Unsupported::new("{{ in a subject or body, which begins a template variable"));
        }
        for file in email.attachments() {
            if file.content().len() > MAX_ATTACHMENT {
                return Err(Unsupported::new("an attachment of more than 25 MB"));
            }
            if file.file_name().rsplit_once('.').is_none_or(|(_, extension)| extension.is_empty()) {
                return Err(Unsupported::new("an attachment without a file extension"));
            }
        }
        if email.list_unsubscribe().is_some_and(|list| !list.is_one_click() || list.uris().len() > 1) {
            return Err(Unsupported::new("a List-Unsubscribe other than one-click with one URI"));
        }
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        match email.headers().iter().find(|header| !plain(header.name())) {
            Some(header) => Err(Unsupported::new(format!("the header {}", header.name()))),
            None => Ok(()),
        }
    }

    fn build_request(&self, outgoing: &Outgoing<Email>) -> Result<Request, Failure> {
        let email = outgoing.message();
        let fields = Fields::with_to(outgoing)?;
        let to_json = |mailboxes: Vec<_>| mailboxes.into_iter().map(JsonMailbox::from).collect();
        let mail = Mail {
            from: JsonMailbox::from(email.from()),
            to: to_json(fields.to),
            cc: to_json(fields.cc),
            bcc: to_json(fields.bcc),
            reply_to: fields.reply_to.first().copied().map(JsonMailbox::from),
            subject: email.subject(),
            text: email.text(),
            html: email.html(),
            attachments: email.attachments().iter().map(File::from).collect(),
            tags: email.tags(),
            headers: custom_headers(email).map(|(name, value)| Header { name, value }).collect(),
            // This field replaces the two headers.
            list_unsubscribe: email.list_unsubscribe().map(|list| list.header_value()),
        };
        Request::json("/v1/email", &mail)
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() != 202 {
            return Err(parse_error(response).into());
        }
        // Without warnings the body is empty.
        let warned = response.json_object::<Warnings>();
        if let Ok(warned) = &warned
            && warned.warnings.iter().any(|warning| warning.kind == "ALL_SUPPRESSED")
        {
            let error = response.error(HttpErrorKind::Recipient, "every recipient is on a suppression list");
            return Err(Failure::from(error.with_code("ALL_SUPPRESSED")).with_refused(warned.refused(outgoing)));
        }
        let id = response.header("x-message-id").unwrap_or_default();
        let receipt = receipt_with_id(id);
        Ok(match warned {
            Ok(warned) => receipt.with_refused(warned.refused(outgoing)).with_reply(response.text()),
            Err(_) if response.is_empty() => receipt,
            // Without an id, an unknown body may come from a proxy.
            Err(unreadable) if id.is_empty() => return Err(unreadable.into()),
            // With an id, the mail was accepted. Suppressed recipients get no mail from a retry either.
            Err(_) => receipt.with_reply(format!("accepted; suppressed recipients are unknown: {}", response.text())),
        })
    }
}

fn check_recipients(email: &Email) -> Result<(), Unsupported> {
    if email.to().len() > MAX_TO {
        return Err(Unsupported::new("more than 50 To recipients"));
    }
    if email.cc().len().max(email.bcc().len()) > MAX_COPIES {
        return Err(Unsupported::new("more than 10 Cc or 10 Bcc recipients"));
    }
    let all = email.to().iter().chain(email.cc()).chain(email.bcc());
    if all.filter_map(Mailbox::name).any(|name| name.contains([';', ','])) {
        return Err(Unsupported::new("a comma or semicolon in a recipient's name"));
    }
    Ok(())
}

fn parse_error(response: &Response) -> HttpError {
    if response.status() == 421 {
        return response.error(HttpErrorKind::Unavailable, "the service is under maintenance");
    }
    let Ok(body) = response.json_object::<ErrorBody>() else {
        return response.status_error();
    };
    let fields = body.errors();
    let errors: Vec<_> = fields
        .iter()
        .map(|&(field, text)| ApiError { status: None, code: find_code(text).unwrap_or_default(), field, text })
        .collect();
    let error = rules::classify(RULES, response, &errors);
    // The code or a header tells a daily limit from a rate limit. Other responses have this header too.
    let is_daily =
        errors.iter().any(|error| error.code == DAILY_QUOTA) || response.header("x-apiquota-remaining") == Some("0");
    if response.status() != 429 || !is_daily {
        return error;
    }
    let quota = response.error(HttpErrorKind::Quota, error.text().to_owned());
    let quota = quota.with_retry_after(Some(response.until_midnight()));
    match error.code() {
        Some(code) => quota.with_code(code),
        None => quota,
    }
}

const CODES: &str = "https://developers.mailersend.com/general.html#validation-errors";
const STATUSES: &str = "https://developers.mailersend.com/general.html";

/// Code of an exhausted daily quota of requests.
const DAILY_QUOTA: &str = "MS42901";

const RULES: &[Rule] = &[
    on_code(&["MS42204", "MS42222"], HttpErrorKind::Quota, CODES),
    on_code(&["MS42216", "MS42225", "MS42226"], HttpErrorKind::Account, CODES),
    on_code(&["MS42207"], HttpErrorKind::Sender, CODES),
    on_code(&["MS42208"], HttpErrorKind::Sender, CODES).with_field("from"),
    on_code(&["MS42208"], HttpErrorKind::Recipient, CODES).with_field("to."),
    on_code(&["MS42208"], HttpErrorKind::Recipient, CODES).with_field("cc."),
    on_code(&["MS42208"], HttpErrorKind::Recipient, CODES).with_field("bcc."),
    on_code(&["MS42205", "MS42208", "MS42209", "MS42210", "MS42211"], HttpErrorKind::Message, CODES),
    on_status(&[401, 403, 404, 405], HttpErrorKind::Account, STATUSES),
    on_status(&[429], HttpErrorKind::RateLimit, STATUSES),
    on_status(&[500], HttpErrorKind::ServerError, STATUSES),
];

/// Finds the code in a text: `MS42207` in `… must be verified in your account to send emails. #MS42207`.
fn find_code(text: &str) -> Option<&str> {
    let code = &text[text.rfind("#MS")? + 1..];
    let end = code.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(code.len());
    Some(&code[..end])
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default, deserialize_with = "lenient_string")]
    message: String,
    #[serde(default)]
    errors: serde_json::Value,
}

impl ErrorBody {
    /// The errors as pairs of field and text. Without any, the message with an empty field.
    fn errors(&self) -> Vec<(&str, &str)> {
        let fields = self.errors.as_object().into_iter().flatten();
        let mut errors: Vec<_> = fields
            .flat_map(|(field, texts)| texts.as_array().into_iter().flatten().map(move |text| (field.as_str(), text)))
            .filter_map(|(field, text)| Some((field, text.as_str()?)))
            .collect();
        if errors.is_empty() {
            errors.push(("", &self.message));
        }
        errors
    }
}

#[derive(Deserialize)]
struct Warnings {
    #[serde(default, deserialize_with = "lenient_list")]
    warnings: Vec<Warning>,
}

#[derive(Deserialize)]
struct Warning {
    #[serde(rename = "type", default, deserialize_with = "lenient_string")]
    kind: String,
    #[serde(default, deserialize_with = "lenient_list")]
    recipients: Vec<Suppressed>,
}

#[derive(Deserialize)]
struct Suppressed {
    email: String,
    #[serde(default, deserialize_with = "lenient_list")]
    reasons: Vec<String>,
}

impl Warnings {
    fn refused(&self, outgoing: &Outgoing<Email>) -> Vec<Refusal> {
        let suppressed = self.warnings.iter().filter(|warning| warning.kind.ends_with("_SUPPRESSED"));
        let refusal = |one: &Suppressed| {
            let known = |recipient: &&Recipient| recipient.as_str().eq_ignore_ascii_case(&one.email);
            let recipient = outgoing.recipients().iter().find(known)?;
            let reply = format!("suppressed: {}", one.reasons.join(", "));
            Some(Refusal::new(recipient.as_str(), Class::Permanent, reply))
        };
        suppressed.flat_map(|warning| &warning.recipients).filter_map(refusal).collect()
    }
}

#[derive(Serialize)]
struct Mail<'a> {
    from: JsonMailbox<'a>,
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
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list_unsubscribe: Option<String>,
}

#[derive(Serialize)]
struct File<'a> {
    content: String,
    filename: &'a str,
    disposition: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl<'a> From<&'a Attachment> for File<'a> {
    fn from(file: &'a Attachment) -> Self {
        Self {
            content: base64(file.content()),
            filename: file.file_name(),
            disposition: if file.content_id().is_some() { "inline" } else { "attachment" },
            id: file.content_id(),
        }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    name: &'a str,
    value: String,
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
