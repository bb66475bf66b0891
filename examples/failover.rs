//! One mail by your own server, or by a provider when that server cannot send it.
//!
//! ```text
//! SMTP_URL=smtp://localhost SENDGRID_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example failover --features sqlite,smtp,ses,sendgrid
//! ```
//!
//! Without `SENDGRID_API_KEY`, the second transport is Amazon SES, configured by `AWS_REGION` and the other variables of the AWS CLI.

use std::env;
use std::time::Duration;

use postrider::http::{Http, SendGrid};
use postrider::ses::Ses;
use postrider::smtp::Smtp;
use postrider::transport::{Failover, Timeout};
use postrider::{BoxTransport, Email, Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let smtp = Smtp::from_url(&common::variable("SMTP_URL")?)?;
    let second = match env::var("SENDGRID_API_KEY") {
        Ok(key) => BoxTransport::new(Http::new(SendGrid::new(key)?)?),
        Err(_) => BoxTransport::new(Ses::from_env().await?),
    };
    // A call that times out is in doubt. It does not move on to the second transport, because the mail might arrive twice.
    let transport = Failover::new(Timeout::new(smtp, Duration::from_secs(60))).or(second);
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, transport);

    let email = Email::builder()
        .from(common::variable("MAIL_FROM")?)
        .to(common::variable("MAIL_TO")?)
        .subject("Hello from the outbox")
        .text("It works.")
        .build()?;
    common::send(&outbox, email).await
}
