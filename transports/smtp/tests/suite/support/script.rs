//! The script of a test server: what it does wrong, and when.

use std::sync::Arc;

use tokio::sync::Notify;

/// A point of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// The AUTH command, before any response.
    AuthCommand,
    /// The end of the AUTH exchange.
    Auth,
    Mail,
    Rcpt,
    /// The recipient with this number within a transaction, from 0.
    RcptNumber(usize),
    /// The recipients from this number on.
    RcptsFrom(usize),
    Data,
    /// After the first part of the message.
    Body,
    /// After the end of the message.
    EndOfData,
    Rset,
    Quit,
    /// Between two messages, when the test says so.
    Idle,
}

/// What the server does at that point instead of its usual reply.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Send this reply and continue.
    Reply(&'static str),
    /// Send this reply and close the connection.
    ReplyAndClose(&'static str),
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
    /// Keep the connection open, but read and send nothing more.
    Stall,
    /// Send a part of a reply and close the connection.
    PartialReplyAndClose,
    /// Send a part of a reply and stall.
    PartialReplyAndStall,
    /// Wait for the test before the usual reply.
    Hold(Arc<Notify>),
    /// Send this after the usual reply.
    ExtraReply(&'static str),
}

/// An action at a point, for a number of times.
#[derive(Debug, Clone)]
pub(crate) struct ScriptedAction {
    pub(crate) at: At,
    pub(crate) action: Action,
    /// How many times are left.
    pub(crate) times: usize,
}
