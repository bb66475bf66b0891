//! What every transport must do, as functions that panic where one does not.
//!
//! The suite drives a transport against a peer: whatever stands behind it, played by the test, on loopback or in memory. The peer
//! gives to each message the [`Answer`] that the suite asks for, in the words of its protocol, and keeps a record. Of the transport it
//! must hold that
//!
//! - each answer has its class, its blame and its doubt, and one call is one request at most;
//! - the receipt is that of the message, whatever happened to others before, beside it, or in calls that were dropped;
//! - exactly those are addressed whom the attempt is for;
//! - nothing that it shows holds a secret, a body or a whole address.
//!
//! Implement [`TransportUnderTest`] and [`ScriptedPeer`], then stamp the suite with [`transport_tests!`](crate::transport_tests).
//! For a transport that speaks HTTP the peer is there already: [`ScriptedHttp`], which wants an [`HttpApi`].
//! Here is a transport that only leaves the process in its imagination:
//!
//! ```
#![doc = include_str!("example.rs")]
//! # fn main() {}
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance suite speaks by panicking, as the tests that call it do"
)]

mod answers;
mod carrying;
mod discretion;
mod dropping;
mod http_api;
mod http_peer;
mod letter;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::{Email, Transport};

pub use answers::*;
pub use carrying::*;
pub use discretion::*;
pub use dropping::*;
pub use http_api::{HttpApi, ScriptedHttp};
pub use http_peer::{HttpPeer, HttpReply, HttpRequest};
use letter::Letter;

/// A transport that the suite can connect to a peer of its own.
pub trait TransportUnderTest: Send + Sync {
    /// The transport.
    type Transport: Transport<Message = Email> + fmt::Debug;
    /// What stands behind it.
    type Peer: ScriptedPeer;

    /// Starts a peer that accepts everything, and a transport to it whose every call ends in about `limit`, if the peer is silent.
    ///
    /// The transport is configured with the [`secrets`](Self::secrets). The suite's tests run side by side, each with a pair of its
    /// own.
    fn start(&self, limit: Duration) -> impl Future<Output = (Self::Transport, Self::Peer)> + Send;

    /// A transport, configured in the same way, to a place where nobody is.
    fn unreachable(&self) -> impl Future<Output = Self::Transport> + Send;

    /// What the transport is configured with that nobody may see: passwords, keys, tokens. At least one, unless it has none.
    fn secrets(&self) -> Vec<String>;

    /// A mail that the transport cannot express, as its [`check`](Transport::check) finds. `None` if it can express every mail: then
    /// stamp the suite with `without an_inexpressible_mail`, and say why.
    fn inexpressible(&self) -> Option<Email>;
}

/// What stands behind a transport under test. It is to be as careless as peers are: let its refusals repeat the addresses that it was
/// told, and the secrets.
pub trait ScriptedPeer: Send + Sync + 'static {
    /// Plans the answer to one more message. Messages are answered as planned, in the order of planning; those beyond are accepted.
    ///
    /// Where messages come side by side, or in one batch, only [`Accept`](Answer::Accept) and
    /// [`RefuseMessage`](Answer::RefuseMessage) are planned. In a batch, each message has its own answer.
    fn plan(&self, answer: Answer);

    /// Ends the silence of every [`Hang`](Answer::Hang) that was planned so far.
    fn release(&self);

    /// How many messages it has read to their end, whatever it answered.
    fn read(&self) -> usize;

    /// The messages that it accepted, oldest first.
    fn accepted(&self) -> Vec<Accepted>;
}

/// What a peer does with one message, in the words of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It accepts the message.
    Accept,
    /// It refuses this message, for good.
    RefuseMessage,
    /// It refuses this message, for now. A protocol that cannot say so is stamped `without a_message_that_is_put_off`, and refuses in
    /// any other way.
    Busy,
    /// It does not accept the credentials. Planned for the first message only, as they may be shown once for many messages.
    RefuseCredentials,
    /// It has been sent too much, and asks to wait so long. A protocol that has no way to say how long is stamped
    /// `without a_rate_limit`.
    RateLimit(Duration),
    /// It is out of order, says so, and has not taken the message.
    Unavailable,
    /// It closes the connection before it has read anything. Planned for the first message only, as a connection that is used again
    /// may be replaced without anybody noticing.
    CloseBeforeReading,
    /// It reads the whole message, and closes the connection.
    CloseAfterReading,
    /// It reads the whole message, and is silent until it is [released](ScriptedPeer::release). Then it accepts the message.
    Hang,
    /// It reads the whole message, and answers with something that the protocol does not have.
    Garbage,
}

