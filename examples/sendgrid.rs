//! One mail by SendGrid, through an outbox.
//!
//! ```text
//! SENDGRID_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example sendgrid --features sqlite,sendgrid
//! ```
//!
//! `SendGrid::from_env()?.sandbox()` checks the request and sends nothing.

use postrider::http::{Http, SendGrid};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let sendgrid = common::base_url(Http::builder(SendGrid::from_env()?), "SENDGRID_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, sendgrid);
    common::send(&outbox, common::full_mail()?).await
}
