//! The steps of a call.

use std::fmt;

/// A step of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Preparing the message, and comparing it with what the server offers. No command of the message was sent.
    Prepare,
    /// Looking up the name and opening the connection.
    Connect,
    /// The server's greeting.
    Greeting,
    /// `EHLO`.
    Hello,
    /// `STARTTLS` or the TLS handshake.
    StartTls,
    /// `AUTH`.
    Auth,
    /// `RSET`, which ends an open transaction of an earlier message.
    Reset,
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, before the message itself.
    Data,
    /// Writing the message. Its end was not written.
    Body,
    /// The end of the message, a line with a dot, was written. The server may have accepted the message.
    Accept,
    /// `QUIT`.
    Quit,
}

/// Writes the stage as it stands in a sentence: `MAIL FROM`, `the greeting`.
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
