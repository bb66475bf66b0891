//! Tests of the transport against a scripted server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "dkim")]
#[path = "../../../core/tests/verifiers/authenticator.rs"]
mod authenticator;
mod cancel;
mod conformance;
#[cfg(feature = "dkim")]
mod dkim;
mod faults;
#[cfg(feature = "dkim")]
#[path = "../../../core/tests/verifiers/python.rs"]
mod python;
mod request;
mod responses;
mod server;
mod support;
mod unsupported;
