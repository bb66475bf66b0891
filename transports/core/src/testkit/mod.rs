//! A conformance suite for transports.
//!
//! The suite runs a transport against a scripted peer: the next hop, played by the test, on loopback or in memory. The peer gives each
//! message the [`Answer`] that the suite plans, in its own protocol, and records what it accepts. The suite checks that:
//!
//! - each answer gives the right class, scope and doubt, and one call makes at most one request;
//! - each message gets its own receipt, also after failures, in concurrent calls, and after dropped calls;
//! - only the recipients of the attempt are addressed;
//! - no output has a secret, a body or a whole address.
//!
//! Implement [`TransportUnderTest`] and [`ScriptedPeer`], then call [`transport_tests!`](crate::transport_tests). For an HTTP API, use the
//! peer [`ScriptedHttp`] and implement [`HttpApi`].
//!
//! # Example
//!
//! A transport and its peer in one process:
//!
//! ```
#![doc = include_str!("example.rs")]
//! # fn main() {}
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance suite reports by panicking, like the tests that call it"
)]

mod acceptance;
mod answers;
mod cancellation;
mod fixture;
mod http_api;
mod http_peer;
mod redaction;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::{Email, Transport};

pub use acceptance::*;
pub use answers::*;
pub use cancellation::*;
use fixture::TestMail;
pub use http_api::{HttpApi, ScriptedHttp};
pub use http_peer::{HttpPeer, HttpReply, HttpRequest};
pub use redaction::*;

/// Creates transports for the suite, each connected to a peer.
pub trait TransportUnderTest: Send + Sync {
    /// The transport.
    type Transport: Transport<Message = Email> + fmt::Debug;
    /// The next hop, played by the test.
    type Peer: ScriptedPeer;

    /// Starts a peer that accepts everything, and a transport to it. A call to a silent peer ends in about `limit`.
    ///
    /// The transport is configured with the [`secrets`](Self::secrets). The tests run concurrently, each with its own pair.
    fn start(&self, limit: Duration) -> impl Future<Output = (Self::Transport, Self::Peer)> + Send;

    /// Creates a transport with the same configuration, to an address where no peer listens.
    fn unreachable(&self) -> impl Future<Output = Self::Transport> + Send;

    /// The secrets in the transport's configuration: passwords, keys, tokens. Empty only if it has none.
    fn secrets(&self) -> Vec<String>;

    /// A mail that the transport does not support, so that its [`check`](Transport::check) fails.
    ///
    /// `None` if it supports every mail. Then pass `without an_unsupported_mail` with the reason.
    fn unsupported(&self) -> Option<Email>;
}

/// The next hop of a transport under test.
///
/// It should be as careless as real servers: its refusals should repeat addresses and secrets from the request.
pub trait ScriptedPeer: Send + Sync + 'static {
    /// Appends the answer to one message to the plan. Messages after the end of the plan are accepted.
    ///
    /// For concurrent messages and batches, the suite plans only [`Accept`](Answer::Accept) and
    /// [`RefuseMessage`](Answer::RefuseMessage). In a batch, each message has its own answer.
    fn plan(&self, answer: Answer);

    /// Releases every [`Hang`](Answer::Hang) that was planned so far.
    fn release(&self);

    /// The number of messages that it read completely, with any answer.
    fn read(&self) -> usize;

    /// The accepted messages, oldest first.
    fn accepted(&self) -> Vec<Accepted>;
}

/// What a peer does with one message, in its own protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Accepts the message.
    Accept,
    /// Refuses this message permanently.
    RefuseMessage,
    /// Defers this message: a transient refusal. If the protocol has no such answer, pass `without a_deferred_message`, and refuse in any
    /// other way.
    Busy,
    /// Refuses the credentials. Planned for the first message only, because a connection may authenticate once for many messages.
    RefuseCredentials,
    /// Reports that a rate limit is exceeded, and asks to wait this long. If the protocol has no such answer, pass `without a_rate_limit`.
    RateLimit(Duration),
    /// Reports that the service is unavailable, and does not accept the message.
    Unavailable,
    /// Closes the connection before it reads anything. Planned for the first message only, because a transport may silently replace a
    /// reused connection.
    CloseBeforeReading,
    /// Reads the whole message and closes the connection.
    CloseAfterReading,
    /// Reads the whole message and stays silent until it is [released](ScriptedPeer::release). Then accepts the message.
    Hang,
    /// Reads the whole message and sends an answer that violates the protocol.
    Garbage,
}

