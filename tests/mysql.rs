//! The suite of the MySQL store, on each server that it is for. A module bears the name of its server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::duplicate_mod, reason = "one suite for each server")]

use std::time::Duration;

use postrider::Email;

#[path = "mysql/suite.rs"]
mod mariadb;
#[path = "mysql/suite.rs"]
mod mysql;
#[path = "support/nonsense.rs"]
mod nonsense;
#[path = "support/pool.rs"]
mod pool;

const SECOND: Duration = Duration::from_secs(1);

/// The URL of the server that a module is named for.
fn url(module: &str) -> String {
    let server = module.split("::").nth(1).unwrap().to_uppercase();
    let name = format!("POSTRIDER_TEST_{server}_URL");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

fn ada() -> Email {
    Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").build().unwrap()
}