/// A message that a peer accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// Whom it was for, as the peer was told, in any order.
    pub recipients: Vec<String>,
    /// The name that the peer gave it in its answer, where the protocol has such names.
    pub provider_id: Option<String>,
    /// The message as the peer read it, decoded as far as needed to find its subject, its text and its HTML, which are
    /// ASCII, in it.
    pub content: String,
}

impl Accepted {
    /// A message for these recipients.
    pub fn new(recipients: Vec<String>, provider_id: Option<String>, content: impl Into<String>) -> Self {
        Self { recipients, provider_id, content: content.into() }
    }
}

/// Stamps the whole suite on a transport: one `#[tokio::test]` for each function in [`testkit`](crate::testkit). The argument is an
/// expression that makes a [`TransportUnderTest`](crate::testkit::TransportUnderTest); an attribute before it, such as
/// `#[ignore = "needs a server"]`, goes on each test. Needs tokio's `macros` and `rt-multi-thread` features.
///
/// Three tests ask for what not every protocol has. Leave them out by name, with the reason:
///
/// ```text
/// transport_tests!(Smtp, without a_rate_limit = "SMTP cannot say how long to wait");
/// transport_tests!(
///     Api,
///     without a_message_that_is_put_off = "it has one word for all that is out of order",
///     without a_rate_limit = "the provider names no time",
///     without an_inexpressible_mail = "it takes the message as it is"
/// );
/// ```
#[macro_export]
macro_rules! transport_tests {
    ($(#[$attribute:meta])? $fixture:expr $(, without $name:ident = $reason:literal)* $(,)?) => {
        $crate::transport_tests! { @all [$(#[$attribute])?] $fixture }
        $crate::transport_tests! {
            @but [$(#[$attribute])?] $fixture;
            [a_message_that_is_put_off] [a_rate_limit] [an_inexpressible_mail];
            $($name)*
        }
    };
    (@but $attributes:tt $fixture:expr; $busy:tt $rate:tt $mail:tt; a_message_that_is_put_off $($rest:ident)*) => {
        $crate::transport_tests! { @but $attributes $fixture; [] $rate $mail; $($rest)* }
    };
    (@but $attributes:tt $fixture:expr; $busy:tt $rate:tt $mail:tt; a_rate_limit $($rest:ident)*) => {
        $crate::transport_tests! { @but $attributes $fixture; $busy [] $mail; $($rest)* }
    };
    (@but $attributes:tt $fixture:expr; $busy:tt $rate:tt $mail:tt; an_inexpressible_mail $($rest:ident)*) => {
        $crate::transport_tests! { @but $attributes $fixture; $busy $rate []; $($rest)* }
    };
    (@but $attributes:tt $fixture:expr; [$($busy:ident)?] [$($rate:ident)?] [$($mail:ident)?];) => {
        $crate::transport_tests! { @each $attributes $fixture; $($busy)? $($rate)? $($mail)? }
    };
    (@all $attributes:tt $fixture:expr) => {
        $crate::transport_tests! { @each $attributes $fixture;
            what_is_accepted_is_told_with_its_own_receipt
            messages_side_by_side_get_their_own_receipts
            exactly_those_are_addressed_whom_the_attempt_is_for
            every_attempt_sends_the_same
            a_batch_has_a_result_for_each
            a_message_that_is_refused
            credentials_that_are_refused
            a_peer_that_is_out_of_order
            a_connection_that_is_closed_at_once
            a_connection_that_is_closed_before_the_answer
            an_answer_that_does_not_come
            an_answer_that_makes_no_sense
            nobody_is_there
            a_dropped_call_lends_its_answer_to_no_other
            a_call_may_be_dropped_at_any_moment
            the_name_is_fit_to_be_shown
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

/// Far above what anything here takes, so that only a test that wants a time limit meets one.
const PATIENCE: Duration = Duration::from_secs(60);

/// For the tests that wait for a time limit, and long enough for everything that comes before it.
const IMPATIENCE: Duration = Duration::from_secs(2);
