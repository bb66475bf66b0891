//! What Mailjet's answers mean.

use postrider_transport::{Email, Failure, Outgoing, Receipt};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::json::{list, receipt as receipt_of, text};
use super::super::rules::{self, Rule, Said, codes, status};
use crate::{Answer, BatchOutcome, HttpError, HttpErrorKind};

pub(super) fn receipt(outgoing: &Outgoing<Email>, answer: &Answer) -> Result<Receipt, Failure> {
    let mut results = outcomes(answer, &[outgoing])?;
    // One message was asked for, so that there is one outcome.
    let result = results.pop().unwrap_or_else(|| Err(puzzling(answer).into()));
    result.map(|receipt| receipt.with_reply(answer.text()))
}

pub(super) fn batch_receipts(batch: &[&Outgoing<Email>], answer: &Answer) -> BatchOutcome {
    let error = match outcomes(answer, batch) {
        Ok(results) => return BatchOutcome::Each(results),
        Err(error) => error,
    };
    match error.kind() {
        // An error of the request as a whole comes before the first message is looked at.
        HttpErrorKind::Message | HttpErrorKind::Recipient | HttpErrorKind::Sender => BatchOutcome::OneByOne,
        // Any refusal may stand for a partial success, and what failed inside may have done so after the first messages.
        _ if answer.cut.is_some() || error.kind() == HttpErrorKind::Busy => {
            let text = "it is not known which messages were accepted";
            BatchOutcome::all(batch.len(), &answer.error(HttpErrorKind::NoAnswer, text))
        }
        _ => BatchOutcome::all(batch.len(), &error),
    }
}

/// The outcome of each message, in their order; or what is wrong with all of them.
fn outcomes(answer: &Answer, batch: &[&Outgoing<Email>]) -> Result<Vec<Result<Receipt, Failure>>, HttpError> {
    let Messages { messages } = match answer.object() {
        Ok(messages) => messages,
        Err(unreadable) if (200..300).contains(&answer.status()) => return Err(unreadable),
        Err(_) => return Err(global(answer)),
    };
    // Without this, one message's outcome could be taken for another's.
    let theirs = |(message, outgoing): (&Outcome, &&Outgoing<Email>)| {
        message.custom_id.is_empty() || message.custom_id == outgoing.id().to_string()
    };
    if messages.len() != batch.len() || !messages.iter().zip(batch).all(theirs) {
        return Err(puzzling(answer));
    }
    Ok(messages.into_iter().map(|message| message.result(answer)).collect())
}

fn puzzling(answer: &Answer) -> HttpError {
    answer.error(HttpErrorKind::NoAnswer, "it answered for other messages than it was asked for")
}

/// An error that is not of one message.
fn global(answer: &Answer) -> HttpError {
    match answer.object::<Reason>() {
        Ok(reason) => refusal(answer, &[reason]),
        Err(_) => match answer.object::<Inside>() {
            Ok(inside) if answer.status() == 500 => answer.error(HttpErrorKind::Busy, inside.message),
            _ => answer.refusal(),
        },
    }
}

const GUIDE: &str = "https://dev.mailjet.com/email/guides/send-api-v31/";
const STATUSES: &str = "https://dev.mailjet.com/docs/email-api/email_api_overview/status_codes";
const SENDER: &str = "https://gist.github.com/arnaudbreton/f09ac2dcb1316790a5336756556e5f72";

pub(super) const RULES: &[Rule] = &[
    codes(&["mj-0001", "mj-0015"], HttpErrorKind::Account, GUIDE),
    // About a SenderID, which is an account's.
    codes(&["send-0006", "send-0007"], HttpErrorKind::Account, GUIDE),
    codes(&["send-0008"], HttpErrorKind::Sender, SENDER),
    codes(&["mj-0013"], HttpErrorKind::Recipient, GUIDE).about("To"),
    codes(&["mj-0013"], HttpErrorKind::Recipient, GUIDE).about("Cc"),
    codes(&["mj-0013"], HttpErrorKind::Recipient, GUIDE).about("Bcc"),
    codes(&["mj-0013"], HttpErrorKind::Sender, GUIDE).about("From"),
    codes(&["mj-0002", "mj-0003", "mj-0004", "mj-0006", "mj-0011", "mj-0013"], HttpErrorKind::Message, GUIDE),
    codes(&["send-0003", "send-0011", "send-0015"], HttpErrorKind::Message, GUIDE),
    status(&[401], HttpErrorKind::Account, STATUSES),
    status(&[429], HttpErrorKind::Rate, STATUSES),
    status(&[500], HttpErrorKind::Busy, STATUSES),
];

fn refusal(answer: &Answer, errors: &[Reason]) -> HttpError {
    if errors.is_empty() {
        return answer.error(HttpErrorKind::Busy, "it refused and did not say why").unsure();
    }
    rules::read(RULES, answer, &errors.iter().map(Reason::said).collect::<Vec<_>>())
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
    #[serde(rename = "CustomID", default, deserialize_with = "text")]
    custom_id: String,
    #[serde(default, deserialize_with = "list")]
    errors: Vec<Reason>,
    #[serde(default, deserialize_with = "list")]
    to: Vec<Sent>,
}

impl Outcome {
    fn result(self, answer: &Answer) -> Result<Receipt, Failure> {
        match self.status.as_str() {
            "success" => {
                // In the sandbox there is none, which shows as 0.
                let id = self.to.first().map(|sent| sent.id.as_str()).filter(|id| *id != "0");
                Ok(receipt_of(id.unwrap_or_default()))
            }
            "error" => Err(refusal(answer, &self.errors).into()),
            _ => Err(puzzling(answer).into()),
        }
    }
}

#[derive(Deserialize)]
struct Sent {
    #[serde(rename = "MessageID", default, deserialize_with = "text")]
    id: String,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(rename = "ErrorCode")]
    code: String,
    #[serde(rename = "StatusCode", default, deserialize_with = "text")]
    status: String,
    #[serde(rename = "ErrorMessage", default, deserialize_with = "text")]
    message: String,
    /// `To[0].Email`, say.
    #[serde(rename = "ErrorRelatedTo", default, deserialize_with = "list")]
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

impl Reason {
    /// Each error has a status of its own, whatever that of the answer. Of several fields, one that is not about recipients goes before.
    fn said(&self) -> Said<'_> {
        let of_recipients = |field: &&String| ["To", "Cc", "Bcc"].iter().any(|name| field.starts_with(name));
        let field = self.related_to.iter().find(|field| !of_recipients(field)).or(self.related_to.first());
        let field = field.map_or("", String::as_str);
        Said { status: self.status.parse().ok(), code: &self.code, field, text: &self.message }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_line_of_the_table_counts() {
        super::super::super::rules::assert_sound(super::RULES);
    }
}
