//! The error of the transport.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use postrider_transport::{Class, Classify, Scope, mask_addresses};

use crate::meaning::{self, Meaning};
use crate::reply::Reply;
use crate::rules::{Rule, RuleInput};
use crate::stage::Stage;

/// What went wrong at a stage.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The server refused.
    Refused(Reply),
    /// The server's reply does not fit the command.
    UnexpectedReply(Reply),
    /// The server sent something that is not an SMTP reply: what it sent, as a noun.
    InvalidReply(&'static str),
    /// The connection broke.
    Io(io::Error),
    /// The TLS handshake failed, for instance because of an invalid certificate.
    Handshake(io::Error),
    /// The server closed the connection.
    ConnectionClosed,
    /// The stage took longer than its limit.
    Timeout(Duration),
    /// The configuration does not fit the server.
    Misconfigured(&'static str),
    /// SMTP cannot carry the message.
    InvalidMessage(Cow<'static, str>),
    /// The message exceeds the server's `SIZE`. Both in octets.
    TooLarge { size: usize, limit: usize },
}

/// A message was not sent, or its outcome is [in doubt](Classify::in_doubt).
///
/// It becomes a [`Failure`](postrider_transport::Failure). [`Failure::downcast_ref`](postrider_transport::Failure::downcast_ref)
/// returns it. `Display` shows the stage and the server's reply with masked addresses.
pub struct SmtpError {
    stage: Stage,
    cause: Cause,
    meaning: Meaning,
}

impl SmtpError {
    /// An error before the end of the message was written. `user_rules` come before the rules of this crate.
    pub(crate) fn new(user_rules: &[Rule], stage: Stage, cause: Cause) -> Self {
        Self::after_data(user_rules, stage, cause, false)
    }

    /// An error while or after the message was written. `message_ended` says whether its end was
    /// written.
    pub(crate) fn after_data(user_rules: &[Rule], stage: Stage, cause: Cause, message_ended: bool) -> Self {
        let meaning = match &cause {
            Cause::Refused(reply) => meaning::refusal(user_rules, stage, RuleInput::new(reply)),
            Cause::Misconfigured(_) => meaning::MISCONFIGURED,
            Cause::InvalidMessage(_) | Cause::TooLarge { .. } => meaning::INVALID_MESSAGE,
            Cause::UnexpectedReply(_)
            | Cause::InvalidReply(_)
            | Cause::Io(_)
            | Cause::Handshake(_)
            | Cause::ConnectionClosed
            | Cause::Timeout(_) => meaning::no_reply(message_ended),
        };
        Self { stage, cause, meaning }
    }

    /// An error without a refusal, so that no rule matters.
    pub(crate) fn local(stage: Stage, cause: Cause) -> Self {
        Self::new(&[], stage, cause)
    }

    /// Whether both sides are in sync, so that `QUIT` can follow. After 421 the server closes the connection.
    pub(crate) fn is_in_sync(&self) -> bool {
        match &self.cause {
            Cause::Refused(reply) => reply.code() != 421,
            Cause::Misconfigured(_) => true,
            _ => false,
        }
    }

    /// Copies the error, for another call that waited for the same connection.
    pub(crate) fn duplicate(&self) -> Self {
        let io = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        let cause = match &self.cause {
            Cause::Refused(reply) => Cause::Refused(reply.clone()),
            Cause::UnexpectedReply(reply) => Cause::UnexpectedReply(reply.clone()),
            Cause::InvalidReply(what) => Cause::InvalidReply(what),
            Cause::Io(error) => Cause::Io(io(error)),
            Cause::Handshake(error) => Cause::Handshake(io(error)),
            Cause::ConnectionClosed => Cause::ConnectionClosed,
            Cause::Timeout(limit) => Cause::Timeout(*limit),
            Cause::Misconfigured(what) => Cause::Misconfigured(what),
            Cause::InvalidMessage(what) => Cause::InvalidMessage(what.clone()),
            Cause::TooLarge { size, limit } => Cause::TooLarge { size: *size, limit: *limit },
        };
        Self { stage: self.stage, cause, meaning: self.meaning }
    }

    /// Replaces the meaning of the cause.
    pub(crate) fn with_meaning(mut self, meaning: Meaning) -> Self {
        self.meaning = meaning;
        self
    }

    /// Replaces the class by the class for all recipients together.
    pub(crate) fn with_class(mut self, class: Class, sure: bool) -> Self {
        (self.meaning.class, self.meaning.sure) = (class, sure);
        self
    }

    /// The step at which the call failed.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The code of the server's reply, such as 550. `None` if there is no reply.
    pub fn code(&self) -> Option<u16> {
        self.server_reply().map(Reply::code)
    }

    /// Whether the stage took longer than its [limit](crate::Timeouts).
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::Timeout(_))
    }

    fn server_reply(&self) -> Option<&Reply> {
        match &self.cause {
            Cause::Refused(reply) | Cause::UnexpectedReply(reply) => Some(reply),
            _ => None,
        }
    }
}

impl Classify for SmtpError {
    fn class(&self) -> Class {
        self.meaning.class
    }

    fn scope(&self) -> Scope {
        self.meaning.scope
    }

    fn sure(&self) -> bool {
        self.meaning.sure
    }

    fn retry_after(&self) -> Option<Duration> {
        self.meaning.retry_after
    }

    fn in_doubt(&self) -> bool {
        self.meaning.in_doubt
    }

    /// A message beyond this server's limit (RFC 1870) may be within another server's.
    fn unsupported(&self) -> bool {
        matches!(self.cause, Cause::TooLarge { .. })
    }

    fn reply(&self) -> Option<Cow<'_, str>> {
        self.server_reply().map(|reply| reply.verbatim().into())
    }
}

impl fmt::Display for SmtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.cause {
            Cause::Refused(reply) => write!(f, "{stage} was refused: {}", mask_addresses(&reply.to_string()))?,
            Cause::UnexpectedReply(reply) => {
                write!(f, "{stage} got an unexpected reply: {}", mask_addresses(&reply.to_string()))?;
            }
            Cause::InvalidReply(what) => write!(f, "{stage} got {what} instead of an SMTP reply")?,
            Cause::Io(error) => write!(f, "{stage} failed: {error}")?,
            Cause::Handshake(error) => write!(f, "the TLS handshake failed: {error}")?,
            Cause::ConnectionClosed => write!(f, "the server closed the connection at {stage}")?,
            Cause::Timeout(limit) => write!(f, "{stage} took longer than {limit:?}")?,
            Cause::Misconfigured(what) => f.write_str(what)?,
            Cause::InvalidMessage(what) => f.write_str(what)?,
            Cause::TooLarge { size, limit } => {
                write!(f, "the mail has {size} octets, and the server takes at most {limit}")?;
            }
        }
        if self.meaning.in_doubt {
            f.write_str("; the message may have been accepted")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SmtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpError")
            .field("stage", &self.stage)
            .field("class", &self.meaning.class)
            .field("scope", &self.meaning.scope)
            .field("sure", &self.meaning.sure)
            .field("in_doubt", &self.meaning.in_doubt)
            .field("text", &self.to_string())
            .finish()
    }
}

impl Error for SmtpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Io(error) | Cause::Handshake(error) => Some(error),
            _ => None,
        }
    }
}
