//! The command-line tool as a process, against a scripted mail server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(all(feature = "dkim", feature = "postmark"))]
#[path = "../../transports/core/tests/verifiers/authenticator.rs"]
mod authenticator;
mod combinators;
mod content;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod database_servers;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod databases;
mod delivery;
#[cfg(all(feature = "dkim", feature = "postmark"))]
mod dkim;
mod enqueue_options;
mod errors;
mod explain;
#[cfg(all(feature = "postmark", feature = "resend"))]
mod http_server;
#[cfg(feature = "mailbox")]
mod mailbox;
mod operators;
mod outages;
mod output;
#[cfg(all(feature = "postmark", feature = "resend"))]
mod providers;
#[cfg(all(feature = "dkim", feature = "postmark"))]
#[path = "../../transports/core/tests/verifiers/python.rs"]
mod python;
mod search;
#[cfg(feature = "dashboard")]
mod serve;
mod signals;
mod smtp_server;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod sql_contract;
#[allow(dead_code, reason = "shared with the crash tests, which use all of it")]
mod tool;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod unresponsive_database;
