//! One message over one connection: from MAIL FROM to the answer to its end.

use std::mem;

use lettre::transport::smtp::commands::{Data, Rset};
use postrider_transport::{Class, Classify, Failure, Receipt, Recipient, Refusal, Scope, Waiting};
use tracing::debug;

use crate::classify::{self, Meaning};
use crate::config::Timeouts;
use crate::error::{Fault, SmtpError, Stage};
use crate::job::Job;
use crate::reply::Reply;
use crate::rules::{Gist, Rule};
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
    recipients: Recipients,
    data: Option<Reply>,
}

/// What was said to the recipients, in their order. Where the envelope is full (RFC 5321 section 4.5.3.1.10), the rest is not asked
/// for, and shares the last answer.
#[derive(Default)]
struct Recipients {
    replies: Vec<Reply>,
    /// What the refusals mean; `None` for who was taken.
    meanings: Vec<Option<Meaning>>,
    taken: usize,
    full: bool,
    /// The last refusal, and what it means.
    last: Option<(Gist, Meaning)>,
}

impl Recipients {
    /// Servers say the same to many: what a reply means is found once.
    fn push(&mut self, own: &[Rule], reply: Reply) {
        let meaning = (!reply.is_positive()).then(|| {
            let gist = Gist::of(&reply);
            match &self.last {
                Some((last, meaning)) if *last == gist => *meaning,
                _ => {
                    let meaning = classify::of_gist(own, Stage::Recipient, gist.clone());
                    self.last = Some((gist, meaning));
                    meaning
                }
            }
        });
        self.taken += usize::from(meaning.is_none());
        self.full = self.taken > 0 && meaning.is_some_and(|meaning| meaning.envelope_full);
        self.replies.push(reply);
        self.meanings.push(meaning);
    }

    /// Each recipient that was not taken, with the reply and what it means.
    fn refused<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = (&'a Recipient, &'a Reply, &'a Meaning)> {
        let asked = self.replies.iter().zip(&self.meanings);
        // Whoever was not asked shares the answer that the envelope is full.
        let rest = self.replies.last().zip(self.meanings.last()).filter(|_| self.full).into_iter().cycle();
        let both = job.recipients.iter().zip(asked.chain(rest));
        both.filter_map(|((recipient, _), (reply, meaning))| Some((recipient, reply, meaning.as_ref()?)))
    }

    fn taken<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a Recipient> {
        let both = job.recipients.iter().zip(&self.meanings);
        both.filter(|(_, meaning)| meaning.is_none()).map(|((recipient, _), _)| recipient)
    }
}

impl Session {
    /// Carries one message. [`clean`](Self::clean) says afterwards whether the connection can carry another; it is not while
    /// this runs, so that a call that is dropped half-way leaves nothing behind that could be used again. `waiting` is taken
    /// right before the message itself goes out.
    pub(crate) async fn carry(
        &mut self,
        job: &Job,
        timeouts: &Timeouts,
        waiting: &mut Option<Waiting>,
    ) -> Result<Receipt, Rejected> {
        let mail = job.mail_command(&self.offers)?;
        self.clean = false;
        self.messages += 1;
        let mut answers = Answers::default();
        let introduced = self.introduce(job, mail, timeouts, &mut answers).await;
        introduced.map_err(|rejected| rejected.beside(refusals(job, &answers.recipients)))?;
        let out_of_step = answers.recipients.replies.iter().any(|reply| classify::ends_connection(reply.code()));
        let result = self.conclude(job, answers, timeouts, waiting).await;
        if out_of_step {
            self.give_up();
        }
        result
    }

