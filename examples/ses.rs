//! One mail by Amazon SES, by way of an outbox.
//!
//! ```text
//! AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_REGION=eu-west-1 MAIL_FROM=you@example.com \
//!     MAIL_TO=success@simulator.amazonses.com cargo run --example ses --features sqlite,ses
//! ```
//!
//! `AWS_PROFILE`, `AWS_ENDPOINT_URL` and the rest mean what they mean to AWS's own tools.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::ses::Ses;
use postrider::{Outbox, SqliteStore};

#[path = "support/mail.rs"]
mod mail;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let ses = Ses::from_env().await?;
    let store = SqliteStore::open("sqlite://outbox.db").await?;
    let outbox = Outbox::new(store, ses);
    outbox.migrate().await?;

    let email = mail::example_mail(&need("MAIL_FROM")?, &need("MAIL_TO")?)?;
    let id = outbox.enqueue(email).await?;

    // Once, for what is due now. A service runs `outbox.relay().run(shutdown)` instead.
    outbox.relay().drain().await?;

    let delivery = outbox.get(id).await?.ok_or("the delivery is gone")?;
    println!("{id} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let said = attempt.error.as_deref().or(attempt.provider_id.as_deref()).unwrap_or_default();
        println!("attempt {}: {}: {said}", attempt.number, attempt.outcome);
    }
    Ok(())
}
