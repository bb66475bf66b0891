//! The replies to `RCPT TO`, and what they mean for each recipient and for the message.

use postrider_transport::{Class, Classify, Recipient, Refusal, Scope};
use tracing::debug;

use crate::error::SmtpError;
use crate::meaning::{self, Meaning};
use crate::prepared_message::PreparedMessage;
use crate::reply::Reply;
use crate::rules::{Rule, RuleInput};
use crate::send_error::SendError;
use crate::stage::Stage;

/// The replies in the order of the recipients.
///
/// Once the server takes no more recipients (RFC 5321 section 4.5.3.1.10), the remaining ones are not sent. The last reply counts
/// for them too.
#[derive(Default)]
pub(crate) struct RecipientReplies {
    replies: Vec<RecipientReply>,
    accepted: usize,
    too_many: bool,
    /// The last refusal. Servers repeat one reply for many recipients, and its meaning is looked up once.
    last_refusal: Option<(RuleInput, Meaning)>,
}

struct RecipientReply {
    reply: Reply,
    /// `None` if the server accepted the recipient.
    refusal: Option<Meaning>,
}

impl RecipientReplies {
    pub(crate) fn push(&mut self, user_rules: &[Rule], reply: Reply) {
        let refusal = (!reply.is_positive()).then(|| self.meaning(user_rules, &reply));
        self.accepted += usize::from(refusal.is_none());
        self.too_many = self.accepted > 0 && refusal.is_some_and(|meaning| meaning.too_many_recipients);
        self.replies.push(RecipientReply { reply, refusal });
    }

    fn meaning(&mut self, user_rules: &[Rule], reply: &Reply) -> Meaning {
        let input = RuleInput::new(reply);
        match &self.last_refusal {
            Some((last, meaning)) if *last == input => *meaning,
            _ => {
                let meaning = meaning::refusal(user_rules, Stage::Recipient, input.clone());
                self.last_refusal = Some((input, meaning));
                meaning
            }
        }
    }

    /// How many recipients the server accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted
    }

    /// Whether the server accepted some recipients and takes no more.
    pub(crate) fn too_many(&self) -> bool {
        self.too_many
    }

    pub(crate) fn codes(&self) -> impl Iterator<Item = u16> {
        self.replies.iter().map(|one| one.reply.code())
    }

    /// Returns the recipients that the server refused, each with its reply and class.
    pub(crate) fn refusals(&self, message: &PreparedMessage) -> Vec<Refusal> {
        let not_sent = self.replies.last().filter(|_| self.too_many).into_iter().cycle();
        let pairs = message.recipients.iter().zip(self.replies.iter().chain(not_sent));
        let refusals: Vec<Refusal> = pairs
            .filter_map(|(to, RecipientReply { reply, refusal: meaning })| {
                let meaning = meaning.as_ref()?;
                // The reply blames the transport or the sender, but other recipients may be accepted. This one is retried alone,
                // and fails for all if the reply is right.
                let class = if meaning.scope == Scope::Message { meaning.class } else { Class::Transient };
                Some(refusal(&to.recipient, class, meaning.sure, &reply.verbatim()))
            })
            .collect();
        if !refusals.is_empty() {
            debug!(count = refusals.len(), too_many = self.too_many, "recipients were refused");
        }
        refusals
    }

    fn accepted_recipients<'a>(&'a self, message: &'a PreparedMessage) -> impl Iterator<Item = &'a Recipient> {
        let pairs = message.recipients.iter().zip(&self.replies);
        pairs.filter(|(_, one)| one.refusal.is_none()).map(|(to, _)| &to.recipient)
    }

    /// Combines the refusals into one failure of the message. If all have the same scope, it is theirs. If not, it is the
    /// message's, and each recipient keeps its own class. `None` if there is no refusal.
    pub(crate) fn combined(self) -> Option<(Meaning, Reply)> {
        let mut refusals = self.replies.into_iter().filter_map(|one| Some((one.refusal?, one.reply)));
        let (mut meaning, mut reply) = refusals.next()?;
        let others: Vec<_> = refusals.collect();
        let mixed = others.iter().any(|(other, _)| other.scope != meaning.scope);
        // A reply that blames the sender or the transport, but not for all recipients, is retried.
        let class =
            |meaning: &Meaning| if mixed && meaning.scope != Scope::Message { Class::Transient } else { meaning.class };
        meaning.class = class(&meaning);
        for (mut other, other_reply) in others {
            other.class = class(&other);
            // The failure is transient if one refusal is, and has the reply of a refusal of its class. It is as sure as the
            // least sure refusal.
            if (other.class, meaning.class) == (Class::Transient, Class::Permanent) {
                (meaning.class, reply) = (Class::Transient, other_reply);
            }
            meaning.sure &= other.sure;
            meaning.retry_after = meaning.retry_after.max(other.retry_after);
        }
        if mixed {
            meaning.scope = Scope::Message;
        }
        Some((meaning, reply))
    }
}

/// Returns the error after the server refused the message with one reply for all accepted recipients. If other recipients were
/// refused before, each recipient is named, since their classes may differ.
pub(crate) fn message_refused(error: SmtpError, message: &PreparedMessage, replies: &RecipientReplies) -> SendError {
    let mut refused = replies.refusals(message);
    if error.scope() != Scope::Message || refused.is_empty() {
        return SendError::from(error).with_refused(refused);
    }
    let reply = error.reply().unwrap_or_default().into_owned();
    let accepted = replies.accepted_recipients(message);
    refused.extend(accepted.map(|recipient| refusal(recipient, error.class(), error.sure(), &reply)));
    let transient = refused.iter().any(|refusal| refusal.class == Class::Transient);
    let class = if transient { Class::Transient } else { Class::Permanent };
    let sure = refused.iter().all(|refusal| refusal.sure);
    SendError::from(error.with_class(class, sure)).with_refused(refused)
}

fn refusal(recipient: &Recipient, class: Class, sure: bool, reply: &str) -> Refusal {
    let refusal = Refusal::new(recipient.as_str(), class, reply);
    if sure { refusal } else { refusal.unsure() }
}
