//! Amazon SES for [postrider](https://docs.rs/postrider).
//!
//! [`Ses`] sends mail through the SES API v2. Each attempt is one `SendEmail` request without retries, with the same bytes that SMTP would
//! send. Failures tell whether the message was not sent or is in doubt.
//!
//! ```no_run
//! use postrider_ses::Ses;
//! use postrider_transport::{DeliveryId, Email, Outgoing, Transport};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let ses = Ses::from_url("ses://default?region=eu-west-1").await?;
//! let email = Email::builder().from("ada@example.com").to("bob@example.org").subject("Hello").text("Hi!").build()?;
//! let receipt = ses.send(&Outgoing::new(DeliveryId::new(), std::time::SystemTime::now(), email)).await?;
//! println!("SES message id: {:?}", receipt.provider_id);
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `ses://default` uses the credentials that the AWS tools use: environment variables, the files in `~/.aws`, or the role of the machine.
//! `ses://ACCESS_KEY:SECRET@default` sets them. In the secret, percent-encode every character that is not a letter, a digit, `-`, `.`, `_`
//! or `~`. These keys may follow a `?`, separated by `&`:
//!
//! | Key | Value |
//! |---|---|
//! | `region` | such as `eu-west-1`; default: the environment's |
//! | `configuration_set` | the configuration set for every mail |
//! | `feedback_address` | the address for bounces and complaints |
//! | `endpoint` | another server for the requests: an `https` or `http` URL, percent-encoded |
//! | `session_token` | the third part of temporary credentials |
//!
//! # Requests
//! The request has the whole MIME message (`Content.Raw`), with attachments, inline parts, several reply-to addresses and every header.
//! `Destination` has exactly the recipients of the attempt, so `bcc` stays hidden, and a retry goes only to the remaining recipients. SES
//! replaces Message-ID and Date (developer guide, header fields). A receiver can therefore not recognize a duplicate by its Message-ID.
//!
//! | Part of the mail | In the request |
//! |---|---|
//! | metadata | `EmailTags`, and the header `X-Metadata-KEY` |
//! | tags | `EmailTags` named `tag`, `tag-2`, `tag-3` and so on, and the header `X-Tag` |
//! | `envelope_from`; else [`feedback_address`](SesBuilder::feedback_address); else `sender` | `FeedbackForwardingEmailAddress` |
//!
//! SES sets the envelope sender, to its own address or to one of the custom MAIL FROM domain.
//!
//! # Unsupported mail
//! [`check`](postrider_transport::Transport::check) returns [`Unsupported`](postrider_transport::Unsupported) for: more than 50 recipients;
//! more than 40 MB with attachments encoded; addresses with a local part outside ASCII (RFC 6531); a null reverse-path; a tag or a metadata
//! value that is not 1 to 256 ASCII letters, digits, `_` and `-`; a metadata key with the name of a tag; a repeated header that SES accepts
//! only once.
//!
//! # Failures
//! | Response | Class | Scope |
//! |---|---|---|
//! | no credentials, no connection, a timeout or a broken connection **before** the connection took the whole request | transient | transport |
//! | the same **after** that, or an incomplete response | transient, **in doubt** | transport |
//! | 200 without `MessageId` and request id, or not in JSON | transient, **in doubt** | transport |
//! | `AccountSuspended`, `SendingPaused`, `NotFound` (the configuration set) | permanent | transport |
//! | credentials: `AccessDenied`, `ExpiredToken`, `InvalidClientTokenId`, `SignatureDoesNotMatch` and similar | permanent | transport |
//! | `Throttling`, `TooManyRequests`, `LimitExceeded` and similar | transient, after 2 s | transport |
//! | the same, if the message mentions a daily quota | transient, after 1 h | transport |
//! | `MailFromDomainNotVerified`; `MessageRejected`, "Email address is not verified" | permanent | sender |
//! | the same, if it names only recipients (which must be verified too in the sandbox) | transient | message |
//! | `MessageRejected`, "Sending suspended for this account" | permanent | transport |
//! | other `MessageRejected`, `BadRequest`, `Validation`, `InvalidParameterValue` and similar | permanent | message |
//! | `InternalFailure` and similar | transient | message |
//! | `ServiceUnavailable`, `RequestTimeout`, `RequestAborted` | transient | transport |
//! | another error code | by status: 401 and 403, 429, 503 as above; other 4xx permanent and **not sure**, else transient | as above; else message |
//!
//! The table omits the suffix `Exception` of most error codes. A `Retry-After` in the response overrides these waits. The codes and texts
//! are those of the API reference (SendEmail, common errors) and of the developer guide (errors related to the sending quotas, error
//! messages). An unverified address concerns only that sender, or in the sandbox that recipient.
//!
//! A response without an error code may come from a proxy:
//!
//! | Status | Class | Scope |
//! |---|---|---|
//! | 500, 502, 504 and other 5xx: a proxy failed, or got no valid response | transient, **in doubt** | transport |
//! | 503, 408, 425 | transient | transport |
//! | 429 | transient, after 2 s | transport |
//! | 413 | permanent | message |
//! | 401, 403, 407 | permanent | transport |
//! | 501, 505, and any other 3xx and 4xx: the response is not from SES | permanent, **not sure** | transport |
//!
//! # Logs
//! This crate logs neither mails nor secrets. The AWS SDK does at level `TRACE`, so keep its targets, `aws_*`, above that level.
//!
//! # Features
//! | Feature | Adds |
//! |---|---|
//! | `dkim` | [`SesBuilder::dkim`](SesBuilder) and `Dkim`: signing (RFC 6376) |

mod builder;
mod classify;
mod config;
mod error;
mod interceptor;
mod request;
mod response;
mod ses;
mod url;

pub use aws_config::SdkConfig;
pub use builder::SesBuilder;
pub use config::{SesConfigError, Timeouts};
pub use error::{SesError, Stage};
#[cfg(feature = "dkim")]
pub use postrider_transport::{Dkim, DkimError};
pub use ses::Ses;
pub use url::{UrlError, UrlErrorKind};
