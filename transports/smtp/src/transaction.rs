//! A mail transaction (RFC 5321 section 3.3): from `MAIL FROM` to the reply to the end of the message.

use std::mem;
use std::slice;

use lettre::transport::smtp::commands::{Data, Rset};
use postrider_transport::{Receipt, Refusal, Waiting};

use crate::config::Timeouts;
use crate::error::{Cause, SmtpError};
use crate::meaning;
use crate::prepared_message::PreparedMessage;
use crate::recipient_replies::{RecipientReplies, message_refused};
use crate::reply::Reply;
use crate::send_error::SendError;
use crate::session::Session;
use crate::stage::Stage;

/// How many commands are written before their replies are read. Unread replies fill the buffers between client and server until
/// both wait for each other (RFC 2920 section 3.1). The replies to this many commands fit into any buffer.
const MAX_PIPELINED: usize = 100;

impl Session {
    /// Sends one message. [`reusable`](Self::reusable) is `false` while this runs, so that a dropped call leaves no session
    /// behind that could be used again. `waiting` is dropped right before the message itself is written.
    pub(crate) async fn send(
        &mut self,
        message: &PreparedMessage,
        timeouts: &Timeouts,
        waiting: &mut Option<Waiting>,
    ) -> Result<Receipt, SendError> {
        let mail_command = message.mail_command(&self.capabilities)?;
        self.reusable = false;
        self.messages += 1;
        Transaction { session: self, message, timeouts, replies: EnvelopeReplies::default(), answered: false }
            .run(mail_command, waiting)
            .await
    }
}

struct Transaction<'a> {
    session: &'a mut Session,
    message: &'a PreparedMessage,
    timeouts: &'a Timeouts,
    replies: EnvelopeReplies,
    /// Whether the server has replied to a command of this message.
    answered: bool,
}

/// The replies to the commands of the envelope, and to `DATA`.
#[derive(Default)]
struct EnvelopeReplies {
    /// `None` unless the server refused `MAIL FROM`.
    mail_refusal: Option<Reply>,
    recipients: RecipientReplies,
    /// `None` if `DATA` was not sent.
    data: Option<Reply>,
}

struct Command {
    stage: Stage,
    line: String,
}

