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
//! | Answer | Class | Scope |
//! |---|---|---|
//! | name not found, no connection, no TLS, no greeting, a time-out or a broken connection **before** the end of the message | transient | transport |
//! | the same **after** the end of the message (RFC 5321 section 4.5.2) went out | transient, **in doubt** | message |
//! | what is no SMTP reply | as silence: by whether the end of the message went out | |
//! | 421 at any stage (RFC 5321 section 3.8) | transient; the connection is closed | transport |
//! | 432, 454 (RFC 4954, RFC 3207; Amazon SES's sending rate) | transient | transport |
//! | 530, 534, 535, 538 (RFC 4954 section 6) at any stage, any 5yz to `EHLO`, `STARTTLS` or `AUTH` | permanent | transport |
//! | no `STARTTLS` where it is required, no AUTH mechanism in common | permanent | transport |
//! | any negative greeting | transient | transport |
//! | 503: out of step | transient; the connection is closed | message |
//! | 452, and 552 to a recipient: too many (RFC 5321 section 4.5.3.1.10) | transient, this recipient | message |
//! | 552 5.2.2 mailbox full, 552 5.2.3 and 5.3.4 too large | permanent | message |
//! | 554 5.2.121 and 5.2.122 (Microsoft), 550 5.2.1 unless it says the mailbox is disabled (Google): rates | transient | message |
//! | any other 4yz | transient | message |
//! | any other 5yz, also to `MAIL FROM` | permanent | message |
//! | the message is larger than the server's `SIZE` (RFC 1870) | permanent; not sent | message |
//! | `SMTPUTF8` or `8BITMIME` is needed and not offered | permanent, [`Unsupported`](postrider_transport::Unsupported) | message |
//!
//! An enhanced code (RFC 3463) whose class contradicts the code proper is ignored. An answer to `RCPT TO` concerns that
//! recipient, unless it is 421; the message goes out to those who were taken. When nobody was, the failure is transient if
//! one refusal is, and [`Failure::refused`](postrider_transport::Failure::refused) has each with its own class. What
//! goes wrong later leaves those refusals standing: the failure names them too, and speaks for whoever it does not name.
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
//! the call's future is dropped.
//!
//! With `PIPELINING` (RFC 2920) a message costs two round trips: one for the envelope, whatever the number of recipients up to
//! about a hundred, and one for the message with its end. Without it, each command costs one.
//!
//! # Features
//! | Feature | Adds |
//! |---|---|
//! | `dkim` | [`SmtpBuilder::dkim`](SmtpBuilder): signing (RFC 6376) |

mod auth;
mod builder;
mod classify;
mod config;
mod dialogue;
mod error;
mod job;
mod login;
mod pool;
mod reply;
mod session;
mod smtp;
mod stream;
mod tls;
mod url;

pub use builder::SmtpBuilder;
pub use config::{AuthMechanism, Credentials, SmtpConfigError, Timeouts};
pub use error::{SmtpError, Stage};
pub use smtp::Smtp;
pub use tls::Tls;
pub use url::UrlError;
