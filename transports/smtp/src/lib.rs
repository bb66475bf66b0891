//! SMTP for [postrider](https://docs.rs/postrider).
//!
//! [`Smtp`] sends mail to one server: a relay or a provider's submission host. It keeps connections open, returns a result for
//! each recipient, classifies every reply, and says whether a failed message was certainly not sent or is in doubt.
//!
//! ```no_run
//! use postrider_smtp::Smtp;
//! use postrider_transport::{DeliveryId, Email, Outgoing, Transport};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let smtp = Smtp::from_url("smtp://ada:secret@smtp.example.com")?;
//! let email = Email::builder().from("ada@example.com").to("bob@example.org").subject("Hello").text("Hi!").build()?;
//! let receipt = smtp.send(&Outgoing::new(DeliveryId::new(), std::time::SystemTime::now(), email)).await?;
//! for refusal in &receipt.refused {
//!     println!("refused: {refusal:?}");
//! }
//! # Ok(()) }
//! ```
//!
//! # URLs
//! | URL | Encryption | Default port |
//! |---|---|---|
//! | `smtps://USER:PASSWORD@HOST` | from the first octet on | 465 |
//! | `smtp://USER:PASSWORD@HOST` | `STARTTLS`, required; opportunistic to this machine | 587 |
//! | `smtp://HOST` | the same | 25 |
//!
//! In the user name and the password, percent-encode every character except letters, digits, `-`, `.`, `_` and `~`. Parameters
//! follow a `?` and are separated by `&`:
//!
//! | Key | Value |
//! |---|---|
//! | `tls` | `required`, `opportunistic` or `none`; not with `smtps` |
//! | `pool` | the most connections at once; default 32 |
//! | `helo` | the name for `EHLO` |
//! | `ca` | the path of a PEM file with a root certificate to trust in addition to those of the platform |
//! | `auth` | `plain`, `login` or `xoauth2`; default: the first of PLAIN and LOGIN that the server offers |
//!
//! # Encryption
//! | [`Tls`] | If `STARTTLS` is not offered | Certificate | Credentials in cleartext |
//! |---|---|---|---|
//! | `Implicit` | (not needed) | verified | never |
//! | `Required` | nothing is sent | verified | never |
//! | `Opportunistic` | mail is sent in cleartext; with credentials, nothing is sent | verified with credentials or an extra root, else any | never |
//! | `None` | mail is sent in cleartext | (none) | **yes** |
//!
//! # What a reply means
//! A refusal is matched against ordered rules: first [your own](SmtpBuilder::rule), then some 120 rules of this crate, each with its
//! source (`src/rules/`). [`explain`] and `postrider explain` show the rule that decides.
//!
//! | In this order | Scope |
//! |---|---|
//! | the greeting, `EHLO`, `STARTTLS`, `AUTH`; 523, 534, 535 and 538 (RFC 4954) at any stage | transport |
//! | the codes and tags of Microsoft, Google, Yahoo, Amazon SES, NetEase and others | as they document them |
//! | words about one recipient: unknown, full, disabled, greylisted, receiving too much | message |
//! | words about SPF, DKIM, DMARC, the reputation of the sender's domain | sender |
//! | words about the content: its size, its format, a virus, a loop | message |
//! | words about the client: its address, a blocklist, its reverse DNS, its name, its connections | transport |
//! | words about the account: credentials, closed, its quota or rate | transport |
//! | words about the sender: not verified, not allowed, no such domain | sender |
//! | words of a filter, after the content was sent | message |
//! | words about the server: busy, failing, out of space | transport |
//! | the enhanced code (RFC 3463, the registry of RFC 5248) | as registered |
//! | the code: 421, 432, 454, 503 and 530; 452, 501, 550, 551 and 553 by their stage; any other to `MAIL FROM` | transport; message; sender |
//! | no rule matches | message, **unsure** |
//!
//! The class is that of the code, 4yz transient and 5yz permanent, unless the rule sets it: a quota with 550 is transient. A wait in
//! the reply, such as `Try again in 15 seconds`, becomes [`retry_after`](postrider_transport::Failure::retry_after), at most a day. An
//! enhanced code whose class contradicts the code is ignored (RFC 2034 section 4). Words in addresses, links and host names do not
//! count.
//!
//! | Other failures | Class | Scope |
//! |---|---|---|
//! | name not found, no connection, no TLS, no greeting, a time-out or a broken connection **before** the end of the message | transient | transport |
//! | the same **after** the end of the message (RFC 5321 section 4.5.2) was written | transient, **in doubt** | transport |
//! | input that is not an SMTP reply | as no reply: in doubt after the end of the message | transport |
//! | `STARTTLS` is required and not offered, no AUTH mechanism in common | permanent | transport |
//! | the message exceeds the server's `SIZE` (RFC 1870) | permanent; not sent | message |
//! | `SMTPUTF8` or `8BITMIME` is needed and not offered | permanent, [`Unsupported`](postrider_transport::Unsupported) | message |
//!
//! A reply to `RCPT TO`, except 421, concerns that recipient only. The message goes to the accepted recipients. If the server takes
//! no more of them (452, RFC 5321 section 4.5.3.1.10), the transport stops there. Each remaining recipient is a transient refusal
//! with the server's reply, and can be tried at once. If the server accepts no recipient, the failure is transient if one refusal
//! is, and [`Failure::refused`](postrider_transport::Failure::refused) has each refusal with its own class. A later failure lists
//! these refusals too, and counts for all recipients that it does not list.
//!
//! A failure in doubt has the scope of the transport, as in every transport. The message is charged all the same, because each
//! attempt may deliver another copy and only the budget limits the copies.
//!
//! # Connections
//! A call uses an idle connection, or opens one if there are fewer than [`max_connections`](SmtpBuilder::max_connections), or waits
//! for one. Until the server has accepted the credentials once, one connection tries them while the other calls wait, and they
//! share a refusal. Many messages therefore do not cause many failed logins.
//!
//! An idle connection is checked before it is used again, without a round trip: if it has ended or has input, it is closed. If it
//! ends while it is used again, before the server replies to anything, the call connects again, once. A connection with a
//! missing reply is closed, also when the future of the call is dropped. On every other connection, the client sends `QUIT` before
//! it closes it (RFC 5321 section 4.1.1.10), also when the last clone of a transport is dropped. [`Smtp::close`] waits for the
//! replies.
//!
//! If a server does not know `EHLO` (500, 502, 504), the client sends `HELO`. If a server refuses an AUTH mechanism that it offers
//! (504), the client tries the next one.
//!
//! With `PIPELINING` (RFC 2920) a message takes two round trips: one for the envelope with up to about a hundred recipients, and one
//! for the message with its end. Without it, each command takes one.
//!
//! # Features
//! | Feature | Adds |
//! |---|---|
//! | `dkim` | [`SmtpBuilder::dkim`](SmtpBuilder) and `Dkim`: signing (RFC 6376) |

mod auth;
mod builder;
mod capabilities;
mod config;
mod config_error;
mod connection;
mod connector;
mod error;
mod explain;
mod meaning;
mod pool;
mod prepared_message;
mod recipient_replies;
mod reply;
mod reply_parser;
mod rules;
mod send_error;
mod session;
mod smtp;
mod stage;
mod tls;
mod transaction;
mod url;

pub use builder::SmtpBuilder;
pub use config::{AuthMechanism, Credentials, Timeouts};
pub use config_error::SmtpConfigError;
pub use error::SmtpError;
pub use explain::{Explanation, NoRefusal, explain};
#[cfg(feature = "dkim")]
pub use postrider_transport::{Dkim, DkimError};
pub use rules::Rule;
pub use smtp::Smtp;
pub use stage::Stage;
pub use tls::Tls;
pub use url::{UrlError, UrlErrorKind};
