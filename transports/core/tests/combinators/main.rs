//! The transports that are made of others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod failover;
mod limits;
mod nested;
mod redirect;
mod round_robin;
mod support;
