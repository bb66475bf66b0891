//! What a relay does, on the store in memory and with a transport that answers as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod breaker;
mod combined;
mod flow;
mod memory;
mod outage;
mod retry;
mod shutdown;
mod support;
