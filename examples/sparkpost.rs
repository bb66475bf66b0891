//! One mail by SparkPost, through an outbox.
//!
//! ```text
//! SPARKPOST_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example sparkpost --features sqlite,sparkpost
//! ```
//!
//! `SparkPost::from_env()?.eu()` is for accounts in the EU region.

use postrider::http::{Http, SparkPost};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let sparkpost = common::base_url(Http::builder(SparkPost::from_env()?), "SPARKPOST_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, sparkpost);
    common::send(&outbox, common::full_mail()?).await
}
