//! The transports against a server that does as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod peer;
mod support;

#[cfg(feature = "postmark")]
mod postmark;
#[cfg(feature = "resend")]
mod resend;
mod sendgrid;
