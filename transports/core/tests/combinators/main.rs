//! Transports made of other transports.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod failover;
mod limits;
mod nested;
mod redirect;
mod round_robin;
mod support;
