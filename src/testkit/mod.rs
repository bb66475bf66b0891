//! For tests: yours of what you build on postrider, and those of a store or transport of your own.
//!
//! - [`ScriptedTransport`] answers as a test tells it to, and remembers what it was given.
//! - [`store`] is the suite that every store passes. A store of your own runs it with [`store_tests!`](crate::store_tests).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance suite speaks by panicking, as the tests that call it do"
)]

mod scripted;
pub mod store;

pub use scripted::{Call, ScriptedTransport};
