//! What Mailjet's answers mean.

use postrider_transport::{Email, Failure, Outgoing, Receipt};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::json::{lenient_list, lenient_string, receipt_with_id};
use super::super::rules::{self, ApiError, Rule, on_code, on_status};
use crate::{BatchOutcome, HttpError, HttpErrorKind, Response};

pub(super) fn parse_response(outgoing: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
    let mut results = outcomes(response, &[outgoing])?;
    // One message was asked for, so that there is one outcome.
    let result = results.pop().unwrap_or_else(|| Err(puzzling(response).into()));
    result.map(|receipt| receipt.with_reply(response.text()))
}

pub(super) fn parse_batch_response(batch: &[&Outgoing<Email>], response: &Response) -> BatchOutcome {
    let error = match outcomes(response, batch) {
        Ok(results) => return BatchOutcome::Results(results),
        Err(error) => error,
    };
    match error.kind() {
        // An error of the request as a whole comes before the first message is looked at.
        HttpErrorKind::Message | HttpErrorKind::Recipient | HttpErrorKind::Sender => BatchOutcome::SendEach,
        // Any refusal may stand for a partial success, and what failed inside may have done so after the first messages.
        _ if response.incomplete.is_some() || error.kind() == HttpErrorKind::ServerError => {
            let text = "it is not known which messages were accepted";
            BatchOutcome::same_error(batch.len(), &response.error(HttpErrorKind::NoResponse, text))
        }
        _ => BatchOutcome::same_error(batch.len(), &error),
    }
}

/// The outcome of each message, in their order; or what is wrong with all of them.
fn outcomes(response: &Response, batch: &[&Outgoing<Email>]) -> Result<Vec<Result<Receipt, Failure>>, HttpError> {
    let Messages { messages } = match response.json_object() {
        Ok(messages) => messages,
        Err(unreadable) if (200..300).contains(&response.status()) => return Err(unreadable),
        Err(_) => return Err(global(response)),
    };
    // Without this, one message's outcome could be taken for another's.
    let theirs = |(message, outgoing): (&Outcome, &&Outgoing<Email>)| {
        message.custom_id.is_empty() || message.custom_id == outgoing.id().to_string()
    };
    if messages.len() != batch.len() || !messages.iter().zip(batch).all(theirs) {
        return Err(puzzling(response));
    }
    Ok(messages.into_iter().map(|message| message.result(response)).collect())
}

fn puzzling(response: &Response) -> HttpError {
    response.error(HttpErrorKind::NoResponse, "it answered for other messages than it was asked for")
}

/// An error that is not of one message.
fn global(response: &Response) -> HttpError {
    match response.json_object::<ErrorBody>() {
        Ok(reason) => parse_error(response, &[reason]),
        Err(_) => match response.json_object::<Inside>() {
            Ok(inside) if response.status() == 500 => response.error(HttpErrorKind::ServerError, inside.message),
            _ => response.status_error(),
        },
    }
}

const GUIDE: &str = "https://dev.mailjet.com/email/guides/send-api-v31/";
const STATUSES: &str = "https://dev.mailjet.com/docs/email-api/email_api_overview/status_codes";
const SENDER: &str = "https://gist.github.com/arnaudbreton/f09ac2dcb1316790a5336756556e5f72";

pub(super) const RULES: &[Rule] = &[
    on_code(&["mj-0001", "mj-0015"], HttpErrorKind::Account, GUIDE),
    // About a SenderID, which is an account's.
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
        return response.error(HttpErrorKind::ServerError, "it refused and did not say why").unsure();
    }
    rules::classify(RULES, response, &errors.iter().map(ErrorBody::said).collect::<Vec<_>>())
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
    to: Vec<Sent>,
}

impl Outcome {
    fn result(self, response: &Response) -> Result<Receipt, Failure> {
        match self.status.as_str() {
            "success" => {
                // In the sandbox there is none, which shows as 0.
                let id = self.to.first().map(|sent| sent.id.as_str()).filter(|id| *id != "0");
                Ok(receipt_with_id(id.unwrap_or_default()))
            }
            "error" => Err(parse_error(response, &self.errors).into()),
            _ => Err(puzzling(response).into()),
        }
    }
}

#[derive(Deserialize)]
struct Sent {
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
    /// `To[0].Email`, say.
    #[serde(rename = "ErrorRelatedTo", default, deserialize_with = "lenient_list")]
    related_to: Vec<String>,
}

/// What failed inside has an identifier for Mailjet's support, and no code.
#[derive(Deserialize)]
struct Inside {
    #[serde(rename = "ErrorIdentifier")]
    _identifier: IgnoredAny,
    #[serde(rename = "ErrorMessage")]
    message: String,
}

impl ErrorBody {
    /// Each error has a status of its own, whatever that of the answer. Of several fields, one that is not about recipients goes before.
    fn said(&self) -> ApiError<'_> {
        let of_recipients = |field: &&String| ["To", "Cc", "Bcc"].iter().any(|name| field.starts_with(name));
        let field = self.related_to.iter().find(|field| !of_recipients(field)).or(self.related_to.first());
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
