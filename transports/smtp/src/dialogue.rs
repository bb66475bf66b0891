//! One message over one connection: from MAIL FROM to the answer to its end.

use std::mem;

use lettre::transport::smtp::commands::{Data, Rset};
use postrider_transport::{Class, Classify, Failure, Receipt, Refusal, Scope};
use tracing::debug;

use crate::classify;
use crate::config::Timeouts;
use crate::error::{Fault, SmtpError, Stage};
use crate::job::Job;
use crate::reply::Reply;
use crate::session::Session;

/// How many commands go out before their answers are read. Answers that nobody reads fill the buffers on the way until both
/// sides wait for each other (RFC 2920 section 3.1); those to this many fit anywhere.
const GROUP: usize = 100;

/// The message was not accepted, or nobody knows.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) failure: Failure,
    /// The connection ended before the server answered anything about this message.
    pub(crate) unheard: bool,
}

impl Rejected {
    /// Names those who had been refused before. What they were told stands, whatever became of the others.
    fn beside(mut self, refused: Vec<Refusal>) -> Self {
        self.failure = self.failure.with_refused(refused);
        self
    }
}

impl<F: Into<Failure>> From<F> for Rejected {
    fn from(failure: F) -> Self {
        Self { failure: failure.into(), unheard: false }
    }
}

/// What the server said to everything before the message itself.
#[derive(Default)]
struct Answers {
    /// The refusal of MAIL FROM.
    mail: Option<Reply>,
    /// For each recipient, in their order.
    recipients: Vec<Reply>,
    data: Option<Reply>,
}

impl Session {
    /// Carries one message. [`clean`](Self::clean) says afterwards whether the connection can carry another; it is not while
    /// this runs, so that a call that is dropped half-way leaves nothing behind that could be used again.
    pub(crate) async fn carry(&mut self, job: &Job, timeouts: &Timeouts) -> Result<Receipt, Rejected> {
        let mail = job.mail_command(&self.offers)?;
        self.clean = false;
        self.messages += 1;
        let mut answers = Answers::default();
        let introduced = self.introduce(job, mail, timeouts, &mut answers).await;
        introduced.map_err(|rejected| rejected.beside(refusals(job, &answers.recipients)))?;
        let in_step = !answers.recipients.iter().any(|reply| classify::ends_connection(reply.code()));
        let result = self.conclude(job, answers, timeouts).await;
        self.clean &= in_step;
        result
    }

    /// What follows from the answers to the envelope.
    async fn conclude(&mut self, job: &Job, answers: Answers, timeouts: &Timeouts) -> Result<Receipt, Rejected> {
        if let Some(refusal) = answers.mail {
            let open = answers.data.is_some_and(|data| !data.is_negative());
            self.settle(refusal.code(), !open);
            return Err(SmtpError::new(Stage::Mail, Fault::Refused(refusal)).into());
        }
        if !answers.recipients.iter().any(Reply::is_positive) {
            self.put_away(answers.data.as_ref(), timeouts).await;
            return Err(nobody(job, answers.recipients));
        }
        let refused = refusals(job, &answers.recipients);
        match answers.data {
            Some(data) if data.code() == 354 => {}
            Some(data) if data.is_negative() => {
                self.needs_reset = true;
                self.settle(data.code(), true);
                let error = SmtpError::new(Stage::Data, Fault::Refused(data));
                return Err(everybody(job, error, refused, &answers.recipients));
            }
            other => {
                let fault = other.map_or(Fault::Closed, Fault::OutOfTurn);
                return Err(Rejected::from(SmtpError::new(Stage::Data, fault)).beside(refused));
            }
        }
        self.hand_over(job, refused, &answers.recipients, timeouts).await
    }

