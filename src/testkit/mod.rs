//! For tests: yours of what you build on postrider, and those of a store or transport of your own.
//!
//! - [`ScriptedTransport`] answers as a test tells it to, and remembers what it was given.
//! - [`store`] is the suite that every store passes. A store of your own runs it with [`store_tests!`](crate::store_tests).
//! - [`transport`] is the suite that every transport passes. A transport of your own runs it with
//!   [`transport_tests!`](crate::transport_tests).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance suite speaks by panicking, as the tests that call it do"
)]

mod scripted;
pub mod store;

/// What every transport must do, as functions that panic where one does not. It is a part of `postrider-transport`, so that a crate with
/// a transport needs no more than that.
pub use postrider_transport::testkit as transport;
pub use scripted::{Call, ScriptedTransport};
