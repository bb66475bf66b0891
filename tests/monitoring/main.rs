//! The tool's endpoint for Prometheus, the alert rules and the dashboard of `docs/monitoring`, and the real Prometheus.
//!
//! The tests with `needs Prometheus` or `needs promtool` as the reason need what `scripts/servers/prometheus.sh` starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "postgres")]
mod database;
#[cfg(feature = "postgres")]
#[path = "../cli/database_servers.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod database_servers;
mod docs;
mod endpoint;
#[path = "../support/exposition.rs"]
mod exposition;
mod outage;
mod prometheus;
mod rules;
mod served;
#[path = "../cli/smtp_server.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod smtp_server;
#[path = "../cli/tool.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod tool;
