//! The suite of the PostgreSQL store, on the version that Debian has here and on version 18.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::duplicate_mod, reason = "one suite for each server")]

use std::time::Duration;

use postrider::Email;

#[path = "support/dropped.rs"]
mod dropped;
#[path = "support/nonsense.rs"]
mod nonsense_support;
#[path = "support/pool.rs"]
mod pool;
#[path = "postgres/suite.rs"]
mod postgres;
#[path = "postgres/suite.rs"]
mod postgres_18;

const SECOND: Duration = Duration::from_secs(1);

/// The URL of the server that a module is named for, or, where `name` is `PGBOUNCER`, of what stands before that server.
fn url(module: &str, name: &str) -> String {
    let server = module.split("::").nth(1).unwrap().replace("postgres", "PG").replace('_', "");
    let name = format!("POSTRIDER_TEST_{}_URL", name.replacen("PG", &server, 1));
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

fn ada() -> Email {
    Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").build().unwrap()
}
