//! Tests of the transports against a scripted server.

#![cfg(any(
    feature = "brevo",
    feature = "mailersend",
    feature = "mailgun",
    feature = "mailjet",
    feature = "mailtrap",
    feature = "postmark",
    feature = "resend",
    feature = "sendgrid",
    feature = "sparkpost"
))]
#![cfg_attr(
    not(all(feature = "mailersend", feature = "postmark", feature = "sendgrid", feature = "sparkpost")),
    allow(dead_code, reason = "no single provider uses all helpers")
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod accepted;
mod conformance;
mod custom;
mod faults;
#[cfg(any(feature = "mailjet", feature = "mailtrap", feature = "postmark"))]
mod limits;
mod mails;
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
#[cfg(feature = "sendgrid")]
mod sendgrid;
#[cfg(feature = "sparkpost")]
mod sparkpost;
