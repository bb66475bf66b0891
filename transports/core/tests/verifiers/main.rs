//! Independent parsers read the mails, and independent verifiers check the signatures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod authenticator;
mod dkim;
mod mails;
mod message_parts;
mod python;
mod readers;
