//! One mail by your own server, or by a provider where that cannot send.
//!
//! ```text
//! SMTP_URL=smtp://localhost SENDGRID_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example failover --features sqlite,smtp,ses,sendgrid
//! ```
//!
//! Without `SENDGRID_API_KEY`, Amazon SES comes second, with what `AWS_REGION` and the rest say.

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::error::Error;
use std::time::Duration;

use postrider::http::{Http, SendGrid};
use postrider::ses::Ses;
use postrider::smtp::Smtp;
use postrider::transport::{Failover, Timeout};
use postrider::{BoxTransport, Email, Outbox, SqliteStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let need = |name: &str| env::var(name).map_err(|_| format!("set {name}"));

    let smtp = Smtp::from_url(&need("SMTP_URL")?)?;
    let second = match env::var("SENDGRID_API_KEY") {
        Ok(key) => BoxTransport::new(Http::new(SendGrid::new(key)?)?),
        Err(_) => BoxTransport::new(Ses::from_env().await?),
    };
    // A call that ends by its time limit is in doubt, and what is in doubt does not move on: it might arrive twice.
    let transport = Failover::new(Timeout::new(smtp, Duration::from_secs(60))).or(second);
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, transport);
    outbox.migrate().await?;

    let email = Email::builder()
        .from(need("MAIL_FROM")?)
        .to(need("MAIL_TO")?)
        .subject("Hello from the outbox")
        .text("It works.")
        .build()?;
    let id = outbox.enqueue(email).await?;

    // Once, for what is due now. A service runs `outbox.relay().run(shutdown)` instead.
    outbox.relay().drain().await?;

    let delivery = outbox.get(id).await?.ok_or("the delivery is gone")?;
    println!("{id} is {}", delivery.state);
    for attempt in &delivery.attempts {
        let said = attempt.error.as_deref().or(attempt.provider_id.as_deref()).unwrap_or_default();
        let by = attempt.transport.as_deref().unwrap_or("nobody known");
        println!("attempt {} by {by}: {}: {said}", attempt.number, attempt.outcome);
    }
    Ok(())
}
