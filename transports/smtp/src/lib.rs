//! SMTP for [postrider](https://docs.rs/postrider).
//!
//! [`Smtp`] carries mail to one server, a relay or a provider's submission host, over connections that it keeps. It has a
//! result for each recipient, knows what every answer means, and tells "certainly not sent" from "nobody knows".
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
//!     println!("not taken: {refusal:?}");
//! }
//! # Ok(()) }
//! ```
//!
//! # URLs
//! | URL | Encryption | Port unless given |
//! |---|---|---|
//! | `smtps://USER:PASSWORD@HOST` | from the first octet on | 465 |
//! | `smtp://USER:PASSWORD@HOST` | `STARTTLS`, required; to this very machine, opportunistic | 587 |
//! | `smtp://HOST` | the same | 25 |
//!
//! In the user name and the password, every character that is not a letter, a digit, `-`, `.`, `_` or `~` is
//! percent-encoded. After a `?` there may be, parted by `&`:
//!
//! | Key | Value |
//! |---|---|
//! | `tls` | `required`, `opportunistic` or `none`; not with `smtps` |
//! | `pool` | how many connections there may be at once (32) |
//! | `helo` | the name for `EHLO` |
//! | `ca` | the path of a PEM file with a root certificate to trust beside those of the platform |
//! | `auth` | `plain`, `login` or `xoauth2`; else the first of PLAIN and LOGIN that the server offers |
//!
//! # Encryption
//! | [`Tls`] | `STARTTLS` is not offered | Certificate | Credentials in clear |
//! |---|---|---|---|
//! | `Implicit` | (not asked) | verified | never |
//! | `Required` | nothing is sent | verified | never |
//! | `Opportunistic` | sent in clear; with credentials, nothing is sent | verified with credentials or an extra root, else any | never |
//! | `None` | sent in clear | (none) | **yes** |
//!
//! # What an answer means
//! A refusal is held against ordered rules: first those of your own ([`SmtpBuilder::rule`]), then those of this crate, some 120 lines
//! in `src/rules/`, each with its source. [`explain`] and `postrider explain` say which one decides.
//!
//! | In this order | Scope |
//! |---|---|
//! | the greeting, `EHLO`, `STARTTLS`, `AUTH`; 523, 534, 535 and 538 (RFC 4954) at any stage | transport |
//! | the numbers and tags of Microsoft, Google, Yahoo, Amazon SES, NetEase and others | as they document them |
//! | words about one recipient: unknown, full, switched off, greylisted, too many at a time | message |
//! | words about SPF, DKIM, DMARC, the reputation of the sender's domain | sender |
//! | words about the content: its size, its form, a virus, a loop | message |
//! | words about the client: its address, a list it is on, its reverse DNS, its name, its connections | transport |
//! | words about the account: credentials, closed, its quota or rate | transport |
//! | words about the sender: not verified, may not be used, no such domain | sender |
//! | words of a filter, once the content has been sent | message |
//! | words about the server: busy, out of order, out of space | transport |
//! | the enhanced code (RFC 3463, the registry of RFC 5248) | as registered |
//! | the code: 421, 432, 454, 503 and 530; 452, 501, 550, 551 and 553 by their stage; any other to `MAIL FROM` | transport; message; sender |
//! | no rule knows it | message, **unsure** |
//!
//! The class is the code's, 4yz transient and 5yz permanent, unless a rule knows better: a quota under 550 is transient. `Try again in
//! 15 seconds` and its like become [`retry_after`](postrider_transport::Failure::retry_after), a day at most. An enhanced code whose
//! class contradicts the code proper is ignored (RFC 2034 section 4). Addresses, links, host names and IP addresses are taken out
//! before words are looked for.
//!
//! | What else can happen | Class | Scope |
//! |---|---|---|
//! | name not found, no connection, no TLS, no greeting, a time-out or a broken connection **before** the end of the message | transient | transport |
//! | the same **after** the end of the message (RFC 5321 section 4.5.2) went out | transient, **in doubt** | transport |
//! | what is no SMTP reply | as silence: by whether the end of the message went out | transport |
//! | no `STARTTLS` where it is required, no AUTH mechanism in common | permanent | transport |
//! | the message is larger than the server's `SIZE` (RFC 1870) | permanent; not sent | message |
//! | `SMTPUTF8` or `8BITMIME` is needed and not offered | permanent, [`Unsupported`](postrider_transport::Unsupported) | message |
//!
//! An answer to `RCPT TO` concerns that recipient, unless it is 421; the message goes out to those who were taken. Where the
//! server takes no more recipients (452, RFC 5321 section 4.5.3.1.10), nobody else is asked for: those who were taken get the message,
//! and the rest is refused for now with the server's words, to be sent to at once. When nobody was taken, the failure is transient
//! if one refusal is, and [`Failure::refused`](postrider_transport::Failure::refused) has each with its own class. What goes wrong
//! later leaves those refusals standing: the failure names them too, and speaks for whoever it does not name.
//!
//! A failure in doubt is the transport's condition, as in every transport, and the message is charged all the same: each attempt may
//! deliver one more copy, and the budget is what bounds them.
//!
//! # Connections
//! Until the server has accepted the credentials once, one connection tries them while the others wait, and a refusal is shared
//! by all that waited: many messages do not make many wrong passwords.
//!
//! A call takes a connection that waits, or opens one while there are fewer than
//! [`max_connections`](SmtpBuilder::max_connections), or waits for one. Before a connection is used again it is looked at, without
//! asking the server: if it has ended, or anything unasked came, it is closed. Should it end just as it is used again, before the
//! server answers anything, the call connects anew, once. A connection on which anything stayed unfinished is closed, also when
//! the call's future is dropped. Any other is told `QUIT` before it is closed (RFC 5321 section 4.1.1.10), also when the last clone
//! of a transport is dropped; [`Smtp::close`] waits for the answers.
//!
//! A server that does not know `EHLO` (500, 502, 504) is greeted by `HELO`. An AUTH mechanism that is offered and then not taken (504)
//! leaves the next one to be tried.
//!
//! With `PIPELINING` (RFC 2920) a message costs two round trips: one for the envelope, whatever the number of recipients up to
//! about a hundred, and one for the message with its end. Without it, each command costs one.
//!
//! # Features
//! | Feature | Adds |
//! |---|---|
//! | `dkim` | [`SmtpBuilder::dkim`](SmtpBuilder) and `Dkim`: signing (RFC 6376) |

mod auth;
mod builder;
mod classify;
mod config;
mod dialogue;
mod error;
mod explain;
mod inbound;
mod job;
mod login;
mod pool;
mod reply;
mod rules;
mod session;
mod smtp;
mod stream;
mod tls;
mod url;

pub use builder::SmtpBuilder;
pub use config::{AuthMechanism, Credentials, SmtpConfigError, Timeouts};
pub use error::{SmtpError, Stage};
pub use explain::{Explanation, NoRefusal, explain};
#[cfg(feature = "dkim")]
pub use postrider_transport::{Dkim, DkimError};
pub use rules::Rule;
pub use smtp::Smtp;
pub use tls::Tls;
pub use url::{UrlError, UrlErrorKind};