impl Transaction<'_> {
    async fn run(mut self, mail_command: String, waiting: &mut Option<Waiting>) -> Result<Receipt, SendError> {
        if let Err(error) = self.send_envelope(mail_command).await {
            return Err(error.with_refused(self.refusals()));
        }
        let ends_connection = self.replies.recipients.codes().any(meaning::ends_connection);
        let result = self.finish(waiting).await;
        if ends_connection {
            self.session.retire();
        }
        result
    }

    /// Sends everything up to `DATA` and reads the replies: in groups if the server offers PIPELINING (RFC 2920), else one by one.
    async fn send_envelope(&mut self, mail_command: String) -> Result<(), SendError> {
        let commands = self.envelope_commands(mail_command);
        let group_size = if self.session.capabilities.pipelining { MAX_PIPELINED } else { 1 };
        for mut group in commands.chunks(group_size) {
            if self.replies.recipients.too_many() {
                // Servers count recipients beyond their limit as errors, and close the connection after some errors.
                match group.last() {
                    Some(data) if data.stage == Stage::Data => group = slice::from_ref(data),
                    _ => continue,
                }
            }
            if matches!(group, [Command { stage: Stage::Data, .. }]) && self.replies.recipients.accepted() == 0 {
                break;
            }
            let lines: String = group.iter().map(|command| command.line.as_str()).collect();
            let stage = group.first().map_or(Stage::Mail, |command| command.stage);
            let written = self.session.connection.write_command(&lines, self.timeouts.block).await;
            written.map_err(|cause| self.envelope_error(stage, cause))?;
            for command in group {
                self.read_envelope_reply(command.stage).await?;
            }
            if self.replies.mail_refusal.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn envelope_commands(&mut self, mail_command: String) -> Vec<Command> {
        let mut commands = Vec::with_capacity(self.message.recipients.len() + 3);
        if mem::take(&mut self.session.needs_reset) {
            commands.push(Command { stage: Stage::Reset, line: Rset.to_string() });
        }
        commands.push(Command { stage: Stage::Mail, line: mail_command });
        let recipients = self.message.recipients.iter();
        commands.extend(recipients.map(|to| Command { stage: Stage::Recipient, line: to.command.clone() }));
        commands.push(Command { stage: Stage::Data, line: Data.to_string() });
        commands
    }

    async fn read_envelope_reply(&mut self, stage: Stage) -> Result<(), SendError> {
        let limit = match stage {
            Stage::Reset => self.timeouts.hello,
            Stage::Mail => self.timeouts.mail,
            Stage::Recipient => self.timeouts.rcpt,
            _ => self.timeouts.data,
        };
        let reply =
            self.session.connection.read_reply(limit).await.map_err(|cause| self.envelope_error(stage, cause))?;
        if reply.code() == 421 {
            return Err(self.envelope_error(stage, Cause::Refused(reply)));
        }
        if stage == Stage::Reset {
            if reply.is_positive() {
                return Ok(());
            }
            // RSET belongs to an earlier message, so this message can go over a new connection.
            let failure = self.error(stage, Cause::UnexpectedReply(reply)).into();
            return Err(SendError { failure, stale_connection: !self.answered });
        }
        self.answered = true;
        let mail_refused = self.replies.mail_refusal.is_some();
        match stage {
            Stage::Mail if reply.is_negative() => self.replies.mail_refusal = Some(reply),
            Stage::Recipient if !mail_refused && (reply.is_positive() || reply.is_negative()) => {
                self.replies.recipients.push(&self.session.rules, reply);
            }
            Stage::Data => self.replies.data = Some(reply),
            _ if reply.is_positive() || mail_refused => {}
            _ => return Err(self.error(stage, Cause::UnexpectedReply(reply)).into()),
        }
        Ok(())
    }

    /// Evaluates the replies to the envelope, and sends the message if a recipient was accepted.
    async fn finish(&mut self, waiting: &mut Option<Waiting>) -> Result<Receipt, SendError> {
        if let Some(refusal) = self.replies.mail_refusal.take() {
            let data_refused = self.replies.data.as_ref().is_none_or(Reply::is_negative);
            self.session.end_transaction(refusal.code(), data_refused);
            return Err(self.error(Stage::Mail, Cause::Refused(refusal)).into());
        }
        if self.replies.recipients.accepted() == 0 {
            self.abort().await;
            return Err(self.no_recipient_accepted());
        }
        match self.replies.data.take() {
            Some(reply) if reply.code() == 354 => {}
            Some(reply) if reply.is_negative() => {
                self.session.needs_reset = true;
                self.session.end_transaction(reply.code(), true);
                let error = self.error(Stage::Data, Cause::Refused(reply));
                return Err(message_refused(error, self.message, &self.replies.recipients));
            }
            other => {
                let cause = other.map_or(Cause::ConnectionClosed, Cause::UnexpectedReply);
                return Err(SendError::from(self.error(Stage::Data, cause)).with_refused(self.refusals()));
            }
        }
        if self.session.connection.has_buffered_input() {
            let error = self.error(Stage::Data, Cause::InvalidReply("more than one reply"));
            return Err(SendError::from(error).with_refused(self.refusals()));
        }
        drop(waiting.take());
        self.send_data().await
    }

    /// Ends a transaction without an accepted recipient.
    async fn abort(&mut self) {
        match self.replies.data.take() {
            // The server accepts a message without recipients. It gets an empty one (RFC 2920 section 3.1), which brings both
            // sides in sync again. The reply says nothing about our message.
            Some(reply) if reply.code() == 354 => {
                let written = self.session.connection.write_command(".\r\n", self.timeouts.block).await;
                let reply = match written {
                    Ok(()) => self.session.connection.read_reply(self.timeouts.data).await,
                    Err(cause) => Err(cause),
                };
                if let Ok(reply) = reply {
                    self.session.end_transaction(reply.code(), reply.is_positive() || reply.is_negative());
                }
            }
            Some(reply) => {
                self.session.needs_reset = true;
                self.session.end_transaction(reply.code(), reply.is_negative());
            }
            None => {
                self.session.needs_reset = true;
                self.session.reusable = !self.session.connection.has_buffered_input();
            }
        }
    }

    /// Sends the message and reads the reply.
    async fn send_data(&mut self) -> Result<Receipt, SendError> {
        let data = &self.message.data;
        // The message and its end go out in one write. Two writes would be two segments, and two waits on a busy network.
        let mut written = 0;
        let sent = self.session.connection.write(data, self.timeouts.block, &mut written).await;
        // The server cannot have taken the message as complete unless one of its last three octets, a dot and a line end, went out.
        let ended = written > data.len().saturating_sub(3);
        let stage = if ended { Stage::Accept } else { Stage::Body };
        let reply = match sent {
            Ok(()) => self.session.connection.read_reply(self.timeouts.accept).await,
            Err(cause) => Err(cause),
        };
        match reply {
            Ok(reply) if reply.is_positive() => {
                self.session.end_transaction(reply.code(), true);
                let receipt = Receipt::new().with_reply(reply.verbatim()).with_refused(self.refusals());
                Ok(match reply.queue_id() {
                    Some(id) => receipt.with_provider_id(id),
                    None => receipt,
                })
            }
            Ok(reply) if reply.is_negative() => {
                self.session.end_transaction(reply.code(), true);
                let error = self.error(stage, Cause::Refused(reply));
                Err(message_refused(error, self.message, &self.replies.recipients))
            }
            Err(Cause::Refused(reply)) => {
                let error = self.error(stage, Cause::Refused(reply));
                Err(message_refused(error, self.message, &self.replies.recipients))
            }
            other => {
                let cause = match other {
                    Ok(reply) => Cause::UnexpectedReply(reply),
                    Err(cause) => cause,
                };
                let error = SmtpError::after_data(&self.session.rules, stage, cause, ended);
                Err(SendError::from(error).with_refused(self.refusals()))
            }
        }
    }

    fn error(&self, stage: Stage, cause: Cause) -> SmtpError {
        self.session.error(stage, cause)
    }

    fn refusals(&self) -> Vec<Refusal> {
        self.replies.recipients.refusals(self.message)
    }

    /// An error before the message itself. The connection is stale if it ended before the first reply about this message.
    fn envelope_error(&self, stage: Stage, cause: Cause) -> SendError {
        let ended = match &cause {
            Cause::ConnectionClosed | Cause::Io(_) => true,
            Cause::Refused(reply) => reply.code() == 421,
            _ => false,
        };
        SendError { failure: self.error(stage, cause).into(), stale_connection: !self.answered && ended }
    }

    fn no_recipient_accepted(&mut self) -> SendError {
        let refused = self.refusals();
        let Some((meaning, reply)) = mem::take(&mut self.replies.recipients).combined() else {
            return self.error(Stage::Recipient, Cause::ConnectionClosed).into();
        };
        let error = self.error(Stage::Recipient, Cause::Refused(reply)).with_meaning(meaning);
        SendError::from(error).with_refused(refused)
    }
}
