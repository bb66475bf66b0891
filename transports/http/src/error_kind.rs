//! The kinds of failures, and the class and scope of each.

use postrider_transport::{Class, Scope};

/// Kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The provider refuses this message. Permanent; scope: message.
    Message,
    /// The provider refuses the recipients. Permanent; scope: message.
    Recipient,
    /// The provider failed to process this message. Transient; scope: message.
    ServerError,
    /// The account may not send from this address: the address or its domain is not verified. Permanent; scope: sender.
    Sender,
    /// The account or its configuration cannot send: a wrong key, a suspension. Permanent; scope: transport.
    Account,
    /// The account has used up its quota for the hour, day or month. Transient; scope: transport.
    Quota,
    /// The account sends too fast. Transient; scope: transport.
    RateLimit,
    /// The provider is unreachable or unavailable, so the message was not sent. Transient; scope: transport.
    Unavailable,
    /// The whole request was sent, and no valid response came back. Transient, **in doubt**; scope: transport.
    NoResponse,
}

impl HttpErrorKind {
    pub(crate) fn class(self) -> Class {
        match self {
            Self::Message | Self::Recipient | Self::Sender | Self::Account => Class::Permanent,
            Self::ServerError | Self::Quota | Self::RateLimit | Self::Unavailable | Self::NoResponse => {
                Class::Transient
            }
        }
    }

    pub(crate) fn scope(self) -> Scope {
        match self {
            Self::Message | Self::Recipient | Self::ServerError => Scope::Message,
            Self::Sender => Scope::Sender,
            Self::Account | Self::Quota | Self::RateLimit | Self::Unavailable | Self::NoResponse => Scope::Transport,
        }
    }

    /// Whether the message may have been accepted.
    pub(crate) fn in_doubt(self) -> bool {
        self == Self::NoResponse
    }
}
