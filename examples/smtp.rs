//! One mail over SMTP, by way of an outbox.
//!
//! ```text
//! SMTP_URL=smtps://USER:PASSWORD@smtp.example.com MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example smtp --features sqlite,smtp
//! ```

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::smtp::Smtp;
use postrider::{Outbox, SqliteStore};

#[path = "support/mail.rs"]
mod mail;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let smtp = Smtp::from_url(&need("SMTP_URL")?)?;
    let store = SqliteStore::open("sqlite://outbox.db").await?;
    let outbox = Outbox::new(store, smtp);
    outbox.migrate().await?;

    let email = mail::example_mail(&need("MAIL_FROM")?, &need("MAIL_TO")?)?;
    let id = outbox.enqueue(email).await?;

    // Once, for what is due now. A service runs `outbox.relay().run(shutdown)` instead.
    outbox.relay().drain().await?;

    let delivery = outbox.get(id).await?.ok_or("the delivery is gone")?;
    println!("{id} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let said = attempt.error.as_deref().or(attempt.reply.as_deref()).unwrap_or_default();
        println!("attempt {}: {}: {said}", attempt.number, attempt.outcome);
    }
    Ok(())
}
