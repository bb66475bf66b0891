//! One mail over SMTP, through an outbox.
//!
//! ```text
//! SMTP_URL=smtps://USER:PASSWORD@smtp.example.com MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example smtp --features sqlite,smtp
//! ```

use postrider::smtp::Smtp;
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let smtp = Smtp::from_url(&common::variable("SMTP_URL")?)?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, smtp);
    common::send(&outbox, common::full_mail()?).await
}
