//! One mail by Brevo, by way of an outbox.
//!
//! ```text
//! BREVO_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example brevo --features sqlite,brevo
//! ```
//!
//! Its API takes no inline parts and one address for answers, so that the mail is a little less than in the other examples.
//! `Brevo::from_env()?.sandbox()` is a rehearsal.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::http::{Brevo, Http};
use postrider::{Attachment, Email, Outbox, SqliteStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let mut brevo = Http::builder(Brevo::from_env()?);
    if let Ok(url) = env::var("BREVO_BASE_URL") {
        brevo = brevo.base_url(url);
    }
    let store = SqliteStore::open("sqlite://outbox.db").await?;
    let outbox = Outbox::new(store, brevo.build()?);
    outbox.migrate().await?;

    let (from, to) = (need("MAIL_FROM")?, need("MAIL_TO")?);
    let email = Email::builder()
        .from(&from)
        .to(&to)
        .cc(to.replacen('@', "+cc@", 1))
        .bcc(to.replacen('@', "+bcc@", 1))
        .reply_to(&from)
        .subject("Your order 42")
        .text("It is on its way. The terms are attached.")
        .html("<p>It is <b>on its way</b>. The terms are attached.</p>")
        .attach(Attachment::new("terms.txt", "text/plain", *b"Nothing is ever lost.\n")?)
        .header("X-Order", "42")
        .tag("order")
        .metadata("order_id", "42")
        .build()?;
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
