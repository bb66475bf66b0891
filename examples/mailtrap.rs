//! One mail by Mailtrap, through an outbox.
//!
//! ```text
//! MAILTRAP_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailtrap --features sqlite,mailtrap
//! ```
//!
//! Mailtrap takes one Reply-To address.

use postrider::http::{Http, Mailtrap};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let mailtrap = common::base_url(Http::builder(Mailtrap::from_env()?), "MAILTRAP_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, mailtrap);
    common::send(&outbox, common::order()?.metadata("order_id", "42").build()?).await
}
