//! What the peer is told to do wrong, and where.

use std::sync::Arc;

use tokio::sync::Notify;

/// Where in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// The command, before any response to it.
    AuthCommand,
    Auth,
    Mail,
    Rcpt,
    /// The recipient of this number within a transaction, from 0 on.
    RcptNo(usize),
    /// The recipients from this number on.
    RcptFrom(usize),
    Data,
    /// When the first part of the message has come.
    Body,
    /// When the end of the message has come.
    Dot,
    Rset,
    Quit,
    /// Between two messages, whenever a test wants it.
    Idle,
}

/// What to do there, in place of the usual.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Say this, and go on.
    Say(&'static str),
    /// Say this, and close the connection.
    SayAndClose(&'static str),
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
    /// Say and read nothing more, but stay.
    Stall,
    /// Begin a reply, and close the connection.
    Half,
    /// Begin a reply, and say nothing more.
    HalfAndStall,
    /// Wait for the test before going on as usual.
    Hold(Arc<Notify>),
    /// Go on as usual, and after the answer, with this besides.
    AlsoSay(&'static str),
}

/// An act for a place, and for how many more times.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) at: At,
    pub(crate) act: Act,
    pub(crate) times: usize,
}