    /// Everything up to the reply to DATA: in one go where the server offers that (RFC 2920), else word by word.
    async fn introduce(
        &mut self,
        job: &Job,
        mail: String,
        timeouts: &Timeouts,
        answers: &mut Answers,
    ) -> Result<(), Rejected> {
        let mut commands = Vec::with_capacity(job.recipients.len() + 3);
        if mem::take(&mut self.needs_reset) {
            commands.push((Stage::Reset, Rset.to_string()));
        }
        commands.push((Stage::Mail, mail));
        commands.extend(job.recipients.iter().map(|(_, command)| (Stage::Recipient, command.clone())));
        commands.push((Stage::Data, Data.to_string()));

        let mut unheard = true;
        for group in commands.chunks(if self.offers.pipelining { GROUP } else { 1 }) {
            if matches!(group, [(Stage::Data, _)]) && !answers.recipients.iter().any(Reply::is_positive) {
                break;
            }
            let words: String = group.iter().map(|(_, command)| command.as_str()).collect();
            let stage = group.first().map_or(Stage::Mail, |(stage, _)| *stage);
            let written = self.wire.command(&words, timeouts.block).await;
            written.map_err(|fault| cut_off(stage, fault, unheard))?;
            for (stage, _) in group {
                let limit = match stage {
                    Stage::Reset => timeouts.hello,
                    Stage::Mail => timeouts.mail,
                    Stage::Recipient => timeouts.rcpt,
                    _ => timeouts.data,
                };
                let reply = self.wire.reply(limit).await.map_err(|fault| cut_off(*stage, fault, unheard))?;
                if reply.code() == 421 {
                    return Err(cut_off(*stage, Fault::Refused(reply), unheard));
                }
                if *stage == Stage::Reset {
                    // What became of an earlier message does not stand in the way of this one.
                    if !reply.is_positive() {
                        return Err(Rejected {
                            failure: SmtpError::new(*stage, Fault::OutOfTurn(reply)).into(),
                            unheard,
                        });
                    }
                    continue;
                }
                unheard = false;
                match stage {
                    Stage::Mail if reply.is_negative() => answers.mail = Some(reply),
                    Stage::Recipient if answers.mail.is_none() && (reply.is_positive() || reply.is_negative()) => {
                        answers.recipients.push(reply);
                    }
                    Stage::Data => answers.data = Some(reply),
                    _ if reply.is_positive() || answers.mail.is_some() => {}
                    _ => return Err(SmtpError::new(*stage, Fault::OutOfTurn(reply)).into()),
                }
            }
            if answers.mail.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Ends a transaction that no recipient is left in.
    async fn put_away(&mut self, data: Option<&Reply>, timeouts: &Timeouts) {
        match data {
            // The server wants a message for nobody. It gets an empty one (RFC 2920 section 3.1), whose fate is nobody's
            // concern; all that matters is to be in step again.
            Some(reply) if reply.code() == 354 => {
                let written = self.wire.command(".\r\n", timeouts.block).await;
                let answered = match written {
                    Ok(()) => self.wire.reply(timeouts.data).await,
                    Err(fault) => Err(fault),
                };
                if let Ok(reply) = answered {
                    self.settle(reply.code(), reply.is_positive() || reply.is_negative());
                }
            }
            Some(reply) => {
                self.needs_reset = true;
                self.settle(reply.code(), reply.is_negative());
            }
            None => {
                self.needs_reset = true;
                self.clean = self.wire.is_drained();
            }
        }
    }

    /// The message and the answer to it.
    async fn hand_over(
        &mut self,
        job: &Job,
        refused: Vec<Refusal>,
        recipients: &[Reply],
        timeouts: &Timeouts,
    ) -> Result<Receipt, Rejected> {
        if !self.wire.is_drained() {
            let fault = Fault::Malformed("more than one answer");
            return Err(Rejected::from(SmtpError::new(Stage::Data, fault)).beside(refused));
        }
        // The message and its end go out together: apart, they would be two segments and, with a busy network, two waits.
        let mut taken = 0;
        let written = self.wire.write(&job.body, timeouts.block, &mut taken).await;
        // Of the last three octets, a dot and a line end, none must have left for it to be certain that the server cannot have
        // taken the message for complete.
        let ended = taken > job.body.len().saturating_sub(3);
        let stage = if ended { Stage::Accept } else { Stage::Body };
        let answered = match written {
            Ok(()) => self.wire.reply(timeouts.accept).await,
            Err(fault) => Err(fault),
        };
        match answered {
            Ok(reply) if reply.is_positive() => {
                self.settle(reply.code(), true);
                let receipt = Receipt::new().with_reply(reply.verbatim()).with_refused(refused);
                Ok(match reply.queue_id() {
                    Some(id) => receipt.with_provider_id(id),
                    None => receipt,
                })
            }
            Ok(reply) if reply.is_negative() => {
                self.settle(reply.code(), true);
                let error = SmtpError::new(stage, Fault::Refused(reply));
                Err(everybody(job, error, refused, recipients))
            }
            Err(Fault::Refused(reply)) => {
                let error = SmtpError::new(stage, Fault::Refused(reply));
                Err(everybody(job, error, refused, recipients))
            }
            Ok(reply) => {
                Err(Rejected::from(SmtpError::with_end(stage, Fault::OutOfTurn(reply), ended)).beside(refused))
            }
            Err(fault) => Err(Rejected::from(SmtpError::with_end(stage, fault, ended)).beside(refused)),
        }
    }

    /// Notes whether the connection can go on after a reply that ended a dialogue.
    fn settle(&mut self, code: u16, in_step: bool) {
        self.clean = in_step && !classify::ends_connection(code) && self.wire.is_drained();
    }
}

/// The connection ended. Before the first answer about this message, that is about the connection alone.
fn cut_off(stage: Stage, fault: Fault, unheard: bool) -> Rejected {
    let ended = match &fault {
        Fault::Closed | Fault::Io(_) => true,
        Fault::Refused(reply) => reply.code() == 421,
        _ => false,
    };
    Rejected { failure: SmtpError::new(stage, fault).into(), unheard: unheard && ended }
}

/// The recipients that the server did not take.
fn refusals(job: &Job, replies: &[Reply]) -> Vec<Refusal> {
    let both = job.recipients.iter().zip(replies);
    both.filter(|(_, reply)| !reply.is_positive())
        .map(|((recipient, _), reply)| {
            let meaning = classify::of_reply(Stage::Recipient, reply);
            // A reply about the transport, for one recipient among others: that one tries again later, alone, and should the
            // transport be at fault, it will show then.
            let class = if meaning.scope == Scope::Transport { Class::Transient } else { meaning.class };
            debug!(code = reply.code(), "a recipient was refused");
            Refusal::new(recipient.as_str(), class, reply.verbatim())
        })
        .collect()
}

/// No recipient was taken: the failure follows from their replies together.
fn nobody(job: &Job, replies: Vec<Reply>) -> Rejected {
    let refused = refusals(job, &replies);
    let about_us = |reply: &Reply| classify::of_reply(Stage::Recipient, reply).scope == Scope::Transport;
    let all_about_us = replies.iter().all(about_us);
    let transient = refused.iter().position(|refusal| refusal.class == Class::Transient);
    let Some(reply) = replies.into_iter().nth(transient.unwrap_or(0)) else {
        return SmtpError::new(Stage::Recipient, Fault::Closed).into();
    };
    let error = SmtpError::new(Stage::Recipient, Fault::Refused(reply));
    let error = match (all_about_us, transient) {
        (true, _) => error,
        (false, Some(_)) => error.meaning(classify::LATER),
        (false, None) => error.meaning(classify::NEVER),
    };
    Rejected { failure: Failure::from(error).with_refused(refused), unheard: false }
}

/// Who had been taken was refused after all, by one reply for all. Beside others who were refused before, each is named, since
/// they may differ in class.
fn everybody(job: &Job, error: SmtpError, mut refused: Vec<Refusal>, replies: &[Reply]) -> Rejected {
    if error.scope() == Scope::Transport || refused.is_empty() {
        return Rejected::from(error).beside(refused);
    }
    let reply = error.reply().unwrap_or_default().into_owned();
    let taken = job.recipients.iter().zip(replies).filter(|(_, reply)| reply.is_positive());
    refused.extend(taken.map(|((recipient, _), _)| Refusal::new(recipient.as_str(), error.class(), reply.as_str())));
    let later = refused.iter().any(|refusal| refusal.class == Class::Transient);
    let error = error.meaning(if later { classify::LATER } else { classify::NEVER });
    Rejected { failure: Failure::from(error).with_refused(refused), unheard: false }
}
