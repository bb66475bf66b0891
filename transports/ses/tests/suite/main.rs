//! The transport against a server that does whatever a test wants of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod cancel;
mod conformance;
#[cfg(feature = "dkim")]
mod dkim;
mod faults;
mod request;
mod server;
mod support;
mod unsupported;
