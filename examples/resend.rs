//! One mail by Resend, through an outbox.
//!
//! ```text
//! RESEND_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example resend --features sqlite,resend
//! ```
//!
//! Mail to `delivered@resend.dev` is a test: it reaches nobody.

use postrider::http::{Http, Resend};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let resend = common::base_url(Http::builder(Resend::from_env()?), "RESEND_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, resend);
    common::send(&outbox, common::full_mail()?).await
}
