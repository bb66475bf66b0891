//! Mails read by parsers, and signatures verified by verifiers, that others wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod authenticator;
mod dkim;
mod mails;
mod message_parts;
mod python;
mod readers;
