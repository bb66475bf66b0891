//! Amazon SES for [postrider](https://docs.rs/postrider).
//!
//! [`Ses`] carries mail by the version 2 API: one `SendEmail` request for each attempt, never more, with the very bytes that
//! SMTP would send. It knows what every answer means, and tells "certainly not sent" from "nobody knows".
//!
//! ```no_run
//! use postrider_ses::Ses;
//! use postrider_transport::{DeliveryId, Email, Outgoing, Transport};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let ses = Ses::from_url("ses://default?region=eu-west-1").await?;
//! let email = Email::builder().from("ada@example.com").to("bob@example.org").subject("Hello").text("Hi!").build()?;
//! let receipt = ses.send(&Outgoing::new(DeliveryId::new(), std::time::SystemTime::now(), email)).await?;
//! println!("SES calls it {:?}", receipt.provider_id);
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `ses://default` takes the credentials from where AWS's own tools take them: the environment's variables, the files in
//! `~/.aws`, or the role of the machine. `ses://ACCESS_KEY:SECRET@default` names them. In the secret, every character that is
//! not a letter, a digit, `-`, `.`, `_` or `~` is percent-encoded. After a `?` there may be, parted by `&`:
//!
//! | Key | Value |
//! |---|---|
//! | `region` | such as `eu-west-1`; else the environment's |
//! | `configuration_set` | the configuration set that every mail goes by |
//! | `feedback_address` | where bounces and complaints are reported |
//! | `endpoint` | another server to send requests to: an `https` or `http` URL, percent-encoded |
//! | `session_token` | the third part of temporary credentials |
//!
//! # What a mail becomes
//! The message travels whole and as it is (`Content.Raw`): attachments, inline parts, several reply-to addresses and every
//! header. `Destination` has exactly the recipients of the attempt, so that `bcc` stays hidden and a retry goes to those who
//! still want it. SES replaces Message-ID and Date with its own (developer guide, header fields), so that a receiver cannot tell
//! a second copy by its Message-ID, as it can with SMTP.
//!
//! | Of the mail | In the request |
//! |---|---|
//! | metadata | `EmailTags`, and the header `X-Metadata-KEY` |
//! | tags | `EmailTags` named `tag`, `tag-2`, `tag-3` and so on, and the header `X-Tag` |
//! | `envelope_from`; else [`feedback_address`](SesBuilder::feedback_address); else `sender` | `FeedbackForwardingEmailAddress` |
//!
//! The envelope's sender itself is SES's own, or that of the custom MAIL FROM domain that is set up there.
//!
//! # What SES does not take
//! [`check`](postrider_transport::Transport::check) refuses as
//! [`Unsupported`](postrider_transport::Unsupported): more than 50 recipients; more than 40 MB, attachments encoded; addresses
//! whose local part is outside ASCII (RFC 6531); a null reverse-path; a tag, or a value of metadata, that is not 1 to 256 ASCII
//! letters, digits, `_` and `-`; metadata named as a tag would be; a header twice that SES wants once.
//!
//! # What an answer means
//! | Answer | Class | Scope |
//! |---|---|---|
//! | no credentials, no connection, a time-out or a broken connection **before** the whole request was handed to the connection | transient | transport |
//! | the same **after** it, or an answer that breaks off | transient, **in doubt** | transport |
//! | 200 with neither a `MessageId` nor an id of the request, or what is not JSON | transient, **in doubt** | transport |
//! | `AccountSuspended`, `SendingPaused`, `NotFound` (the configuration set) | permanent | transport |
//! | credentials: `AccessDenied`, `ExpiredToken`, `InvalidClientTokenId`, `SignatureDoesNotMatch` and the like | permanent | transport |
//! | `Throttling`, `TooManyRequests`, `LimitExceeded`: too fast | transient, after 2 s | transport |
//! | the same, when the message speaks of a daily quota | transient, after 1 h | transport |
//! | `MailFromDomainNotVerified`; `MessageRejected`, "Email address is not verified" | permanent | sender |
//! | the same, where only recipients are named (in the sandbox they must be verified as well) | transient | message |
//! | `MessageRejected`, "Sending suspended for this account" | permanent | transport |
//! | `MessageRejected` otherwise, `BadRequest`, `Validation`, `InvalidParameterValue` | permanent | message |
//! | `InternalFailure` | transient | message |
//! | `ServiceUnavailable`, `RequestTimeout` | transient | transport |
//! | another name of an error | by its status: 401 and 403, 429, 503 as above; other 4xx permanent and **not sure**, else transient | message |
//!
//! Names are written here without `Exception`, which most end with. A `Retry-After` in the answer goes before these waits. The
//! names and texts are those of the API reference (SendEmail, common errors) and of the developer guide (errors related to the
//! sending quotas, error messages). An unverified address concerns that sender, or in the sandbox that recipient, and not the
//! others.
//!
//! An answer that bears no name of an error need not be from SES:
//!
//! | Status | Class | Scope |
//! |---|---|---|
//! | 500, 502, 504 and other 5xx: a proxy failed, or did not get or not understand the answer | transient, **in doubt** | transport |
//! | 503, 408, 425 | transient | transport |
//! | 429 | transient, after 2 s | transport |
//! | 413 | permanent | message |
//! | 401, 403, 407 | permanent | transport |
//! | 501, 505, and any other 3xx and 4xx: whoever this is, it is not SES | permanent, **not sure** | transport |
//!
//! # Logs
//! Nothing here writes a mail or a secret to a log. The SDK does, at the level `TRACE`: leave its targets, `aws_*`, above it.
//!
//! # Features
//! | Feature | Adds |
//! |---|---|
//! | `dkim` | [`SesBuilder::dkim`](SesBuilder) and `Dkim`: signing (RFC 6376) |

mod builder;
mod classify;
mod config;
mod error;
mod request;
mod ses;
mod url;
mod wire;

pub use aws_config::SdkConfig;
pub use builder::SesBuilder;
pub use config::{SesConfigError, Timeouts};
pub use error::{SesError, Stage};
#[cfg(feature = "dkim")]
pub use postrider_transport::{Dkim, DkimError};
pub use ses::Ses;
pub use url::{UrlError, UrlErrorKind};
