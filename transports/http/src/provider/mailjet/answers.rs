//! What Mailjet's answers mean.

use postrider_transport::{Email, Failure, Outgoing, Receipt};
use serde::Deserialize;
use serde::de::IgnoredAny;

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
        HttpErrorKind::Message => BatchOutcome::OneByOne,
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
    let Messages { messages } = match answer.json() {
        Ok(messages) => messages,
        Err(unreadable) if (200..300).contains(&answer.status()) => return Err(unreadable),
        Err(_) => return Err(global(answer)),
    };
    // Without this, one message's outcome could be taken for another's.
    let theirs = |(message, outgoing): (&Outcome, &&Outgoing<Email>)| {
        message.custom_id.as_deref().is_none_or(|id| id.is_empty() || id == outgoing.id().to_string())
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
    match answer.json::<Said>() {
        Ok(said) => refusal(answer, &[said]),
        Err(_) => match answer.json::<Inside>() {
            Ok(inside) if answer.status() == 500 => answer.error(HttpErrorKind::Busy, inside.message),
            _ => answer.refusal(),
        },
    }
}

fn refusal(answer: &Answer, errors: &[Said]) -> HttpError {
    use HttpErrorKind::{Account, Busy, Message, Rate, Recipient};
    if errors.is_empty() {
        return answer.error(Busy, "it refused and did not say why");
    }
    let kinds: Vec<_> = errors.iter().map(|said| said.kind(answer.status())).collect();
    // Of several reasons, the one that holds for other messages too, then the one that cannot be waited out.
    let kind = [Account, Rate, Message, Recipient].into_iter().find(|kind| kinds.contains(kind)).unwrap_or(Busy);
    let texts: Vec<_> = errors.iter().map(|said| said.message.as_str()).collect();
    let codes: Vec<_> = errors.iter().map(|said| said.code.as_str()).collect();
    answer.error(kind, texts.join("; ")).with_code(codes.join(", "))
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
    #[serde(rename = "CustomID")]
    custom_id: Option<String>,
    errors: Option<Vec<Said>>,
    to: Option<Vec<Sent>>,
}

impl Outcome {
    fn result(self, answer: &Answer) -> Result<Receipt, Failure> {
        match self.status.as_str() {
            "success" => {
                let mut receipt = Receipt::new();
                receipt.provider_id = self.to.unwrap_or_default().first().and_then(Sent::id);
                Ok(receipt)
            }
            "error" => Err(refusal(answer, &self.errors.unwrap_or_default()).into()),
            _ => Err(puzzling(answer).into()),
        }
    }
}

#[derive(Deserialize)]
struct Sent {
    #[serde(rename = "MessageID", default)]
    id: serde_json::Value,
}

impl Sent {
    /// In the sandbox there is none, which shows as 0.
    fn id(&self) -> Option<String> {
        let id = self.id.as_str().map_or_else(|| self.id.as_u64().map(|id| id.to_string()), |id| Some(id.to_owned()));
        id.filter(|id| !id.is_empty() && id != "0")
    }
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "ErrorCode")]
    code: String,
    #[serde(rename = "StatusCode")]
    status: Option<u16>,
    #[serde(rename = "ErrorMessage", default)]
    message: String,
    #[serde(rename = "ErrorRelatedTo")]
    related_to: Option<Vec<String>>,
}

/// What failed inside has an identifier for Mailjet's support, and no code.
#[derive(Deserialize)]
struct Inside {
    #[serde(rename = "ErrorIdentifier")]
    _identifier: IgnoredAny,
    #[serde(rename = "ErrorMessage")]
    message: String,
}

impl Said {
    fn kind(&self, status: u16) -> HttpErrorKind {
        match (self.code.as_str(), self.status.unwrap_or(status)) {
            ("mj-0001" | "mj-0015" | "send-0006" | "send-0007" | "send-0008", _) | (_, 401 | 403) => {
                HttpErrorKind::Account
            }
            ("mj-0013", 400) if self.is_of_recipients() => HttpErrorKind::Recipient,
            (_, 400 | 413) => HttpErrorKind::Message,
            (_, 429) => HttpErrorKind::Rate,
            _ => HttpErrorKind::Busy,
        }
    }

    /// `To[0].Email`, say.
    fn is_of_recipients(&self) -> bool {
        let fields = self.related_to.as_deref().unwrap_or_default();
        let of_recipients = |field: &String| ["To", "Cc", "Bcc"].iter().any(|name| field.starts_with(name));
        !fields.is_empty() && fields.iter().all(of_recipients)
    }
}
