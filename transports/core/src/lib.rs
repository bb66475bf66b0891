//! The contract between [postrider](https://docs.rs/postrider) and the transports that carry its mail.
//!
//! A transport is one method:
//!
//! ```text
//! async fn send(&self, outgoing: &Outgoing<Message>) -> Result<Receipt, Failure>
//! ```
//!
//! Each call makes one attempt. The transport reports what happened, and the relay decides when to try again.
//!
//! - [`Outgoing`] holds the message, the id of its delivery, and the recipients of this attempt.
//! - [`Receipt`]: the next hop accepted the message for at least one recipient.
//! - [`Failure`]: the next hop accepted it for nobody, or the outcome is unknown.
//!
//! # The shortest transport
//!
//! ```
//! use std::io::Write;
//! use postrider_transport::{Email, Failure, Outgoing, Receipt, Scope, Transport};
//!
//! struct Printer;
//!
//! impl Transport for Printer {
//!     type Message = Email;
//!
//!     fn name(&self) -> &str { "printer" }
//!
//!     async fn send(&self, mail: &Outgoing<Email>) -> Result<Receipt, Failure> {
//!         writeln!(std::io::stdout(), "{} has {} recipients", mail.id(), mail.recipients().len())
//!             .map_err(|error| Failure::transient(Scope::Transport, error))?;
//!         Ok(Receipt::new())
//!     }
//! }
//! ```
//!
//! Depend on this crate alone. It has no runtime, no database and no network.
//!
//! # What a failure answers
//!
//! A wrong answer loses mail, sends it twice, or stops mail that could go out. The first three have no default.
//!
//! | Question | Answer | Constructor |
//! |---|---|---|
//! | Can a retry succeed? | [`Class`]: `Permanent`, `Transient` | [`Failure::permanent`], [`Failure::transient`] |
//! | What does the failure affect? | [`Scope`]: `Message`, `Sender`, `Transport` | the first argument of both |
//! | May the message have been accepted? | [`Failure::in_doubt`] | [`Failure::maybe_accepted`] |
//! | Is the answer a guess? | [`Failure::is_sure`] | [`Failure::unsure`] |
//! | How long does the next hop ask to wait? | [`Failure::retry_after`] | [`Failure::with_retry_after`] |
//! | Can another transport carry the message? | [`Failure::is_unsupported`] | [`Unsupported`] |
//!
//! A transport with an error type of its own implements [`Classify`] for it. The error then converts into a [`Failure`] with `?`.
//!
//! # Combine transports
//!
//! | Transport | Use |
//! |---|---|
//! | [`Failover`] | tries the next transport when one cannot send |
//! | [`RoundRobin`] | distributes messages by weight |
//! | `RateLimit` | limits the messages per period |
//! | `Timeout` | limits the time of a call |
//! | [`Redirect`] | sends all mail to one address, for staging systems |
//! | [`Tap`] | calls a function with each message and its result |
//! | [`BoxTransport`] | erases the type of a transport that is chosen at run time |
//!
//! They nest in any order.
//!
//! # Test a transport
//!
//! The feature `testkit` has a conformance suite. It runs a transport against a scripted peer and checks every answer above, the
//! recipients, batches, dropped calls, and that no secret is shown.
//!
//! # Features
//!
//! All are off by default.
//!
//! | Feature | Adds |
//! |---|---|
//! | `mime` | `Mime`: renders an [`Email`] as an RFC 5322 message |
//! | `dkim` | `Dkim`: signs that message (RFC 6376) |
//! | `timeout` | `Timeout`; needs a tokio runtime with time |
//! | `rate-limit` | `RateLimit`; needs a tokio runtime with time |
//! | `url` | `TransportUrl`: parses the URL that configures a transport |
//! | `testkit` | the conformance suite |

mod address;
mod backoff;
mod blob;
mod boxed;
mod breaker;
mod classify;
mod combinators;
mod delivery_id;
mod email;
mod failure;
mod mailbox;
mod mask_addresses;
mod message;
#[cfg(feature = "mime")]
mod mime;
mod outgoing;
mod pattern;
mod receipt;
mod recipient;
#[cfg(feature = "testkit")]
pub mod testkit;
mod trace_parent;
mod transport;
#[cfg(feature = "url")]
mod url;

// Send.
pub use boxed::BoxTransport;
pub use classify::{Class, Classify, Scope, Unsupported};
pub use delivery_id::DeliveryId;
pub use failure::Failure;
pub use outgoing::{Outgoing, Waiting};
pub use receipt::{Receipt, Refusal};
pub use recipient::Recipient;
pub use trace_parent::{TraceParent, TraceParentError};
pub use transport::Transport;

// The message.
pub use address::{Address, AddressError};
pub use blob::{Blob, BlobHash, ParseBlobHashError};
pub use email::{Attachment, Email, EmailBuilder, EmailError, Header, ListUnsubscribe, ReversePath};
pub use mailbox::{IntoMailbox, Mailbox};
pub use message::{CodecError, Encoded, Message, MessageSummary};
#[cfg(feature = "dkim")]
pub use mime::{Dkim, DkimError};
#[cfg(feature = "mime")]
pub use mime::{Mime, MimeError};

// Combine transports.
#[cfg(feature = "rate-limit")]
pub use combinators::RateLimit;
pub use combinators::{AllFailed, Failover, Redirect, RoundRobin, Tap};
#[cfg(feature = "timeout")]
pub use combinators::{TimedOut, Timeout};

// Helpers for an author of a transport.
pub use backoff::Backoff;
pub use breaker::{Admission, Admit, Breaker, BreakerState, CallTime, Change, Probe};
pub use mask_addresses::mask_addresses;
pub use pattern::pattern;
#[cfg(feature = "url")]
pub use url::{TransportUrl, UrlError, UrlErrorKind};
