//! One mail by Mailgun, through an outbox.
//!
//! ```text
//! MAILGUN_API_KEY=… MAILGUN_DOMAIN=mg.example.com MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailgun --features sqlite,mailgun
//! ```
//!
//! `Mailgun::from_env()?.eu()` is for domains in the EU region; `.test_mode()` checks the request and delivers nothing.

use postrider::http::{Http, Mailgun};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let mailgun = common::base_url(Http::builder(Mailgun::from_env()?), "MAILGUN_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, mailgun);
    common::send(&outbox, common::full_mail()?).await
}
