//! One mail by Mailgun, by way of an outbox.
//!
//! ```text
//! MAILGUN_API_KEY=… MAILGUN_DOMAIN=mg.example.com MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailgun --features sqlite,mailgun
//! ```
//!
//! `Mailgun::from_env()?.eu()` is for domains in the European Union, and `.test_mode()` for a rehearsal.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::http::{Http, Mailgun};
use postrider::{Outbox, SqliteStore};

#[path = "support/mail.rs"]
mod mail;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let mut mailgun = Http::builder(Mailgun::from_env()?);
    if let Ok(url) = env::var("MAILGUN_BASE_URL") {
        mailgun = mailgun.base_url(url);
    }
    let store = SqliteStore::open("sqlite://outbox.db").await?;
    let outbox = Outbox::new(store, mailgun.build()?);
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
