//! One mail by Postmark, through an outbox.
//!
//! ```text
//! POSTMARK_SERVER_TOKEN=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example postmark --features sqlite,postmark
//! ```
//!
//! With the token `POSTMARK_API_TEST`, Postmark checks the request and sends nothing.

use postrider::http::{Http, Postmark};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let postmark = common::base_url(Http::builder(Postmark::from_env()?), "POSTMARK_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, postmark);
    common::send(&outbox, common::full_mail()?).await
}
