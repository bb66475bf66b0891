//! The dashboard, through its router and in Chromium.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod acts;
mod browser;
mod canary;
mod fixture;
mod headers;
mod hostile;
mod lists;
mod messages;
mod nesting;
mod overview;
mod site;
