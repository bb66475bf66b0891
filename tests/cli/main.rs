//! The operator's tool, as a process, against a mail server that does as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod content;
mod delivery;
mod errors;
mod outages;
mod output;
mod server;
mod signals;
mod tool;
mod wishes;
