//! HTTP APIs of mail providers for [postrider](https://docs.rs/postrider).
//!
//! [`Http`] sends mail through the API of one provider. Each provider is a type with its key and settings, behind a feature of its name.
//!
//! ```no_run
//! # #[cfg(feature = "sendgrid")]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use postrider_http::{Http, SendGrid};
//! use postrider_transport::{DeliveryId, Email, Outgoing, Transport};
//!
//! let sendgrid = Http::new(SendGrid::new("SG.key")?)?;
//! let email = Email::builder().from("ada@example.com").to("bob@example.org").subject("Hello").text("Hi!").build()?;
//! let receipt = sendgrid.send(&Outgoing::new(DeliveryId::new(), std::time::SystemTime::now(), email)).await?;
//! println!("{:?}", receipt.provider_id);
//! # Ok(()) }
//! ```
//!
//! # Providers
//! | Feature | Provider | URL |
//! |---|---|---|
//! | `brevo` | `Brevo` | `brevo://KEY@default` |
//! | `mailgun` | `Mailgun` | `mailgun://KEY@default?domain=mg.example.com&region=eu` |
//! | `mailersend` | `MailerSend` | `mailersend://KEY@default` |
//! | `mailjet` | `Mailjet` | `mailjet://KEY:SECRET@default?region=us&sandbox=true` |
//! | `mailtrap` | `Mailtrap` | `mailtrap://KEY@default?stream=bulk` |
//! | `postmark` | `Postmark` | `postmark://TOKEN@default?stream=outbound` |
//! | `resend` | `Resend` | `resend://KEY@default?batches=false` |
//! | `sendgrid` | `SendGrid` | `sendgrid://KEY@default?region=eu` |
//! | `sparkpost` | `SparkPost` | `sparkpost://KEY@default?region=eu` |
//!
//! # URLs
//! A provider's URL is `NAME://KEY@default`, with settings after a `?`. In a key, percent-encode every character that is not a letter, a
//! digit, `-`, `.`, `_` or `~`. To use another server, replace `default` with its host. The transport then uses `https`, or `http` for a
//! loopback host.
//!
//! # Proxies
//! Requests go through the proxy in the environment variables `HTTPS_PROXY` or `ALL_PROXY`, except to the hosts in `NO_PROXY`. The proxy
//! sees only the provider's host name. Requests to an `http` base URL never use a proxy.
//!
//! # Failures
//! | [`HttpErrorKind`] | Class | Scope | In doubt |
//! |---|---|---|---|
//! | `Message`, `Recipient` | permanent | message | no |
//! | `ServerError` | transient | message | no |
//! | `Sender` | permanent | sender | no |
//! | `Account` | permanent | transport | no |
//! | `Quota`, `RateLimit`, `Unavailable` | transient | transport | no |
//! | `NoResponse` | transient | transport | **yes** |
//!
//! A response in the provider's format is classified by the provider's documentation; each provider's type has the table. A refusal in this
//! format that is not documented counts as a failure of the message, and is [not sure](postrider_transport::Failure::is_sure). Any other
//! response is classified by its status ([`Response::status_error`]), so a proxy's error page is no permanent failure of a message.
//!
//! `NoResponse` means that the connection took the whole request, and that no valid response came back: none at all, an unreadable one, or
//! one from a gateway or an unknown server (500, 502, 504). A request that fails before that point was not sent.
//!
//! # Unsupported mail
//! No part of a mail is dropped. What an API cannot express is an [`Unsupported`](postrider_transport::Unsupported) error when the mail is
//! enqueued. No API here accepts an envelope sender, unless the provider's type says so.
//!
//! # Batches
//! If a provider has a batch call, the transport groups messages into batches within the provider's limits. Each message has its own
//! result. Messages that do not fit into a batch are sent in single requests, up to eight at once. When the provider limits the rate, is
//! unavailable or does not respond, the remaining messages are not sent.

mod batch;
mod client;
mod config;
#[allow(dead_code, reason = "its use depends on the enabled providers")]
mod encoded_word;
mod error;
mod error_kind;
mod fields;
mod form;
mod provider;
mod response;
mod secret;
mod status;
mod tracked_body;
mod transport;
mod url;

pub use config::{HttpBuilder, HttpConfigError, Timeouts};
pub use error::HttpError;
pub use error_kind::HttpErrorKind;
pub use fields::Fields;
pub use form::Form;
#[cfg(feature = "brevo")]
pub use provider::Brevo;
#[cfg(feature = "mailersend")]
pub use provider::MailerSend;
#[cfg(feature = "mailgun")]
pub use provider::Mailgun;
#[cfg(feature = "mailjet")]
pub use provider::Mailjet;
#[cfg(feature = "mailtrap")]
pub use provider::Mailtrap;
#[cfg(feature = "postmark")]
pub use provider::Postmark;
#[cfg(feature = "resend")]
pub use provider::Resend;
#[cfg(feature = "sendgrid")]
pub use provider::SendGrid;
#[cfg(feature = "sparkpost")]
pub use provider::SparkPost;
pub use provider::{BatchLimits, BatchOutcome, Provider, Request};
pub use response::Response;
pub use secret::Secret;
pub use transport::Http;
pub use url::ProviderUrl;
