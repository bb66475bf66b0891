//! Parsing of Mailjet's responses.

use postrider_transport::{Email, Failure, Outgoing, Receipt};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::json::{lenient_list, lenient_string, receipt_with_id};
use super::super::rules::{self, ApiError, Rule, on_code, on_status};
use crate::{BatchOutcome, HttpError, HttpErrorKind, Response};

pub(super) fn parse_response(outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
    let mut results = parse_outcomes(response, &[outgoing])?;
    let result = results.pop().unwrap_or_else(|| Err(mismatch_error(response).into()));
    result.map(|receipt| receipt.with_reply(response.text()))
}

pub(super) fn parse_batch_response(batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
    let error = match parse_outcomes(response, batch) {
        Ok(results) => return BatchOutcome::Results(results),
        Err(error) => error,
    };
    match error.kind() {
        // Mailjet reports an error of the whole request before it processes any message.
        HttpErrorKind::Message | HttpErrorKind::Recipient | HttpErrorKind::Sender => BatchOutcome::SendEach,
        // An incomplete refusal may be a partial success. An internal error may come after the first messages were accepted.
        _ if response.incomplete.is_some() || error.kind() == HttpErrorKind::ServerError => {
            let text = "the response does not say which messages were accepted";
            BatchOutcome::same_error(batch.len(), &response.error(HttpErrorKind::NoResponse, text))
        }
        _ => BatchOutcome::same_error(batch.len(), &error),
    }
}

/// Parses the outcome of each message, in their order. An error concerns all messages.
fn parse_outcomes(response: &Response, batch: &[&Outgoing<Email>]) -> Result<Vec<Result<Receipt, Failure>>, HttpError> {
    let Messages { messages } = match response.json_object() {
        Ok(messages) => messages,
        Err(unreadable) if (200..300).contains(&response.status()) => return Err(unreadable),
        Err(_) => return Err(parse_request_error(response)),
    };
    // The ids must match, so that no message gets the outcome of another.
    let is_matching = |(message, outgoing): (&Outcome, &&Outgoing<Email>)| {
        message.custom_id.is_empty() || message.custom_id == outgoing.id().to_string()
    };
    if messages.len() != batch.len() || !messages.iter().zip(batch).all(is_matching) {
        return Err(mismatch_error(response));
    }
    Ok(messages.into_iter().map(|message| message.result(response)).collect())
}

fn mismatch_error(response: &Response) -> HttpError {
    response.error(HttpErrorKind::NoResponse, "the response has results for other messages than the request")
}

/// Parses an error of the whole request.
fn parse_request_error(response: &Response) -> HttpError {
    match response.json_object::<ErrorBody>() {
        Ok(body) => parse_error(response, &[body]),
        Err(_) => match response.json_object::<InternalError>() {
            Ok(error) if response.status() == 500 => response.error(HttpErrorKind::ServerError, error.message),
            _ => response.status_error(),
        },
    }
}

const GUIDE: &str = "https://dev.mailjet.com/email/guides/send-api-v31/";
const STATUSES: &str = "https://dev.mailjet.com/docs/email-api/email_api_overview/status_codes";
const SENDER: &str = "https://gist.github.com/arnaudbreton/f09ac2dcb1316790a5336756556e5f72";

pub(super) const RULES: &[Rule] = &[
    on_code(&["mj-0001", "mj-0015"], HttpErrorKind::Account, GUIDE),
    // These are about a SenderID, which belongs to the account.
    on_code(&["send-0006", "send-0007"], HttpErrorKind::Account, GUIDE),
    on_code(&["send-0008"], HttpErrorKind::Sender, SENDER),
    on_code(&["mj-0013"], HttpErrorKind::Recipient, GUIDE).with_field("To"),
    on_code(&["mj-0013"], HttpErrorKind::Recipient, GUIDE).with_field("Cc"),
    on_code(&["mj-0013"], HttpErrorKind::Recipient, GUIDE).with_field("Bcc"),
    on_code(&["mj-0013"], HttpErrorKind::Sender, GUIDE).with_field("From"),
    on_code(&["mj-0002", "mj-0003", "mj-0004", "mj-0006", "mj-0011", "mj-0013"], HttpErrorKind::Message, GUIDE),
    on_code(&["send-0003", "send-0011", "send-0015"], HttpErrorKind::Message, GUIDE),
    on_status(&[401], HttpErrorKind::Account, STATUSES),
    on_status(&[429], HttpErrorKind::RateLimit, STATUSES),
    on_status(&[500], HttpErrorKind::ServerError, STATUSES),
];

fn parse_error(response: &Response, errors: &[ErrorBody]) -> HttpError {
    if errors.is_empty() {
        return response.error(HttpErrorKind::ServerError, "refused without a reason").unsure();
    }
    rules::classify(RULES, response, &errors.iter().map(ErrorBody::to_api_error).collect::<Vec<_>>())
}

#[derive(Deserialize)]
struct Messages {
    #[serde(rename = "Messages")]
    messages: Vec<Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    status: String,
    #[serde(rename = "CustomID", default, deserialize_with = "lenient_string")]
    custom_id: String,
    #[serde(default, deserialize_with = "lenient_list")]
    errors: Vec<ErrorBody>,
    #[serde(default, deserialize_with = "lenient_list")]
    to: Vec<SentTo>,
}

impl Outcome {
    fn result(self, response: &Response) -> Result<Receipt, Failure> {
        match self.status.as_str() {
            "success" => {
                // In the sandbox the id is 0.
                let id = self.to.first().map(|sent| sent.id.as_str()).filter(|id| *id != "0");
                Ok(receipt_with_id(id.unwrap_or_default()))
            }
            "error" => Err(parse_error(response, &self.errors).into()),
            _ => Err(mismatch_error(response).into()),
        }
    }
}

#[derive(Deserialize)]
struct SentTo {
    #[serde(rename = "MessageID", default, deserialize_with = "lenient_string")]
    id: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "ErrorCode")]
    code: String,
    #[serde(rename = "StatusCode", default, deserialize_with = "lenient_string")]
    status: String,
    #[serde(rename = "ErrorMessage", default, deserialize_with = "lenient_string")]
    message: String,
    /// Names of the invalid fields, such as `To[0].Email`.
    #[serde(rename = "ErrorRelatedTo", default, deserialize_with = "lenient_list")]
    related_to: Vec<String>,
}

/// An internal error of Mailjet. It has an identifier for the support, and no code.
#[derive(Deserialize)]
struct InternalError {
    #[serde(rename = "ErrorIdentifier")]
    _identifier: IgnoredAny,
    #[serde(rename = "ErrorMessage")]
    message: String,
}

impl ErrorBody {
    /// Converts the error. Each has its own status. Of several fields, the first that is not about recipients decides.
    fn to_api_error(&self) -> ApiError<'_> {
        let is_recipient_field = |field: &&String| ["To", "Cc", "Bcc"].iter().any(|name| field.starts_with(name));
        let field = self.related_to.iter().find(|field| !is_recipient_field(field)).or(self.related_to.first());
        let field = field.map_or("", String::as_str);
        ApiError { status: self.status.parse().ok(), code: &self.code, field, text: &self.message }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_rule_has_a_source_and_is_reachable() {
        super::super::super::rules::assert_rules_are_valid(super::RULES);
    }
}
