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

/// MailerSend, by its API v1.
///
/// It has no word for metadata, writes the Message-ID itself, and tells an attachment's type by the extension of its name, whatever
/// [`content_type`](Attachment::content_type) says. `{{` begins a variable of its own template language, so that a mail that has it in its
/// subject or its bodies is refused. Custom headers and List-Unsubscribe need one of its larger plans. Its bulk call answers before
/// it looks at the messages, and is not used.
///
/// | Response | Means |
/// |---|---|
/// | 202 in its own form | accepted, under the `X-Message-Id`, save for the recipients that a warning `SOME_SUPPRESSED` names: refused for good |
/// | 202 with `X-Message-Id` and a warning that cannot be read | accepted; the reply says that who is suppressed is not known |
/// | 202 with a warning `ALL_SUPPRESSED` | [`Recipient`](HttpErrorKind::Recipient) |
/// | 422 with `#MS42204`, `#MS42222` | [`Quota`](HttpErrorKind::Quota) |
/// | 422 with `#MS42207`, or `#MS42208` for `from` | [`Sender`](HttpErrorKind::Sender): the domain is not verified |
/// | 422 with `#MS42216`, `#MS42225`, `#MS42226` | [`Account`](HttpErrorKind::Account): the plan, the trial |
/// | 422 with `#MS42208` for recipients | [`Recipient`](HttpErrorKind::Recipient) |
/// | 422 with `#MS42205`, `#MS42208` to `#MS42211` | [`Message`](HttpErrorKind::Message) |
/// | 401, 403, 404, 405 | [`Account`](HttpErrorKind::Account) |
/// | 429 with `#MS42901`, or without requests left for the day | [`Quota`](HttpErrorKind::Quota), until midnight in UTC |
/// | any other 429 | [`RateLimit`](HttpErrorKind::RateLimit), until `Retry-After` |
/// | 500 in its own form | [`ServerError`](HttpErrorKind::ServerError) |
/// | 421 | [`Unavailable`](HttpErrorKind::Unavailable): maintenance |
#[derive(Debug, Clone)]
pub struct MailerSend {
    key: Secret,
}

impl MailerSend {
    /// With an API token that may send mail.
    ///
    /// # Errors
    /// When the token is empty or has characters that no token has.
    pub fn new(key: impl AsRef<str>) -> Result<Self, HttpConfigError> {
        Ok(Self { key: Secret::bearer(key.as_ref())? })
    }

    /// With the token in the environment variable `MAILERSEND_API_KEY`.
    ///
    /// # Errors
    /// When it is not set, and as [`new`](Self::new).
    pub fn from_env() -> Result<Self, HttpConfigError> {
        Self::new(read_env("MAILERSEND_API_KEY")?)
    }
}

/// As many recipients as the `to` field may have.
const MAX_TO: usize = 50;

/// As many as `cc` may have, and as many as `bcc` may have.
const MAX_COPIES: usize = 10;

/// As many tags as a message may have.
const MAX_TAGS: usize = 5;

/// How long a subject may be, in characters.
const MAX_SUBJECT: usize = 998;

/// How large each body may be, in octets.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// How large an attachment may be, in octets.
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
            return Err(Unsupported::new("the characters {{, which begin a variable of its own"));
        }
        for file in email.attachments() {
            if file.content().len() > MAX_ATTACHMENT {
                return Err(Unsupported::new("an attachment of more than 25 MB"));
            }
            if file.file_name().rsplit_once('.').is_none_or(|(_, extension)| extension.is_empty()) {
                return Err(Unsupported::new("an attachment whose name has no extension"));
            }
        }
        if email.list_unsubscribe().is_some_and(|list| !list.is_one_click() || list.uris().len() > 1) {
            return Err(Unsupported::new("a List-Unsubscribe other than by one click at one address"));
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
        let people = |mailboxes: Vec<_>| mailboxes.into_iter().map(JsonMailbox::from).collect();
        let mail = Mail {
            from: JsonMailbox::from(email.from()),
            to: people(fields.to),
            cc: people(fields.cc),
            bcc: people(fields.bcc),
            reply_to: fields.reply_to.first().copied().map(JsonMailbox::from),
            subject: email.subject(),
            text: email.text(),
            html: email.html(),
            attachments: email.attachments().iter().map(File::from).collect(),
            tags: email.tags(),
            headers: custom_headers(email).map(|(name, value)| Named { name, value }).collect(),
            // Its own field, in place of the two headers.
            list_unsubscribe: email.list_unsubscribe().map(|list| list.header_value()),
        };
        Request::json("/v1/email", &mail)
    }

    fn parse_response(&self, outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() != 202 {
            return Err(parse_error(response).into());
        }
        // With nothing to warn of there is no body.
        let warned = response.json_object::<Warned>();
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
            // Neither the id nor the body is MailerSend's.
            Err(unreadable) if id.is_empty() => return Err(unreadable.into()),
            // It has an id, so that to send it again would surely send it twice. Who is suppressed gets no mail either way.
            Err(_) => receipt.with_reply(format!("accepted; who is suppressed is not known: {}", response.text())),
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
        return response.error(HttpErrorKind::Unavailable, "it is being maintained");
    }
    let Ok(reason) = response.json_object::<ErrorBody>() else {
        return response.status_error();
    };
    let reasons = reason.reasons();
    let said: Vec<_> = reasons
        .iter()
        .map(|&(field, text)| ApiError { status: None, code: code(text).unwrap_or_default(), field, text })
        .collect();
    let error = rules::classify(RULES, response, &said);
    // Which limit it is, the code says, or a header that comes with other answers too.
    let of_the_day = said.iter().any(|one| one.code == DAILY) || response.header("x-apiquota-remaining") == Some("0");
    if response.status() != 429 || !of_the_day {
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

/// The requests of the day are used up.
const DAILY: &str = "MS42901";

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

/// `MS42207` in `… must be verified in your account to send emails. #MS42207`.
fn code(text: &str) -> Option<&str> {
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
    /// What is wrong, with the field that it is wrong with; the message itself only where there is nothing more exact.
    fn reasons(&self) -> Vec<(&str, &str)> {
        let fields = self.errors.as_object().into_iter().flatten();
        let mut reasons: Vec<_> = fields
            .flat_map(|(field, texts)| texts.as_array().into_iter().flatten().map(move |text| (field.as_str(), text)))
            .filter_map(|(field, text)| Some((field, text.as_str()?)))
            .collect();
        if reasons.is_empty() {
            reasons.push(("", &self.message));
        }
        reasons
    }
}

#[derive(Deserialize)]
struct Warned {
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

impl Warned {
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
    headers: Vec<Named<'a>>,
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
struct Named<'a> {
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
