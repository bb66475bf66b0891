//! What carries mail for [postrider](https://docs.rs/postrider), and what it says when it could not.
//!
//! The whole idea is one signature:
//!
//! ```text
//! async fn send(&self, outgoing: &Outgoing<Message>) -> Result<Receipt, Failure>
//! ```
//!
//! A [`Transport`] makes one attempt and tells the truth about it. A [`Receipt`] says that the next hop took the message,
//! and which recipients it did not take. A [`Failure`] says what follows, through the trait [`Classify`] that a transport's own
//! error type implements:
//!
//! | Question | Asked by | Answers |
//! |---|---|---|
//! | Can trying again help? | [`Class`] | `Permanent`, `Transient` |
//! | Whose condition is it? | [`Scope`] | `Message`, `Sender`, `Transport` |
//! | May it have gone out all the same? | [`Failure::in_doubt`] | yes, no |
//! | Does a rule stand behind that? | [`Failure::is_sure`] | yes, no |
//! | Is it only that this transport cannot express it? | [`Failure::is_unsupported`] | yes, no |
//!
//! Transports are made of transports: [`Failover`] asks the next one, [`RoundRobin`] divides, `RateLimit` and `Timeout` keep
//! limits, [`Redirect`] keeps staging systems from mailing people, [`Tap`] looks on. All are generic, nest as you like, and
//! fit into a [`BoxTransport`].
//!
//! This crate has no runtime, no database and no network: a crate with a transport of your own needs this one and no other
//! of postrider's.
//!
//! # Features
//! | Feature | Adds |
//! |---|---|
//! | `mime` | `Mime`: an [`Email`] as the bytes of an RFC 5322 message |
//! | `dkim` | signing of those bytes (RFC 6376) |
//! | `timeout` | `Timeout`, by tokio's clock |
//! | `rate-limit` | `RateLimit`, by tokio's clock |
//! | `url` | `TransportUrl`: a transport's configuration in one line |
//! | `testkit` | the conformance suite for transports of your own |

mod address;
mod backoff;
mod boxed;
mod breaker;
mod combinators;
mod email;
mod failure;
mod mailbox;
mod mask;
mod message;
#[cfg(feature = "mime")]
mod mime;
mod outgoing;
mod pattern;
mod receipt;
#[cfg(feature = "testkit")]
pub mod testkit;
mod transport;
#[cfg(feature = "url")]
mod url;

pub use address::{Address, AddressError};
pub use backoff::Backoff;
pub use boxed::BoxTransport;
pub use breaker::{Admission, Admit, Breaker, BreakerState, CallTime, Change, Probe};
#[cfg(feature = "rate-limit")]
pub use combinators::RateLimit;
pub use combinators::{AllFailed, Failover, Redirect, RoundRobin, Tap};
#[cfg(feature = "timeout")]
pub use combinators::{TimedOut, Timeout};
pub use email::{Attachment, Email, EmailBuilder, EmailError, Header, ListUnsubscribe, ReversePath};
pub use failure::{Class, Classify, Failure, Scope, Unsupported};
pub use mailbox::{IntoMailbox, Mailbox};
pub use mask::mask_addresses;
pub use message::{CodecError, Encoded, Message};
#[cfg(feature = "dkim")]
pub use mime::{Dkim, DkimError};
#[cfg(feature = "mime")]
pub use mime::{Mime, MimeError};
pub use outgoing::{DeliveryId, Outgoing, Waiting};
pub use pattern::pattern;
pub use receipt::{Receipt, Recipient, Refusal};
pub use transport::Transport;
#[cfg(feature = "url")]
pub use url::{TransportUrl, UrlError, UrlErrorKind};
