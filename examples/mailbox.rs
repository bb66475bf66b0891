//! Mail in a dashboard, without a mail server, a database or an account. Nothing is sent.
//!
//! ```text
//! cargo run --example mailbox --features dashboard,mailbox
//! ```
//!
//! Then open <http://127.0.0.1:8025/>. It runs until Ctrl-C, and forgets everything then. In a service of your own, use your database and
//! your own routes; only the transport differs from production.

#![allow(clippy::print_stdout, reason = "an example prints where to look")]

use std::time::Duration;

use postrider::dashboard::{Access, Dashboard};
use postrider::{Attachment, DevMailbox, Email, EmailError, MemoryStore, NewDelivery, Outbox};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In production: your database, and the transport that carries the mail.
    let outbox = Outbox::new(MemoryStore::new(), DevMailbox::new());
    outbox.enqueue_all(mails()?).await?;
    let relay = tokio::spawn(outbox.relay().run(async { _ = tokio::signal::ctrl_c().await }));

    let address = std::env::var("DASHBOARD_ADDRESS").unwrap_or("127.0.0.1:8025".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("Open http://{}/ to read the mail. Nothing is sent. Ctrl-C ends it.", listener.local_addr()?);
    // Everybody on this machine may do everything.
    let dashboard = Dashboard::new(outbox.handle()).access(|_| async { Access::operate().by("developer") });
    let stopped = async { _ = tokio::signal::ctrl_c().await };
    axum::serve(listener, dashboard.into_router()).with_graceful_shutdown(stopped).await?;
    relay.await??;
    Ok(())
}

fn mails() -> Result<Vec<NewDelivery<Email>>, EmailError> {
    let from_shop = || Email::builder().from("Corner Shop <hello@shop.example>");
    let welcome = from_shop()
        .to("Ada Lovelace <ada@example.com>")
        .subject("Welcome, Ada")
        .text("Good to have you.\n\nYour account: https://shop.example/account\n")
        .html(concat!(
            "<p><img src=\"cid:envelope\" width=\"48\" height=\"48\" alt=\"\"></p><h1>Good to have you.</h1>",
            "<p>This is <a href=\"https://shop.example/account\">your account</a>.</p>",
        ))
        .attach(Attachment::inline("envelope", "envelope.png", "image/png", *include_bytes!("common/envelope.png"))?)
        .template_id("welcome")
        .tag("onboarding")
        .build()?;
    let invoice = from_shop()
        .to("bob@example.org")
        .reply_to("accounts@shop.example")
        .subject("Invoice 42")
        .text("The invoice is attached.")
        .attach(Attachment::new("invoice-42.csv", "text/csv", *b"item,price\ntea,4.20\n")?)
        .metadata("order", "42")
        .template_id("invoice")
        .build()?;
    // `refuse.invalid` refuses mail, as an unknown user would be refused.
    let news = (1..=12)
        .fold(from_shop().to("team@shop.example"), |news, reader| news.bcc(format!("reader-{reader}@example.net")))
        .bcc("gone@refuse.invalid")
        .subject("What is new in spring")
        .text("Tea.")
        .html("<p>Tea.</p>")
        .template_id("news")
        .build()?;
    let refused = from_shop().to("grace@refuse.invalid").subject("Your parcel is on its way").text("It is.").build()?;
    let deferred = from_shop().to("alan@defer.invalid").subject("Your parcel has arrived").text("It has.").build()?;
    let reminder = from_shop().to("ada@example.com").subject("Your basket waits").text("It does.").build()?;
    let later = NewDelivery::new(reminder).send_in(Duration::from_secs(24 * 3_600));
    let now = [welcome, invoice, news, refused, deferred].map(NewDelivery::new);
    Ok(now.into_iter().chain([later]).collect())
}
