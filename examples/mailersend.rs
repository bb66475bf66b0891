//! One mail by MailerSend, through an outbox.
//!
//! ```text
//! MAILERSEND_API_KEY=… MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example mailersend --features sqlite,mailersend
//! ```
//!
//! MailerSend takes one Reply-To address and no metadata. Only its larger plans take custom headers such as this mail's `X-Order`.

use postrider::http::{Http, MailerSend};
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let mailersend = common::base_url(Http::builder(MailerSend::from_env()?), "MAILERSEND_BASE_URL").build()?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, mailersend);
    common::send(&outbox, common::order()?.tag("example").build()?).await
}
