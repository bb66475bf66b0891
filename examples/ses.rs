//! One mail by Amazon SES, through an outbox.
//!
//! ```text
//! AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_REGION=eu-west-1 MAIL_FROM=you@example.com \
//!     MAIL_TO=success@simulator.amazonses.com cargo run --example ses --features sqlite,ses
//! ```
//!
//! Region, credentials and endpoint come from the environment and the profiles that the AWS CLI uses.

use postrider::ses::Ses;
use postrider::{Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    let ses = Ses::from_env().await?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, ses);
    common::send(&outbox, common::full_mail()?).await
}
