//! Mail providers' HTTP APIs for [postrider](https://docs.rs/postrider).
//!
//! [`Http`] carries mail by one provider's API. The provider is a value with its key and its own settings; each is behind a feature of
//! its name.
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
//! A provider's URL is `NAME://KEY@default`, with settings after a `?`. In a key, every character that is not a letter, a digit, `-`, `.`, `_` or
//! `~` is percent-encoded. Another host in place of `default` is where the API is instead, over `https`, or over `http` on this very
//! machine.
//!
//! # Proxies
//! Requests go through the proxy that the environment names in `HTTPS_PROXY` or `ALL_PROXY`, save for the hosts in `NO_PROXY`; it is shown the
//! provider's host and nothing else. Requests to an `http://` base go through none.
//!
//! # What an answer means
//! | [`HttpErrorKind`] | Class | Scope | In doubt |
//! |---|---|---|---|
//! | `Message`, `Recipient` | permanent | message | no |
//! | `Busy` | transient | message | no |
//! | `Sender` | permanent | sender | no |
//! | `Account` | permanent | transport | no |
//! | `Quota`, `Rate`, `Unavailable` | transient | transport | no |
//! | `NoAnswer` | transient | transport | **yes** |
//!
//! What a provider says in its own documented form is read as its documentation says; the table stands in the provider's manual. A refusal in
//! that form which the documentation does not have is the message's own as far as anybody can tell, and the failure says that it is
//! [not sure](postrider_transport::Failure::is_sure). For anything else, see [`Answer::refusal`]: a proxy's page never condemns a message.
//!
//! No answer means that the whole request was handed to the connection, and that no answer came, or none that could be read, or that a
//! gateway or nobody known answered in the provider's place (500, 502, 504). Before that point the message is certainly not sent.
//!
//! # What is not expressed
//! Nothing is dropped silently. What an API has no word for is an [`Unsupported`](postrider_transport::Unsupported), at enqueue time already. No
//! API here takes an envelope sender of its own, unless its manual says so.
//!
//! # Batches
//! Where a provider has a batch call, a relay fills it from what it has claimed, within the provider's limits. Each message has a result of its
//! own. Messages that cannot go into a batch are asked for eight at once. When the provider is too fast asked, out of reach or silent, what
//! it was not asked for yet comes back as not sent.

mod answer;
mod config;
#[allow(dead_code, reason = "which of it is used depends on the providers that are built")]
mod encoded;
mod error;
mod exchange;
mod fields;
mod form;
mod provider;
mod secret;
mod transport;
mod url;

pub use answer::Answer;
pub use config::{HttpBuilder, HttpConfigError, Timeouts};
pub use error::{HttpError, HttpErrorKind};
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
pub use secret::Secret;
pub use transport::Http;
pub use url::ProviderUrl;
