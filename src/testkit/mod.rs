//! Helpers to test programs that use postrider, and custom stores and transports.
//!
//! - [`ScriptedTransport`] returns scripted results, and records its calls.
//! - [`store`] is the suite that every store passes. Run it on your own store with [`store_tests!`](crate::store_tests).
//! - [`transport`] is the suite that every transport passes. Run it on your own transport with
//!   [`transport_tests!`](crate::transport_tests).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance suite fails by panicking, like the tests that call it"
)]

mod scripted;
pub mod store;

/// The conformance suite for transports: functions that panic if a transport violates the contract. It is part of `postrider-transport`, so
/// that the crate of a transport needs no other dependency.
pub use postrider_transport::testkit as transport;
pub use scripted::{Call, ScriptedTransport};
