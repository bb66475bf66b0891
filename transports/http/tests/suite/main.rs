//! The transports against a server that does as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod peer;
mod support;

#[cfg(feature = "brevo")]
mod brevo;
#[cfg(feature = "mailersend")]
mod mailersend;
#[cfg(feature = "mailgun")]
mod mailgun;
#[cfg(feature = "mailjet")]
mod mailjet;
#[cfg(feature = "mailtrap")]
mod mailtrap;
#[cfg(feature = "postmark")]
mod postmark;
#[cfg(feature = "resend")]
mod resend;
mod sendgrid;
#[cfg(feature = "sparkpost")]
mod sparkpost;
