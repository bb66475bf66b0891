//! The transport against a scripted server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod auth;
#[cfg(feature = "dkim")]
#[path = "../../../core/tests/verifiers/authenticator.rs"]
mod authenticator;
mod cancel;
mod conformance;
#[cfg(feature = "dkim")]
mod dkim;
mod extensions;
mod faults;
mod pool;
mod protocol;
#[cfg(feature = "dkim")]
#[path = "../../../core/tests/verifiers/python.rs"]
mod python;
mod recipients;
mod replies;
mod support;
mod tls;
mod wire;
