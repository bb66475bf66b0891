//! One mail by Brevo, through an outbox.
//!
//! ```text
//! BREVO_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example brevo --features sqlite,brevo
//! ```
//!
//! Brevo takes no inline parts and one Reply-To address. `Brevo::from_env()?.sandbox()` checks the request and sends nothing.

use postrider::http::{Brevo, Http};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let brevo = common::base_url(Http::builder(Brevo::from_env()?), "BREVO_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, brevo);
    common::send(&outbox, common::simple_order()?.metadata("order_id", "42").build()?).await
}
