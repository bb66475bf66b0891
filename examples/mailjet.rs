//! One mail by Mailjet, through an outbox.
//!
//! ```text
//! MJ_APIKEY_PUBLIC=… MJ_APIKEY_PRIVATE=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailjet --features sqlite,mailjet
//! ```
//!
//! Mailjet takes one Reply-To address.

use postrider::http::{Http, Mailjet};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let mailjet = common::base_url(Http::builder(Mailjet::from_env()?), "MAILJET_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, mailjet);
    common::send(&outbox, common::order()?.metadata("order_id", "42").build()?).await
}
