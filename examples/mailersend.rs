//! One mail by MailerSend, by way of an outbox.
//!
//! ```text
//! MAILERSEND_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailersend --features sqlite,mailersend
//! ```
//!
//! The custom header needs one of its larger plans.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;

use postrider::http::{Http, MailerSend};
use postrider::{Attachment, Email, Outbox, SqliteStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let mut mailersend = Http::builder(MailerSend::from_env()?);
    if let Ok(url) = env::var("MAILERSEND_BASE_URL") {
        mailersend = mailersend.base_url(url);
    }
    let store = SqliteStore::open("sqlite://outbox.db").await?;
    let outbox = Outbox::new(store, mailersend.build()?);
    outbox.migrate().await?;

    let (from, to) = (need("MAIL_FROM")?, need("MAIL_TO")?);
    // Subaddresses of the same mailbox.
    let copy = |kind: &str| to.replacen('@', &format!("+{kind}@"), 1);
    // One red pixel.
    let pixel = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
    let email = Email::builder()
        .from(from.as_str())
        .to(to.as_str())
        .cc(copy("cc"))
        .bcc(copy("bcc"))
        // MailerSend takes one address for answers.
        .reply_to(from.as_str())
        .subject("Your order 42")
        .text("It is on its way. The terms are attached.")
        .html("<p>It is <b>on its way</b>. <img src=\"cid:pixel\" width=\"20\" height=\"20\" alt=\"\"></p>")
        .attach(Attachment::new("terms.txt", "text/plain", *b"Nothing is ever lost.\n")?)
        .attach(Attachment::inline("pixel", "pixel.gif", "image/gif", *pixel)?)
        .header("X-Order", "42")
        // It has no field for metadata.
        .tag("order")
        .tag("example")
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
