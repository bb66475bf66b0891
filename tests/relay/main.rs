//! What a relay does, over the store in memory and with a scripted transport.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod batches;
mod combined;
mod flow;
mod handle;
mod harness;
mod malformed;
mod memory;
mod operators;
mod outage;
mod pauses;
mod retention;
mod retry;
#[cfg(feature = "smtp")]
mod same_bytes;
mod shutdown;
#[path = "../support/mod.rs"]
mod support;
mod unreliable_store;
