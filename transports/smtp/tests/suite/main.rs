//! The transport against a server that does whatever a test wants of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod auth;
mod cancel;
mod conformance;
#[cfg(feature = "dkim")]
mod dkim;
mod extensions;
mod faults;
mod pool;
mod protocol;
mod recipients;
mod replies;
mod support;
mod tls;
mod wire;