    /// What follows from the answers to the envelope.
    async fn conclude(
        &mut self,
        job: &Job,
        answers: Answers,
        timeouts: &Timeouts,
        waiting: &mut Option<Waiting>,
    ) -> Result<Receipt, Rejected> {
        if let Some(refusal) = answers.mail {
            let open = answers.data.is_some_and(|data| !data.is_negative());
            self.settle(refusal.code(), !open);
            return Err(self.error(Stage::Mail, Fault::Refused(refusal)).into());
        }
        if answers.recipients.taken == 0 {
            self.put_away(answers.data.as_ref(), timeouts).await;
            return Err(self.nobody(job, answers.recipients));
        }
        match answers.data {
            Some(data) if data.code() == 354 => {}
            Some(data) if data.is_negative() => {
                self.needs_reset = true;
                self.settle(data.code(), true);
                let error = self.error(Stage::Data, Fault::Refused(data));
                return Err(everybody(job, error, &answers.recipients));
            }
            other => {
                let fault = other.map_or(Fault::Closed, Fault::OutOfTurn);
                let rejected = Rejected::from(self.error(Stage::Data, fault));
                return Err(rejected.beside(refusals(job, &answers.recipients)));
            }
        }
        if !self.wire.is_drained() {
            let fault = Fault::Malformed("more than one answer");
            let rejected = Rejected::from(self.error(Stage::Data, fault));
            return Err(rejected.beside(refusals(job, &answers.recipients)));
        }
        drop(waiting.take());
        self.hand_over(job, &answers.recipients, timeouts).await
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
        for mut group in commands.chunks(if self.offers.pipelining { GROUP } else { 1 }) {
            if answers.recipients.full {
                // A server counts what it is asked for beyond its limit as errors, and after some closes the connection.
                match group.split_last() {
                    Some(data @ ((Stage::Data, _), _)) => group = std::slice::from_ref(data.0),
                    _ => continue,
                }
            }
            if matches!(group, [(Stage::Data, _)]) && answers.recipients.taken == 0 {
                break;
            }
            let words: String = group.iter().map(|(_, command)| command.as_str()).collect();
            let stage = group.first().map_or(Stage::Mail, |(stage, _)| *stage);
            let written = self.wire.command(&words, timeouts.block).await;
            written.map_err(|fault| self.cut_off(stage, fault, unheard))?;
            for (stage, _) in group {
                let limit = match stage {
                    Stage::Reset => timeouts.hello,
                    Stage::Mail => timeouts.mail,
                    Stage::Recipient => timeouts.rcpt,
                    _ => timeouts.data,
                };
                let reply = self.wire.reply(limit).await.map_err(|fault| self.cut_off(*stage, fault, unheard))?;
                if reply.code() == 421 {
                    return Err(self.cut_off(*stage, Fault::Refused(reply), unheard));
                }
                if *stage == Stage::Reset {
                    // What became of an earlier message does not stand in the way of this one.
                    if !reply.is_positive() {
                        let failure = self.error(*stage, Fault::OutOfTurn(reply)).into();
                        return Err(Rejected { failure, unheard });
                    }
                    continue;
                }
                unheard = false;
                match stage {
                    Stage::Mail if reply.is_negative() => answers.mail = Some(reply),
                    Stage::Recipient if answers.mail.is_none() && (reply.is_positive() || reply.is_negative()) => {
                        answers.recipients.push(&self.rules, reply);
                    }
                    Stage::Data => answers.data = Some(reply),
                    _ if reply.is_positive() || answers.mail.is_some() => {}
                    _ => return Err(self.error(*stage, Fault::OutOfTurn(reply)).into()),
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
        recipients: &Recipients,
        timeouts: &Timeouts,
    ) -> Result<Receipt, Rejected> {
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
                let receipt = Receipt::new().with_reply(reply.verbatim()).with_refused(refusals(job, recipients));
                Ok(match reply.queue_id() {
                    Some(id) => receipt.with_provider_id(id),
                    None => receipt,
                })
            }
            Ok(reply) if reply.is_negative() => {
                self.settle(reply.code(), true);
                Err(everybody(job, self.error(stage, Fault::Refused(reply)), recipients))
            }
            Err(Fault::Refused(reply)) => Err(everybody(job, self.error(stage, Fault::Refused(reply)), recipients)),
            other => {
                let fault = match other {
                    Ok(reply) => Fault::OutOfTurn(reply),
                    Err(fault) => fault,
                };
                let error = SmtpError::with_end(&self.rules, stage, fault, ended);
                Err(Rejected::from(error).beside(refusals(job, recipients)))
            }
        }
    }

    /// Notes whether the connection can go on after a reply that ended a dialogue.
    fn settle(&mut self, code: u16, in_step: bool) {
        self.clean = in_step && code != 421 && self.wire.is_drained();
        if classify::ends_connection(code) {
            self.give_up();
        }
    }

    /// The connection is of no more use. Where it is in step, it is told goodbye.
    fn give_up(&mut self) {
        self.say_goodbye();
        self.clean = false;
    }

    /// The connection ended. Before the first answer about this message, that is about the connection alone.
    fn cut_off(&self, stage: Stage, fault: Fault, unheard: bool) -> Rejected {
        let ended = match &fault {
            Fault::Closed | Fault::Io(_) => true,
            Fault::Refused(reply) => reply.code() == 421,
            _ => false,
        };
        Rejected { failure: self.error(stage, fault).into(), unheard: unheard && ended }
    }

    /// No recipient was taken: the failure follows from their replies together. Where all are about the same condition, it is that;
    /// where they differ, it is the mail's, whose recipients each have a class of their own.
    fn nobody(&self, job: &Job, recipients: Recipients) -> Rejected {
        let refused = refusals(job, &recipients);
        let Recipients { replies, meanings, .. } = recipients;
        let mut all = meanings.into_iter().flatten().zip(replies);
        let Some((mut meaning, mut reply)) = all.next() else {
            return self.error(Stage::Recipient, Fault::Closed).into();
        };
        let all: Vec<_> = all.collect();
        let mixed = all.iter().any(|(other, _)| other.scope != meaning.scope);
        // What is about the sender or the transport, and not about everybody, is tried again like any other refusal for now.
        let class =
            |meaning: &Meaning| if mixed && meaning.scope != Scope::Message { Class::Transient } else { meaning.class };
        meaning.class = class(&meaning);
        for (mut other, its_reply) in all {
            other.class = class(&other);
            // The failure has the words of one of those whose class it has, and is as sure as the least sure of them.
            if (other.class, meaning.class) == (Class::Transient, Class::Permanent) {
                (meaning.class, reply) = (Class::Transient, its_reply);
            }
            meaning.sure &= other.sure;
            meaning.retry_after = meaning.retry_after.max(other.retry_after);
        }
        if mixed {
            meaning.scope = Scope::Message;
        }
        let error = self.error(Stage::Recipient, Fault::Refused(reply)).meaning(meaning);
        Rejected { failure: Failure::from(error).with_refused(refused), unheard: false }
    }
}

fn refusal(recipient: &Recipient, class: Class, sure: bool, reply: &str) -> Refusal {
    let refusal = Refusal::new(recipient.as_str(), class, reply);
    if sure { refusal } else { refusal.unsure() }
}

/// The recipients that the server did not take.
fn refusals(job: &Job, recipients: &Recipients) -> Vec<Refusal> {
    let refusals: Vec<Refusal> = recipients
        .refused(job)
        .map(|(recipient, reply, meaning)| {
            // A reply about the transport or the sender, for one recipient among others: that one tries again later, alone, and
            // should they be at fault, it will show then.
            let class = if meaning.scope == Scope::Message { meaning.class } else { Class::Transient };
            refusal(recipient, class, meaning.sure, &reply.verbatim())
        })
        .collect();
    if !refusals.is_empty() {
        debug!(count = refusals.len(), full = recipients.full, "recipients were refused");
    }
    refusals
}

/// Who had been taken was refused after all, by one reply for all. Beside others who were refused before, each is named, since
/// they may differ in class.
fn everybody(job: &Job, error: SmtpError, recipients: &Recipients) -> Rejected {
    let mut refused = refusals(job, recipients);
    if error.scope() != Scope::Message || refused.is_empty() {
        return Rejected::from(error).beside(refused);
    }
    let reply = error.reply().unwrap_or_default().into_owned();
    let taken = recipients.taken(job);
    refused.extend(taken.map(|recipient| refusal(recipient, error.class(), error.sure(), &reply)));
    let later = refused.iter().any(|refusal| refusal.class == Class::Transient);
    let class = if later { Class::Transient } else { Class::Permanent };
    let sure = refused.iter().all(|refusal| refusal.sure);
    let error = error.with_class(class, sure);
    Rejected { failure: Failure::from(error).with_refused(refused), unheard: false }
}
