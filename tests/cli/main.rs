//! The operator's tool, as a process, against a mail server that does as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(all(feature = "postmark", feature = "resend"))]
mod api;
#[cfg(all(feature = "dkim", feature = "postmark"))]
#[path = "../../transports/core/tests/verifiers/authenticator.rs"]
mod authenticator;
mod combined;
mod content;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod databases;
mod delivery;
#[cfg(all(feature = "dkim", feature = "postmark"))]
mod dkim;
mod errors;
mod explain;
mod outages;
mod output;
#[cfg(all(feature = "postmark", feature = "resend"))]
mod providers;
#[cfg(all(feature = "dkim", feature = "postmark"))]
#[path = "../../transports/core/tests/verifiers/python.rs"]
mod python;
mod server;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod servers;
mod signals;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod silent;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod sql;
#[allow(dead_code, reason = "shared with the crash tests, which use other databases as well")]
mod tool;
mod wishes;
