//! What can go wrong on the way to the server and in the dialogue with it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use postrider_transport::{Class, Classify, Scope, mask_addresses};

use crate::classify::{self, Meaning};
use crate::reply::Reply;
use crate::rules::Rule;

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Before the first word to the server about this message: what can be known from the message and from what the server
    /// offers.
    Prepare,
    /// The name was looked up, and the connection opened.
    Connect,
    /// The server's first words.
    Greeting,
    /// `EHLO`.
    Hello,
    /// `STARTTLS`, or the handshake of TLS.
    StartTls,
    /// `AUTH`.
    Auth,
    /// `RSET`, where an earlier message left a transaction open.
    Reset,
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, before the message itself.
    Data,
    /// The message itself went out, but not yet its end.
    Body,
    /// The message had gone out to its end, a line with a dot: from here on the server may have accepted it.
    Accept,
    /// `QUIT`.
    Quit,
}

/// As it stands in a sentence: `MAIL FROM`, `the greeting`.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "the preparation",
            Self::Connect => "the connection",
            Self::Greeting => "the greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Reset => "RSET",
            Self::Mail => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::Body => "the message",
            Self::Accept => "the end of the message",
            Self::Quit => "QUIT",
        })
    }
}

/// What happened at a stage.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A reply that refuses.
    Refused(Reply),
    /// A reply that does not fit the command.
    OutOfTurn(Reply),
    /// Something that is no reply.
    Malformed(&'static str),
    /// The connection broke.
    Io(io::Error),
    /// TLS could not be agreed upon; a certificate that does not hold is one reason.
    Handshake(io::Error),
    /// The server closed the connection.
    Closed,
    /// The stage took longer than its limit.
    Timeout(Duration),
    /// What is configured does not fit the server.
    Misconfigured(&'static str),
    /// The message does not fit.
    Unfit(Cow<'static, str>),
    /// The message exceeds what the server says it takes.
    TooLarge { size: usize, limit: usize },
}

/// A message did not go out by SMTP, or perhaps did: see [`in_doubt`](Classify::in_doubt). It becomes a
/// [`Failure`](postrider_transport::Failure), from which [`downcast_ref`](postrider_transport::Failure::downcast_ref) gets it
/// back.
///
/// `Display` names the stage and the server's words, with addresses masked.
pub struct SmtpError {
    stage: Stage,
    fault: Fault,
    meaning: Meaning,
}

impl SmtpError {
    /// An error before the end of the message went out. A reply that refuses is held against these rules before ours.
    pub(crate) fn new(own: &[Rule], stage: Stage, fault: Fault) -> Self {
        Self::with_end(own, stage, fault, false)
    }

    /// An error that knows whether the end of the message went out.
    pub(crate) fn with_end(own: &[Rule], stage: Stage, fault: Fault, message_ended: bool) -> Self {
        let meaning = match &fault {
            Fault::Refused(reply) => classify::of_reply(own, stage, reply),
            Fault::Misconfigured(_) => classify::MISCONFIGURED,
            Fault::Unfit(_) | Fault::TooLarge { .. } => classify::NEVER,
            Fault::OutOfTurn(_)
            | Fault::Malformed(_)
            | Fault::Io(_)
            | Fault::Handshake(_)
            | Fault::Closed
            | Fault::Timeout(_) => classify::of_silence(message_ended),
        };
        Self { stage, fault, meaning }
    }

    /// What was found before any reply could refuse: no rule is asked.
    pub(crate) fn unasked(stage: Stage, fault: Fault) -> Self {
        Self::new(&[], stage, fault)
    }

    /// Whether both sides agree where they are, so that QUIT can follow. After 421 the server closes by itself.
    pub(crate) fn is_in_step(&self) -> bool {
        match &self.fault {
            Fault::Refused(reply) => reply.code() != 421,
            Fault::Misconfigured(_) => true,
            _ => false,
        }
    }

    /// The same, for somebody who waited for it too.
    pub(crate) fn repeated(&self) -> Self {
        let io = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        let fault = match &self.fault {
            Fault::Refused(reply) => Fault::Refused(reply.clone()),
            Fault::OutOfTurn(reply) => Fault::OutOfTurn(reply.clone()),
            Fault::Malformed(what) => Fault::Malformed(what),
            Fault::Io(error) => Fault::Io(io(error)),
            Fault::Handshake(error) => Fault::Handshake(io(error)),
            Fault::Closed => Fault::Closed,
            Fault::Timeout(limit) => Fault::Timeout(*limit),
            Fault::Misconfigured(what) => Fault::Misconfigured(what),
            Fault::Unfit(what) => Fault::Unfit(what.clone()),
            Fault::TooLarge { size, limit } => Fault::TooLarge { size: *size, limit: *limit },
        };
        Self { stage: self.stage, fault, meaning: self.meaning }
    }

    /// Overrides what the fault means by itself.
    pub(crate) fn meaning(mut self, meaning: Meaning) -> Self {
        self.meaning = meaning;
        self
    }

    /// The same condition, by what it came to for all recipients together.
    pub(crate) fn with_class(mut self, class: Class, sure: bool) -> Self {
        (self.meaning.class, self.meaning.sure) = (class, sure);
        self
    }

    /// How far the call had come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The code of the server's reply, such as 550, where there is one.
    pub fn code(&self) -> Option<u16> {
        self.server_reply().map(Reply::code)
    }

    /// Whether the stage took longer than its [limit](crate::Timeouts).
    pub fn is_timeout(&self) -> bool {
        matches!(self.fault, Fault::Timeout(_))
    }

    fn server_reply(&self) -> Option<&Reply> {
        match &self.fault {
            Fault::Refused(reply) | Fault::OutOfTurn(reply) => Some(reply),
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

    /// What exceeds this server's limit (RFC 1870) may fit another's.
    fn unsupported(&self) -> bool {
        matches!(self.fault, Fault::TooLarge { .. })
    }

    fn reply(&self) -> Option<Cow<'_, str>> {
        self.server_reply().map(|reply| reply.verbatim().into())
    }
}

impl fmt::Display for SmtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.fault {
            Fault::Refused(reply) => write!(f, "{stage} was refused: {}", mask_addresses(&reply.to_string()))?,
            Fault::OutOfTurn(reply) => {
                write!(f, "{stage} was answered out of turn: {}", mask_addresses(&reply.to_string()))?;
            }
            Fault::Malformed(what) => write!(f, "{stage} was answered by {what}, which is no SMTP reply")?,
            Fault::Io(error) => write!(f, "{stage} failed: {error}")?,
            Fault::Handshake(error) => write!(f, "TLS could not be set up: {error}")?,
            Fault::Closed => write!(f, "the server closed the connection at {stage}")?,
            Fault::Timeout(limit) => write!(f, "{stage} took longer than {limit:?}")?,
            Fault::Misconfigured(what) => f.write_str(what)?,
            Fault::Unfit(what) => f.write_str(what)?,
            Fault::TooLarge { size, limit } => {
                write!(f, "the mail has {size} octets, and the server takes at most {limit}")?;
            }
        }
        if self.meaning.in_doubt {
            f.write_str("; the message may have been accepted all the same")?;
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
        match &self.fault {
            Fault::Io(error) | Fault::Handshake(error) => Some(error),
            _ => None,
        }
    }
}
