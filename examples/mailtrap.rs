//! One mail by Mailtrap, by way of an outbox.
//!
//! ```text
//! MAILTRAP_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailtrap --features sqlite,mailtrap
//! ```

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::http::{Http, Mailtrap};
use postrider::{Outbox, SqliteStore};

#[path = "support/mail.rs"]
mod mail;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let mut mailtrap = Http::builder(Mailtrap::from_env()?);
    if let Ok(url) = env::var("MAILTRAP_BASE_URL") {
        mailtrap = mailtrap.base_url(url);
    }
    let store = SqliteStore::open("sqlite://outbox.db").await?;
    let outbox = Outbox::new(store, mailtrap.build()?);
    outbox.migrate().await?;

    // Mailtrap takes one address for answers.
    let email = mail::order(&need("MAIL_FROM")?, &need("MAIL_TO")?)?.metadata("order_id", "42").build()?;
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