/// A message that a peer accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// The recipients in the request, in any order.
    pub recipients: Vec<String>,
    /// The id of the message in the peer's answer. `None` if the protocol has no ids.
    pub provider_id: Option<String>,
    /// The message as the peer read it. Subject, text and HTML, which are ASCII, must be readable in it.
    pub content: String,
}

impl Accepted {
    /// Creates a record of an accepted message.
    pub fn new(recipients: Vec<String>, provider_id: Option<String>, content: impl Into<String>) -> Self {
        Self { recipients, provider_id, content: content.into() }
    }
}

/// Generates the tests of the suite: one `#[tokio::test]` for each function in [`testkit`](crate::testkit).
///
/// The argument is an expression for a [`TransportUnderTest`](crate::testkit::TransportUnderTest). An attribute before it, such as
/// `#[ignore = "needs a server"]`, applies to each test. Needs tokio's `macros` and `rt-multi-thread` features.
///
/// Three tests need an answer that not every protocol has. Omit them by name, with the reason:
///
/// ```text
/// transport_tests!(Smtp, without a_rate_limit = "SMTP cannot say how long to wait");
/// transport_tests!(
///     Api,
///     without a_deferred_message = "the API has one code for all errors",
///     without a_rate_limit = "the provider sends no time",
///     without an_unsupported_mail = "it sends the rendered message"
/// );
/// ```
#[macro_export]
macro_rules! transport_tests {
    ($(#[$attribute:meta])? $fixture:expr $(, without $name:ident = $reason:literal)* $(,)?) => {
        $crate::transport_tests! { @all [$(#[$attribute])?] $fixture }
        $crate::transport_tests! {
            @but [$(#[$attribute])?] $fixture;
            [a_deferred_message] [a_rate_limit] [an_unsupported_mail];
            $($name)*
        }
    };
    (@but $attributes:tt $fixture:expr; $busy:tt $rate:tt $mail:tt; a_deferred_message $($rest:ident)*) => {
        $crate::transport_tests! { @but $attributes $fixture; [] $rate $mail; $($rest)* }
    };
    (@but $attributes:tt $fixture:expr; $busy:tt $rate:tt $mail:tt; a_rate_limit $($rest:ident)*) => {
        $crate::transport_tests! { @but $attributes $fixture; $busy [] $mail; $($rest)* }
    };
    (@but $attributes:tt $fixture:expr; $busy:tt $rate:tt $mail:tt; an_unsupported_mail $($rest:ident)*) => {
        $crate::transport_tests! { @but $attributes $fixture; $busy $rate []; $($rest)* }
    };
    (@but $attributes:tt $fixture:expr; [$($busy:ident)?] [$($rate:ident)?] [$($mail:ident)?];) => {
        $crate::transport_tests! { @each $attributes $fixture; $($busy)? $($rate)? $($mail)? }
    };
    (@all $attributes:tt $fixture:expr) => {
        $crate::transport_tests! { @each $attributes $fixture;
            an_accepted_message_has_its_receipt
            concurrent_messages_have_their_own_receipts
            only_the_recipients_of_the_attempt_are_addressed
            every_attempt_sends_the_same_message
            a_batch_has_a_result_for_each_message
            a_refused_message
            refused_credentials
            an_unavailable_peer
            a_connection_closed_at_once
            a_connection_closed_before_the_answer
            a_missing_answer
            a_malformed_answer
            an_unreachable_peer
            the_answer_to_a_dropped_call_is_discarded
            a_call_can_be_dropped_at_any_time
            the_name_can_be_shown
            nothing_confidential_is_shown
        }
    };
    (@each $attributes:tt $fixture:expr; $($name:ident)*) => {
        $($crate::transport_tests! { @one $attributes $fixture; $name })*
    };
    (@one [$(#[$attribute:meta])*] $fixture:expr; $name:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::testkit::$name(&$fixture).await;
        }
    };
}

/// The usual time limit: long enough that no call reaches it.
const LONG_LIMIT: Duration = Duration::from_secs(60);

/// The time limit for tests that wait for it: long enough for everything before the silence.
const SHORT_LIMIT: Duration = Duration::from_secs(2);
